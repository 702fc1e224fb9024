"""Training runs of several optimisers on one task: sweep of learning rates, races, comparison.

The optimisers are set up as in the suite's trainings, but without weight decay. A run keeps its
learning rate after a short rise, and what is judged is the running average of its
weights on held-out batches that are the same for all. So every point of a curve is a result that
one could have stopped at, and one run answers for equal steps, equal seconds and the steps to a
loss alike, which a schedule that falls towards a planned end would not.

Seconds are CPU seconds of this process at one thread, the median over the steps of a run: what
else runs on the machine costs others, not us. Making batches and judging do not count.
"""

import math
import statistics
import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from muon_ad.optim.gradients import GradientError
from muon_ad.train.optimizers import network_optimizer

NAMES = ('muon', 'torch-muon', 'adamw', 'lion', 'sgd')
REFERENCE = 'adamw'
RISE = 0.05         # share of the steps in which the learning rate rises
AVERAGED = 0.1      # share of the steps that the weights are averaged over
JUDGED = 12         # times that a run is judged
FACTOR = 10 ** (1 / 3)      # between the learning rates of a grid
LONGEST = 1.5       # times the steps: what a cheap optimiser may take for equal seconds

Batch = Any


@dataclass(frozen=True)
class Task:
    """What is trained: an untrained network, its loss on a batch, and batches.

    `first` and `last` are the layers that Muon leaves to AdamW; `centres` the middle of the grid
    of learning rates for each optimiser; `about` goes into the report.
    """

    name: str
    make: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Batch], Tensor]
    batch: Callable[[np.random.Generator], Batch]
    held: Sequence[Batch]
    first: Sequence[str]
    last: Sequence[str]
    centres: dict[str, float]
    about: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """Held-out loss over steps, and the CPU seconds of a step. inf from where a run diverged."""

    steps: list[int]
    losses: list[float]
    step_seconds: float

    def at(self, step: float) -> float:
        """Return the loss at a step, between those judged; the last one beyond the end."""
        return float(np.interp(step, self.steps, self.losses))

    def reaches(self, loss: float) -> float | None:
        """Return the first step, between those judged, with a loss as low; None if there is none.
        """
        for index, found in enumerate(self.losses):
            if found > loss:
                continue
            if index == 0:
                return float(self.steps[0])
            before = self.losses[index - 1]
            share = (before - loss) / (before - found) if math.isfinite(before) else 1.0
            start = self.steps[index - 1]
            return start + share * (self.steps[index] - start)
        return None


@dataclass
class Sweep:
    """Final loss of each learning rate tried."""

    losses: dict[float, float] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)

    def add(self, rate: float, curve: Curve) -> None:
        """Take in a run."""
        self.losses[rate] = curve.losses[-1]
        self.curves.append(curve)

    @property
    def best(self) -> float:
        """The rate with the lowest loss; the lowest rate where all diverged."""
        return min(sorted(self.losses), key=self.losses.__getitem__)

    def beyond(self) -> float | None:
        """Return the next rate outside the grid where the best one is at its edge, or None."""
        low, high = min(self.losses), max(self.losses)
        if self.best == low:
            return low / FACTOR
        return high * FACTOR if self.best == high else None

    @property
    def step_seconds(self) -> float:
        """CPU seconds of a step, the median over the runs."""
        return statistics.median(curve.step_seconds for curve in self.curves)


def train(task: Task, name: str, rate: float, steps: int, seed: int, total: int = 0) -> Curve:
    """Train from the start; batches and weights depend on the seed alone.

    `steps` is what rise and average are measured by, `total` how many to take, if more.
    """
    torch.manual_seed(seed)
    net = task.make().train()
    optimizer = network_optimizer(name, net, rate, 0.0, task.first, task.last)
    average = AveragedModel(
        net, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / max(1.0, AVERAGED * steps)),
        use_buffers=True,
    )
    rng = np.random.default_rng(seed)
    judged, losses, seconds = [0], [judge(task, average.module)], []
    every, last = max(1, steps // JUDGED), max(steps, total)
    for step in range(1, last + 1):
        for group in optimizer.param_groups:
            group['lr'] = rate * min(1.0, step / max(1.0, RISE * steps))
        spent = _advance(task, net, optimizer, task.batch(rng))
        if spent is None:
            return Curve([*judged, step], [*losses, math.inf], _median(seconds))
        seconds.append(spent)
        average.update_parameters(net)
        if step % every == 0 or step in (steps, last):
            judged.append(step)
            losses.append(judge(task, average.module))
    return Curve(judged, losses, _median(seconds))


def _advance(task: Task, net: nn.Module, optimizer: Optimizer, batch: Batch) -> float | None:
    """Take a step; return its CPU seconds, or None where the run has diverged."""
    begun = time.process_time()
    optimizer.zero_grad(set_to_none=True)
    loss = task.loss(net, batch)
    if not math.isfinite(loss.item()):
        return None
    loss.backward()
    try:
        optimizer.step()
    except GradientError:
        return None
    return time.process_time() - begun


def _median(seconds: list[float]) -> float:
    return statistics.median(seconds) if seconds else math.nan


@torch.no_grad()
def judge(task: Task, net: nn.Module) -> float:
    """Return the mean loss on the held-out batches, in evaluation mode; inf for NaN."""
    net.eval()
    loss = statistics.fmean(task.loss(net, batch).item() for batch in task.held)
    return loss if math.isfinite(loss) else math.inf


def sweep(
    task: Task, names: Sequence[str], steps: int, rates: int, extensions: int,
    say: Callable[[str], None],
) -> dict[str, Sweep]:
    """Try `rates` learning rates of every optimiser, and up to `extensions` more at an edge.

    The optimisers take turns, so that what changes on the machine meets all of them.
    """
    found = {name: Sweep() for name in names}
    for index in range(rates + extensions):
        for name in names:
            rate = (task.centres[name] * FACTOR ** (index - (rates - 1) / 2) if index < rates
                    else found[name].beyond())
            if rate is None:
                continue
            found[name].add(rate, train(task, name, rate, steps, seed=0))
            say(f'{task.name}: {name} at {rate:.2g}: {found[name].losses[rate]:.4f}')
    return found


def race(
    task: Task, swept: dict[str, Sweep], steps: int, seeds: int, say: Callable[[str], None]
) -> dict[str, list[Curve]]:
    """Run every optimiser at its best rate with further seeds, in turns.

    Those whose steps are cheaper than the reference's take more of them, to spend as long.
    """
    found: dict[str, list[Curve]] = {name: [] for name in swept}
    for seed in range(1, seeds + 1):
        for name, tried in swept.items():
            cheaper = swept[REFERENCE].step_seconds / tried.step_seconds
            total = math.ceil(steps * min(cheaper, LONGEST)) if cheaper > 1 else steps
            curve = train(task, name, tried.best, steps, seed, total)
            found[name].append(curve)
            say(f'{task.name}: {name}, seed {seed}: {curve.at(steps):.4f}, '
                f'{1000 * curve.step_seconds:.0f} ms a step')
    return found


@dataclass(frozen=True)
class Against:
    """An optimiser against AdamW, seed by seed.

    Loss after as many steps, and after as many seconds. Steps (and seconds) that AdamW took to its
    final loss over those that this one took to the same: above 1 is faster, None is "not within
    its run".
    """

    equal_steps: list[float]
    equal_seconds: list[float]
    steps_ratio: list[float | None]
    seconds_ratio: list[float | None]
    step_seconds: list[float]


def against(reference: Sequence[Curve], curves: Sequence[Curve], steps: int) -> Against:
    """Compare the runs of an optimiser with AdamW's runs of the same seeds."""
    found = Against([], [], [], [], [])
    for theirs, ours in zip(reference, curves, strict=True):
        dearer = ours.step_seconds / theirs.step_seconds
        aim = theirs.at(steps)
        needed = ours.reaches(aim)
        found.equal_steps.append(ours.at(steps))
        found.equal_seconds.append(ours.at(steps / dearer))
        found.steps_ratio.append(steps / needed if needed else None)
        found.seconds_ratio.append(steps / needed / dearer if needed else None)
        found.step_seconds.append(ours.step_seconds)
    return found

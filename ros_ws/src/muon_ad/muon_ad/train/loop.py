"""The loop that every training runs: steps, a log, checkpoints and a bar with the time left."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import Protocol

from tqdm import tqdm

from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.checkpoint import save_checkpoint
from muon_ad.train.log import LOG
from muon_ad.train.log import Log


class Learner(Protocol):
    """What learns: `step` is the number of steps taken."""

    step: int

    def advance(self) -> Mapping[str, float]:
        """Take one step; return what to log of it, by column."""

    def state(self) -> dict[str, Any]:
        """Return all that the next steps depend on, for a checkpoint."""


class DivergedError(FloatingPointError, ValueError):
    """A loss is not finite; the weights are still those of before the step."""


def check_finite(loss: float, step: int) -> None:
    """Raise DivergedError where the loss of a step is infinite or not a number."""
    if not math.isfinite(loss):
        raise DivergedError(f'step {step}: loss is {loss}; expected a finite number: lower --rate')


def learn(
    learner: Learner, steps: int, out: Path, columns: Sequence[str], save_every: int = 500,
    log_every: int = 50,
) -> None:
    """Take a learner to `steps` steps, leaving `checkpoint.pt` and `log.csv` in `out`.

    Both are written every so many steps and after the last. The row of a step is written before
    its checkpoint, so that a run resumed from that has every row up to it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (
        Log(out / LOG, columns, learner.step) as log,
        tqdm(total=steps, initial=learner.step, desc='training', unit='step') as bar,
    ):
        while learner.step < steps:
            values = learner.advance()
            bar.update()
            last = learner.step == steps
            if last or learner.step % log_every == 0:
                log.write(learner.step, values)
                bar.set_postfix({name: f'{value:.3g}' for name, value in values.items()})
            if last or learner.step % save_every == 0:
                save_checkpoint(out / CHECKPOINT, learner.state())

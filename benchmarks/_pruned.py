"""What the pruning benchmark compares: methods at ratios, and how fast variants are."""

import itertools
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from _common import console
from _stylers import thread_counts

from muon_ad.prune.plan import Plan
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.style import StyleModel

RATIOS = (0.4, 0.6, 0.8)
# The first five are ours, by score; of these 'random' is a baseline too.
METHODS = {
    'taylor': {}, 'paper': {'score': 'paper'}, 'magnitude': {'score': 'magnitude'},
    'batchnorm': {'score': 'batchnorm'}, 'random': {'score': 'random'},
    'static-l1': {'method': 'static-l1'}, 'layerdrop': {'method': 'layerdrop'},
    'torch-pruning': {'method': 'torch-pruning'},
}
# At 80 % the floor of a layer, 40 % of its channels, would be reached everywhere, and ratios not.
KEEP = {0.8: 0.2}

Frame = np.ndarray
Run = Callable[[Frame], object]


@dataclass(frozen=True)
class Case:
    """A method at a ratio; `name` is that of its variant."""

    method: str
    ratio: float

    @property
    def name(self) -> str:
        """Return what the variant is called."""
        return f'{self.method}-p{round(100 * self.ratio)}'

    def plan(self, steps: int) -> Plan:
        """Return how to prune, with so many training steps in all."""
        keep = KEEP.get(self.ratio, Plan.keep)
        return Plan(steps, self.ratio, keep=keep, **METHODS[self.method])


def cases(methods: Iterable[str], quick: bool) -> list[Case]:
    """Return all that is compared; in a hurry one method of each kind at one ratio."""
    if quick:
        return [Case('taylor', 0.4), Case('static-l1', 0.4)]
    return [Case(method, ratio) for method in methods for ratio in RATIOS]


def runners(package: ModelPackage, names: Sequence[str]) -> dict[tuple[str, int], Run]:
    """Return each variant ready to run, for each number of threads."""
    made = {}
    for name, threads in itertools.product(names, thread_counts()):
        options = EngineOptions(threads=threads)
        if package.task == 'style':
            made[name, threads] = StyleModel(package, name, options).stylise
        else:
            made[name, threads] = Detector(package, name, options=options).detect
    return made


def latencies(
    package: ModelPackage, names: Sequence[str], frame: Callable[[tuple[int, int]], Frame],
    rounds: int, seconds: float,
) -> dict[tuple[str, int], list[float]]:
    """Return milliseconds a frame, one figure a round, by variant and number of threads.

    A figure is the time that a tenth of the frames of about `seconds` beat: of a machine with
    other work, a mean or median would tell of that work. Variants take turns within a round.
    """
    ready = runners(package, names)
    found: dict[tuple[str, int], list[float]] = {key: [] for key in ready}
    for number in range(rounds):
        console.print(f'{package.name}: timing, round {number + 1}/{rounds}')
        for (name, threads), run in ready.items():
            variant = package.variants[name]
            picture = frame((variant.width, variant.height))
            run(picture)
            found[name, threads].append(_timed(run, picture, seconds))
    return found


def _timed(run: Run, picture: Frame, seconds: float) -> float:
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        begun = time.perf_counter()
        run(picture)
        times.append(time.perf_counter() - begun)
    return 1000 * float(np.percentile(times, 10))

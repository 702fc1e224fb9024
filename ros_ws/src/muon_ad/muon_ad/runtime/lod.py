"""Level of detail: which variant of a model a frame gets, so that its result comes in time.

The paper removes 40 to 60 % of a network and calls this dynamic and driven by entropy: a layer of
attention stays where its entropy is above 0.7 of the largest. Taken by the letter, every frame
would get a network of its own; but weights that are masked cost as much as others, and weights
that are cut out cannot be put back between two frames. So it is read thus: pruning makes a family
of variants beforehand, all of them are kept ready, and what is decided for each frame is which one
it is worth. That is the best one in time under the present load, and none better than the scene
asks for.

That a plain scene needs less is the paper's premise. Between the two input sizes of style_default
it was not found: their results differ by 21 grey levels in the plainest of 144 photographs and by
23 in the richest. What it saves is time, then, at a loss that is the same everywhere.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

WINDOW = 10             # frames; at 0.9 of them two slow ones are a load, and one is none
LONGEST_PATIENCE = 16   # times the patience that is set
WARM_UP_ROUNDS = 2
SCENE_FRAMES = 10       # over which the entropy is smoothed
SCENE_BAND = 0.1        # of a level, past the middle between two, before the wanted one changes
ENOUGH_ARRIVALS = 8     # for a rate that means something
ARRIVALS = 32


@dataclass(frozen=True)
class LodSettings:
    """How the choice is made.

    `quantile` of a variant's times must be within what the deadline leaves. A better variant than
    the one in use must have done so for `patience` frames in a row, with `margin` (a share of the
    time left) to spare. Scenes of an entropy (0 to 1) of `plain` and below want the last variant,
    of `rich` and above the best one, between them those between.
    """

    quantile: float = 0.9
    margin: float = 0.15
    patience: int = 15
    plain: float = 0.35
    rich: float = 0.55


class LodController:
    """Chooses a variant for each frame: 0 is the best, the last is the fastest.

    `costs_ms` are inference times measured under one load (see `measured_costs_ms`); only how they
    compare to each other matters. What each frame took, over the cost of its variant, is the load;
    so the variants that are not in use are judged by the load of the one that is.

    Worse variants are used at once. A better one waits: see LodSettings. If it does not hold that
    long, the wait doubles, up to LONGEST_PATIENCE times, until one holds. So between a step down
    for want of time and the next step up are at least `patience` frames.

    `level`, `switches` and `predicted_ms` (the quantile of the time that a frame was to take, from
    the beginning of work to its result) may be read from other threads.
    """

    def __init__(
        self, costs_ms: Sequence[float], settings: LodSettings | None = None, level: int = 0
    ) -> None:
        self.level = level
        self.switches = 0
        self.predicted_ms = costs_ms[level]
        self._costs_ms = tuple(costs_ms)
        self._settings = settings or LodSettings()
        self._loads: deque[float] = deque([1.0], WINDOW)
        self._rests_ms: deque[float] = deque([0.0], WINDOW)
        self._streaks = [0] * len(self._costs_ms)
        self._patience = self._settings.patience
        self._rose = False
        self._held = 0

    def choose(self, left_ms: float, period_ms: float = math.inf, wanted: int = 0) -> int:
        """Return the variant for a frame that has `left_ms` until its deadline.

        Where frames come every `period_ms`, a variant must also take no longer than that on
        average, for else frames would be dropped. `wanted` is the best variant to be considered.
        Where none is in time, the last one is returned: what is late had better be soon.
        """
        fits = []
        for index, cost in enumerate(self._costs_ms):
            used = max(
                self._share(self._at_worst_ms(cost), left_ms),
                self._share(self._usually_ms(cost), period_ms),
            )
            fits.append(used <= 1)
            steady = used <= 1 - self._settings.margin
            self._streaks[index] = self._streaks[index] + 1 if steady else 0
        last = len(fits) - 1
        safe = next((i for i in range(max(self.level, wanted), last) if fits[i]), last)
        proven = next((i for i in range(wanted, last) if self._proven(i)), last)
        self._use(min(safe, proven), wanted)
        self.predicted_ms = self._at_worst_ms(self._costs_ms[self.level])
        return self.level

    def observe(self, infer_ms: float, rest_ms: float = 0.0) -> None:
        """Take note of what the frame took: inference, and all other work until its result."""
        self._loads.append(infer_ms / self._costs_ms[self.level])
        self._rests_ms.append(rest_ms)

    def _at_worst_ms(self, cost: float) -> float:
        share = self._settings.quantile
        return cost * _quantile(self._loads, share) + _quantile(self._rests_ms, share)

    def _usually_ms(self, cost: float) -> float:
        return cost * statistics.median(self._loads) + statistics.median(self._rests_ms)

    @staticmethod
    def _share(needed_ms: float, given_ms: float) -> float:
        return needed_ms / given_ms if given_ms > 0 else math.inf

    def _proven(self, index: int) -> bool:
        return self._streaks[index] >= self._patience

    def _use(self, level: int, wanted: int) -> None:
        """Change to `level`, and learn from it how patient to be."""
        self._held += 1
        if self._rose and self._held > self._patience:
            self._rose = False
            self._patience = self._settings.patience
        if level == self.level:
            return
        if self._rose and level > max(self.level, wanted):
            longest = LONGEST_PATIENCE * self._settings.patience
            self._patience = min(2 * self._patience, longest)
        self._rose = level < self.level
        self._held = 0
        self.switches += 1
        self.level = level


class SceneDemand:
    """Turns the entropy of the scene into the best variant that it is worth, of `levels`.

    Smooths over SCENE_FRAMES and keeps to what it said until the entropy is clearly elsewhere.
    """

    def __init__(self, levels: int, settings: LodSettings | None = None) -> None:
        self.wanted = 0
        self.entropy = 0.0
        self._most = levels - 1
        self._settings = settings or LodSettings()
        self._begun = False

    def update(self, entropy: float) -> int:
        """Take note of a frame's entropy, 0 to 1; return the index of the variant."""
        weight = 1 / SCENE_FRAMES if self._begun else 1.0
        self.entropy += weight * (entropy - self.entropy)
        plain, rich = self._settings.plain, self._settings.rich
        lacks = (rich - self.entropy) / (rich - plain) if plain < rich else self.entropy < rich
        place = self._most * min(max(lacks, 0), 1)
        if not self._begun or abs(place - self.wanted) > 0.5 + SCENE_BAND:
            self.wanted = round(place)
        self._begun = True
        return self.wanted


class CameraPeriod:
    """The time between two frames of a camera, also of those that are not worked on."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=ARRIVALS)

    def update(self, now_s: float, received: int) -> float:
        """Return milliseconds, given how many frames were received until now; inf: not known."""
        self._seen.append((now_s, received))
        begun_s, before = self._seen[0]
        if received - before < ENOUGH_ARRIVALS:
            return math.inf
        return (now_s - begun_s) * 1e3 / (received - before)


def measured_costs_ms(runs: Sequence[Callable[[], object]], rounds: int = 8) -> list[float]:
    """Return the median time of each of `runs`, which take turns, so that one load is on all.

    The first rounds, in which memory and threads are made, are not counted.
    """
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(WARM_UP_ROUNDS + rounds):
        for own, run in zip(times, runs, strict=True):
            begun = time.perf_counter()
            run()
            own.append((time.perf_counter() - begun) * 1e3)
    return [statistics.median(own[WARM_UP_ROUNDS:]) for own in times]


def _quantile(values: deque[float], share: float) -> float:
    """Return the least value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]

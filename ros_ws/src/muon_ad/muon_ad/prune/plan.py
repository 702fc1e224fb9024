"""How a network is to be pruned: what a command's options say, checked."""

from dataclasses import asdict
from dataclasses import dataclass
from typing import Any

from muon_ad.optim.settings import check_choice
from muon_ad.prune.scores import SCORES
from muon_ad.prune.select import absolute
from muon_ad.prune.select import by_deviation
from muon_ad.prune.select import global_ratio
from muon_ad.prune.select import Limits
from muon_ad.prune.select import Threshold
from muon_ad.train.curriculum import Curriculum

METHODS = ('gradual', 'static-l1', 'layerdrop', 'torch-pruning')
THRESHOLDS = ('global', 'sigma', 'tau')


@dataclass(frozen=True)
class Plan:
    """How a network is to be pruned.

    `steps`: of training, first to last; `ratio`: the share of its parameters that is to go;
    `method`: 'gradual' is ours, the others are baselines, which take no score and no threshold.
    `score`: see `scores`; `threshold`: see `select`, with `tau` for the absolute one; `keep` and
    `multiple`: see `Limits`. Raises ValueError for what makes no sense.
    """

    steps: int = 1500
    ratio: float = 0.4
    method: str = 'gradual'
    score: str = 'taylor'
    threshold: str = 'global'
    tau: float | None = None
    keep: float = 0.4
    multiple: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ValueError(f'ratio is {self.ratio}; expected the share of parameters to remove, '
                             'above 0 and below 1')
        if self.steps < 1:
            raise ValueError(f'steps is {self.steps}; expected 1 or more')
        check_choice('method', self.method, METHODS)
        check_choice('score', self.score, tuple(SCORES))
        check_choice('threshold', self.threshold, THRESHOLDS)
        if (self.threshold == 'tau') != (self.tau is not None):
            raise ValueError(f'tau is {self.tau} with threshold {self.threshold!r}; expected a '
                             "number with 'tau', and none with others")
        Limits(self.keep, self.multiple)

    @property
    def limits(self) -> Limits:
        """Return what may not be undercut."""
        return Limits(self.keep, self.multiple)

    @property
    def curriculum(self) -> Curriculum:
        """Return the curriculum that drives the cuts."""
        return Curriculum(self.steps)

    @property
    def variant(self) -> str:
        """Return what the result is called: p40 for 40 % fewer parameters."""
        return f'p{round(100 * self.ratio)}'

    def select_by(self, step: int) -> Threshold:
        """Return the threshold of a step."""
        if self.threshold == 'global':
            return global_ratio(self.limits)
        if self.threshold == 'sigma':
            return by_deviation(self.curriculum, step, self.limits)
        return absolute(self.tau, self.curriculum, step, self.limits)

    def target(self, step: int, dense: int) -> int:
        """Return how many of `dense` parameters are to be left at a step.

        By the global threshold they fall as the curriculum's keep rate does, which is made to end
        at the ratio; other thresholds have that schedule in them, and the ratio is a limit.
        """
        if self.threshold != 'global':
            return round(dense * (1 - self.ratio))
        schedule = self.curriculum
        done = (1 - schedule.keep_rate(step)) / (1 - schedule.keep_rate(self.steps))
        return round(dense * (1 - self.ratio * done))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return asdict(self)

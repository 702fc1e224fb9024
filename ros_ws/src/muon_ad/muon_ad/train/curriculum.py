"""The curriculum of a training: what each step of it asks for, as a pure function of the step.

Muon-AD (arXiv:2504.08451) trains in three phases, style alignment, content refinement and joint
optimisation (names as in the figure of its authors' repository). Much is left open; what is read
into it is said where it is used. Nothing here knows a network, a loss or an optimiser.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Phase:
    """One phase: it ends before step `end` of the paper's `LENGTH`.

    Importance below mean + `deviations` * standard deviation is pruned, but no more than leaves
    the share `keep` when the phase ends.
    """

    name: str
    end: int
    deviations: float
    keep: float


# Ends and thresholds are the paper's; the keep rates are those of the configuration files that
# its authors published (github.com/chenweiye9/Moun-AD, configs/training).
PHASES = (
    Phase('style alignment', 500, -1.5, 0.7),
    Phase('content refinement', 1500, 0.5, 0.6),
    Phase('joint optimisation', 3000, 1.2, 0.4),
)
LENGTH = PHASES[-1].end
ALIGN, REFINE, JOIN = range(3)


@dataclass(frozen=True)
class Balance:
    """What the curriculum remembers: the weight of the style, and what it was derived from.

    `style` is the paper's lambda; `trend` holds the newest validations, each as the logarithm of
    content loss / style loss, oldest first.
    """

    style: float
    trend: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return {'style': self.style, 'trend': list(self.trend)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> 'Balance':
        """Rebuild from `to_dict`, exactly."""
        return cls(data['style'], tuple(data['trend']))


@dataclass(frozen=True)
class Curriculum:
    """The schedules of a training of `steps` steps. Steps count from 0.

    `style`: the weight of the style to begin with (the paper's lambda_style); that of the content
    is 1 - style. `eta`: how strongly validation moves it, within `limits`. `window`: how many
    validations are averaged for a trend. `rate`: learning rate, of which the last phase leaves
    the share `decay` (the paper's 1e-3 to 1e-4). `warm_up`: steps over which the rate rises at
    the start (not in the paper; an optimiser's averages need them). `keep`: share kept before
    pruning has begun. `recovery`: share of the last phase, at its end, in which nothing more is
    pruned. Raises ValueError for what makes no sense.
    """

    steps: int = LENGTH
    style: float = 0.8
    eta: float = 0.1
    limits: tuple[float, float] = (0.5, 0.95)
    window: int = 5
    rate: float = 1e-3
    decay: float = 0.1
    warm_up: int = 0
    keep: float = 0.95
    recovery: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.limits
        _check('steps', self.steps, self.steps >= 1, '1 or more')
        _check('limits', self.limits, 0 < low <= high < 1, '0 < low <= high < 1')
        _check('style', self.style, low <= self.style <= high, f'within the limits {low}..{high}')
        _check('eta', self.eta, 0 <= self.eta < math.inf, '0 or more')
        _check('window', self.window, self.window >= 1, '1 or more')
        _check('rate', self.rate, 0 < self.rate < math.inf, 'above 0')
        _check('decay', self.decay, 0 < self.decay <= 1, 'above 0, at most 1')
        _check('warm_up', self.warm_up, self.warm_up >= 0, '0 or more')
        _check('keep', self.keep, PHASES[0].keep <= self.keep <= 1, f'{PHASES[0].keep}..1')
        _check('recovery', self.recovery, 0 <= self.recovery < 1, '0 or more, below 1')

    @property
    def ends(self) -> tuple[int, ...]:
        """Return the step before which each phase ends: the paper's, scaled to `steps`."""
        return tuple(round(self.steps * phase.end / LENGTH) for phase in PHASES)

    def phase(self, step: int) -> int:
        """Return the phase of a step, 0..2; steps beyond the end belong to the last."""
        _check('step', step, step >= 0, '0 or more')
        return next((n for n, end in enumerate(self.ends) if step < end), len(PHASES) - 1)

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step: `rate`, which falls in the last phase.

        The paper gives both ends (1e-3 and 1e-4), not the way: here half a cosine.
        """
        fall = (1 + math.cos(math.pi * self._done(step, JOIN))) / 2
        rise = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        return self.rate * rise * (self.decay + (1 - self.decay) * fall)

    def style_frozen(self, step: int) -> bool:
        """Return whether the parameters of the style stay as they are: in the last phase."""
        return self.phase(step) == JOIN

    # ---- balance of style and content

    def start(self) -> Balance:
        """Return the balance before any validation."""
        return Balance(self.style)

    def weights(self, balance: Balance) -> dict[str, float]:
        """Return the weights of `style` and `content` losses; their sum is 1."""
        return {'style': balance.style, 'content': 1 - balance.style}

    def factors(self, balance: Balance) -> dict[str, float]:
        """Return the weights relative to those at the start.

        For a trainer whose own loss weights were tuned already: at the start they hold as they
        are, and the curriculum only moves them.
        """
        start = self.weights(self.start())
        return {name: weight / start[name] for name, weight in self.weights(balance).items()}

    @property
    def validate_every(self) -> int:
        """Return how many steps lie between validations: 60 of them in a run."""
        return max(1, self.steps // 60)

    def validated(
        self, balance: Balance, step: int, style_loss: float, content_loss: float,
    ) -> Balance:
        """Return the balance after a validation at a step; both losses above 0.

        The paper's adaptive balance, lambda * exp(-eta * delta), where delta is a trend of
        validation that it does not define. With a loss of the style as delta the rule would feed
        itself: less weight, more loss, less weight. So delta is by how much content has lost
        against style since the last validation: the change of log(content loss / style loss),
        both averaged over `window` validations. That is steady: what falls behind gains weight.

        Phase 1 only collects the trend, phase 2 adapts, phase 3 leaves the balance as it is.
        """
        for name, loss in (('style_loss', style_loss), ('content_loss', content_loss)):
            _check(name, loss, 0 < loss < math.inf, 'finite and above 0')
        newest = (*balance.trend, math.log(content_loss / style_loss))[-self.window:]
        if self.phase(step) != REFINE or not balance.trend:
            return Balance(balance.style, newest)
        delta = _mean(newest) - _mean(balance.trend)
        low, high = self.limits
        style = balance.style * math.exp(-self.eta * delta)
        return Balance(min(high, max(low, style)), newest)

    # ---- pruning

    def threshold(self, step: int, mean: float, deviation: float) -> float:
        """Return the importance below which the paper prunes: mu - 1.5s, mu + 0.5s, mu + 1.2s."""
        _check('deviation', deviation, deviation >= 0, '0 or more')
        return mean + PHASES[self.phase(step)].deviations * deviation

    def keep_rate(self, step: int) -> float:
        """Return the least share to keep at a step, 0.95 falling to 0.4.

        The paper's thresholds alone would leave 31 % of normally distributed scores in phase 2
        and 12 % in phase 3, at once. This floor makes of them a gradual schedule: a line through
        each phase, level over the last part (`recovery`) of the last phase.
        """
        number = self.phase(step)
        before = PHASES[number - 1].keep if number else self.keep
        done = self._done(step, number)
        if number == JOIN:
            done = min(1.0, done / (1 - self.recovery))
        return before + (PHASES[number].keep - before) * done

    def cutoff(self, step: int, importance: np.ndarray) -> float:
        """Return the importance below which to prune, of all scores of a layer (any shape).

        That is `threshold`, or less where fewer than `keep_rate` of the scores would stay.
        Raises ValueError for no scores, or one that is not finite.
        """
        scores = np.sort(np.asarray(importance, np.float64), axis=None)
        if not scores.size or not np.isfinite(scores).all():
            raise ValueError(f'importance has {scores.size} scores, {np.isfinite(scores).sum()} '
                             'finite; expected one or more, all finite')
        kept = max(1, math.ceil(self.keep_rate(step) * scores.size))
        wanted = self.threshold(step, scores.mean(), scores.std())
        return float(min(wanted, scores[scores.size - kept]))

    def _done(self, step: int, number: int) -> float:
        """Return the share of a phase that is over at a step, 0..1; 1 at its last step."""
        first = self.ends[number - 1] if number else 0
        last = max(self.ends[number] - 1, first + 1)
        return min(1.0, max(0.0, (step - first) / (last - first)))


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _check(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise ValueError(f'{name} is {value}; expected {expected}')

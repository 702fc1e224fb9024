"""Which channels go: thresholds on their scores, within limits, up to a number of parameters.

Plain arithmetic on numpy arrays; nothing here knows a network.
"""

import math
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from muon_ad.train.curriculum import Curriculum

# What stands on one step: the number of channels, lowest scores first, that may go from a group.
Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Limits:
    """What may not be undercut: `keep`, the share of a dense network's channels in every group,
    and `multiple`, of which numbers of channels are multiples, as kernels of CPUs, GPUs and DLA
    run best. Raises ValueError for what makes no sense.
    """

    keep: float = 0.4
    multiple: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f'keep is {self.keep}; expected above 0, at most 1')
        if self.multiple < 1:
            raise ValueError(f'multiple is {self.multiple}; expected 1 or more')

    def floor(self, dense: int, keep: float = 0.0) -> int:
        """Return the least number of channels of a group that had `dense`; `keep` may ask for a
        larger share than the limit.
        """
        share = max(self.keep, keep)
        # A share such as 0.4 of 20 must not become 9 by the rounding of 0.4 itself.
        least = math.ceil(round(share * dense / self.multiple, 9)) * self.multiple
        return min(dense, max(least, min(self.multiple, dense)))

    def chunk(self, channels: int, floor: int) -> int:
        """Return how many channels go at once from a group that has `channels`: so many that a
        multiple remains, or none.
        """
        count = channels % self.multiple or self.multiple
        return count if channels - count >= floor else 0


@dataclass(frozen=True)
class Tensor:
    """The shape of a parameter, and for each of its dimensions how many positions a channel of a
    group has there.
    """

    shape: tuple[int, ...]
    shares: tuple[Mapping[str, int], ...]


@dataclass(frozen=True)
class Budget:
    """How many parameters a network would have without some channels."""

    tensors: tuple[Tensor, ...]

    def parameters(self, gone: Mapping[str, int]) -> int:
        """Return the number of parameters with so many channels less in each group; exact."""
        return sum(
            math.prod(size - sum(share * gone.get(name, 0) for name, share in shares.items())
                      for size, shares in zip(tensor.shape, tensor.shares, strict=True))
            for tensor in self.tensors
        )


# Takes a group's scores, and how many it had when dense; returns how many channels may go.
Threshold = Callable[[np.ndarray, int], int]


def global_ratio(limits: Limits) -> Threshold:
    """Everything down to the floor may go: the budget alone decides, over all groups at once."""
    return lambda scores, dense: len(scores) - limits.floor(dense)


def by_deviation(curriculum: Curriculum, step: int, limits: Limits) -> Threshold:
    """What is below mu + k * sigma of its group may go, k by the curriculum's phase, down to the
    curriculum's keep rate of that step.
    """
    keep = curriculum.keep_rate(step)

    def allowed(scores: np.ndarray, dense: int) -> int:
        bound = curriculum.threshold(step, float(scores.mean()), float(scores.std()))
        return min(int((scores < bound).sum()), len(scores) - limits.floor(dense, keep))

    return allowed


def absolute(tau: float, curriculum: Curriculum, step: int, limits: Limits) -> Threshold:
    """What is below the paper's absolute tau may go, down to the curriculum's keep rate.

    Scores of layers differ in scale, so one tau empties some layers down to the floor and leaves
    others whole.
    """
    keep = curriculum.keep_rate(step)
    return lambda scores, dense: min(int((scores < tau).sum()),
                                     len(scores) - limits.floor(dense, keep))


def select(
    scores: Scores, dense: Mapping[str, int], threshold: Threshold, limits: Limits,
    budget: Budget, target: int, comparable: bool,
) -> dict[str, list[int]]:
    """Return which channels of each group go, so that about `target` parameters remain.

    Channels go a chunk (`Limits.chunk`) at a time, lowest scores first. Which group is next is
    decided by what its chunk is worth for each parameter that it saves; scores that are not
    `comparable` are divided by their group's mean instead, and taken for each channel. A chunk
    that would miss the target by more than it now is missed is not taken. Fewer go where the
    threshold allows no more. Raises ValueError where a score is not finite.
    """
    _check(scores)
    order = {name: np.argsort(each, kind='stable') for name, each in scores.items()}
    allowed = {name: threshold(each, dense[name]) for name, each in scores.items()}
    worth = {name: each if comparable else each / max(float(each.mean()), 1e-30)
             for name, each in scores.items()}
    gone = dict.fromkeys(scores, 0)
    have = budget.parameters(gone)
    while have > target:
        options = []
        for name, each in worth.items():
            count = limits.chunk(len(each) - gone[name], limits.floor(dense[name]))
            if not count or gone[name] + count > allowed[name]:
                continue
            left = budget.parameters({**gone, name: gone[name] + count})
            if abs(left - target) >= have - target:
                continue
            price = float(each[order[name][gone[name]:gone[name] + count]].sum())
            options.append((price / (have - left) if comparable else price / count, name, count))
        if not options:
            break
        _, name, count = min(options)
        gone[name] += count
        have = budget.parameters(gone)
    return {name: sorted(map(int, order[name][:count])) for name, count in gone.items() if count}


def uniform(
    scores: Scores, dense: Mapping[str, int], limits: Limits, budget: Budget, target: int,
) -> dict[str, list[int]]:
    """Return which channels go when every group loses the same share, lowest scores first, so
    that about `target` parameters remain.

    Multiples make steps of that; where the target lies between two, the first groups, in order,
    take the further one.
    """
    _check(scores)
    steps = [{name: len(each) - limits.floor(dense[name], keep) for name, each in scores.items()}
             for keep in np.linspace(1, limits.keep, 201)]
    plans = [steps[0]]
    for step in steps[1:]:
        for name in scores:
            if step[name] != plans[-1][name]:
                plans.append({**plans[-1], name: step[name]})
    best = min(plans, key=lambda plan: abs(budget.parameters(plan) - target))
    return {name: sorted(map(int, np.argsort(scores[name], kind='stable')[:count]))
            for name, count in best.items() if count > 0}


def _check(scores: Scores) -> None:
    for name, each in scores.items():
        if not np.isfinite(each).all():
            raise ValueError(f'{name}: {np.isfinite(each).sum()} of {len(each)} scores are '
                             'finite; expected all')

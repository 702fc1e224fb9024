"""Prunes a network while it learns: steps of its trainer, and cuts between them.

Any trainer will do that is a `Pupil`: this module knows no loss and no data.
"""

from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from typing import Any
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from muon_ad.optim.settings import check_choice
from muon_ad.prune.carry import carry_optimizer
from muon_ad.prune.cut import Cut
from muon_ad.prune.cut import cut
from muon_ad.prune.graph import channel_groups
from muon_ad.prune.graph import ChannelGroup
from muon_ad.prune.scores import make_score
from muon_ad.prune.scores import SCORES
from muon_ad.prune.select import absolute
from muon_ad.prune.select import Budget
from muon_ad.prune.select import by_deviation
from muon_ad.prune.select import global_ratio
from muon_ad.prune.select import Limits
from muon_ad.prune.select import select
from muon_ad.prune.select import Tensor
from muon_ad.prune.select import Threshold
from muon_ad.train.curriculum import Curriculum

THRESHOLDS = ('global', 'sigma', 'tau')
CUTS = 40       # times in a run that channels may go; in between, what is left recovers


@dataclass(frozen=True)
class Plan:
    """How a network is to be pruned.

    `steps`: of training, first to last; `ratio`: the share of its parameters that is to go; `score`: see `scores`; `threshold`: see
    `select`, with `tau` for the absolute one; `keep` and `multiple`: see `Limits`. Raises
    ValueError for what makes no sense.
    """

    steps: int = 1500
    ratio: float = 0.4
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

    def select_by(self, curriculum: Curriculum, step: int) -> Threshold:
        """Return the threshold of a step."""
        if self.threshold == 'global':
            return global_ratio(self.limits)
        if self.threshold == 'sigma':
            return by_deviation(curriculum, step, self.limits)
        return absolute(self.tau, curriculum, step, self.limits)

    def target(self, curriculum: Curriculum, step: int, dense: int) -> int:
        """Return how many of `dense` parameters are to be left at a step.

        By the global threshold they fall as the curriculum's keep rate does, which is made to end
        at the ratio; other thresholds have that schedule in them, and the ratio is a limit.
        """
        if self.threshold != 'global':
            return round(dense * (1 - self.ratio))
        end = 1 - curriculum.keep_rate(curriculum.steps)
        done = (1 - curriculum.keep_rate(step)) / end
        return round(dense * (1 - self.ratio * done))


class Pupil(Protocol):
    """A trainer whose network can be cut while it learns.

    `example` are arguments to trace the network with; `ignored` names layers all of whose outputs
    stay. `kept`, set from outside: by group, the channels of the dense network that are left.
    """

    step: int
    optimizer: Optimizer
    network: nn.Module
    example: tuple
    ignored: tuple[str, ...]
    kept: Mapping[str, torch.Tensor]

    def advance(self) -> Mapping[str, float]:
        """Take one step; return what to log of it."""

    def adopt(self, network: nn.Module, cut: Cut) -> None:
        """Go on with `network`, which is what the cut leaves of the present one.

        The optimiser has been taken along.
        """

    def state(self) -> dict[str, Any]:
        """Return all that the next steps depend on, for a checkpoint."""


class Pruning:
    """A learner (train/loop.py) that prunes another as planned, and resumes exactly.

    `dense` is the network as it was before any pruning. Scores see each step through a hook of the
    optimiser, before the weights change.
    """

    def __init__(self, pupil: Pupil, dense: nn.Module, plan: Plan) -> None:
        self.pupil, self.plan = pupil, plan
        self.curriculum = Curriculum(plan.steps)
        self.score = make_score(plan.score, plan.seed)
        self._every = max(1, plan.steps // CUTS)
        groups = channel_groups(dense, pupil.example, pupil.ignored)
        self.dense = {group.name: group.channels for group in groups}
        self.dense_parameters = count(dense)
        pupil.kept = {name: torch.arange(channels) for name, channels in self.dense.items()}
        self._groups = self._found()
        pupil.optimizer.register_step_pre_hook(self._observe)

    @property
    def step(self) -> int:
        """Return the number of steps taken."""
        return self.pupil.step

    def _found(self) -> list[ChannelGroup]:
        return channel_groups(self.pupil.network, self.pupil.example, self.pupil.ignored)

    def _observe(self, optimizer: Optimizer, _arguments: tuple, _options: dict) -> None:
        self.score.observe(self._groups, self.pupil.network, optimizer)

    def advance(self) -> dict[str, float]:
        """Take one step, and cut where it is time to; return what to log of it."""
        values = dict(self.pupil.advance())
        if self.step % self._every == 0:
            self.prune()
        return {**values, 'parameters': count(self.pupil.network)}

    def prune(self) -> None:
        """Cut as far as the plan has it for the present step."""
        target = self.plan.target(self.curriculum, self.step, self.dense_parameters)
        if count(self.pupil.network) <= target:
            return
        scores = {group.name: self.score.of(group, self.pupil.network).double().numpy()
                  for group in self._groups}
        removed = select(
            scores, self.dense, self.plan.select_by(self.curriculum, self.step), self.plan.limits,
            budget(self.pupil.network, self._groups), target, self.score.comparable,
        )
        if removed:
            self.remove(removed)

    def remove(self, removed: Mapping[str, list[int]]) -> None:
        """Cut these channels, by group, out of everything."""
        old = self.pupil.network
        made = cut(old, self.pupil.example, removed)
        new = made.apply(old)
        carry_optimizer(self.pupil.optimizer, old, new, made)
        self.score.carry(made)
        self.pupil.kept = {
            name: channels[np.setdiff1d(np.arange(len(channels)), removed.get(name, []))]
            for name, channels in self.pupil.kept.items()
        }
        self.pupil.adopt(new, made)
        self._groups = self._found()

    def state(self) -> dict[str, Any]:
        """Return the contents of a checkpoint."""
        return {**self.pupil.state(), 'plan': asdict(self.plan), 'kept': dict(self.pupil.kept),
                'score': self.score.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a state; the pupil's network must have the sizes of it already."""
        self.pupil.kept = dict(state['kept'])
        self.score.load(state['score'])


def count(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def budget(network: nn.Module, groups: list[ChannelGroup]) -> Budget:
    """Return how many parameters the network has without some channels of its groups."""
    shapes = {name: tuple(each.shape) for name, each in network.named_parameters()}
    shares: dict[str, list[dict[str, int]]] = {name: [{} for _ in shape]
                                               for name, shape in shapes.items()}
    for group in groups:
        for each in group.slices:
            share = shares[each.parameter][each.dim]
            each_has = len(each.positions) // group.channels
            share[group.name] = share.get(group.name, 0) + each_has
    return Budget(tuple(Tensor(shape, tuple(shares[name])) for name, shape in shapes.items()))



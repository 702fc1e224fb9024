"""Prunes channels of a network while it learns: steps of its trainer, and cuts between them.

Any trainer will do that is a `Pupil`: this module knows no loss and no data.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from muon_ad.prune.carry import carry_optimizer
from muon_ad.prune.cut import cut
from muon_ad.prune.graph import channel_groups
from muon_ad.prune.graph import ChannelGroup
from muon_ad.prune.once import static_l1
from muon_ad.prune.once import torch_pruning_default
from muon_ad.prune.plan import Plan
from muon_ad.prune.pupil import Pupil
from muon_ad.prune.scores import make_score
from muon_ad.prune.select import select
from muon_ad.prune.shapes import budget
from muon_ad.prune.shapes import count

CUTS = 40       # times in a run that channels may go; in between, what is left recovers


class Pruning:
    """A learner (train/loop.py) that prunes another as planned, and resumes exactly.

    `dense` is the network as it was before any pruning. The method 'gradual' cuts between steps;
    scores see each step through a hook of the optimiser, before the weights change. 'static-l1'
    and 'torch-pruning' cut once, before the first step.
    """

    def __init__(self, pupil: Pupil, dense: nn.Module, plan: Plan) -> None:
        self.pupil, self.plan = pupil, plan
        self.score = make_score(plan.score, plan.seed)
        self._every = max(1, plan.steps // CUTS)
        groups = channel_groups(dense, pupil.example, pupil.ignored)
        self.dense = {group.name: group.channels for group in groups}
        self.dense_parameters = count(dense)
        pupil.kept = {name: torch.arange(channels) for name, channels in self.dense.items()}
        self._groups = self._found()
        if plan.method == 'gradual':
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
        gradual = self.plan.method == 'gradual'
        if not gradual and self.step == 0:
            self.remove(self._once())
        values = self.pupil.advance()
        if gradual and self.step % self._every == 0:
            self.remove(self._due())
        return {**values, 'parameters': count(self.pupil.network)}

    def _once(self) -> dict[str, list[int]]:
        network, limits = self.pupil.network, self.plan.limits
        target = round(self.dense_parameters * (1 - self.plan.ratio))
        if self.plan.method == 'static-l1':
            return static_l1(network, self._groups, limits, target)
        return torch_pruning_default(
            network, self.pupil.example, self.pupil.ignored, limits, target)

    def _due(self) -> dict[str, list[int]]:
        """Return the channels that are to go by the present step."""
        network = self.pupil.network
        target = self.plan.target(self.step, self.dense_parameters)
        if count(network) <= target:
            return {}
        scores = {group.name: self.score.of(group, network).double().numpy()
                  for group in self._groups}
        return select(
            scores, self.dense, self.plan.select_by(self.step), self.plan.limits,
            budget(network, self._groups), target, self.score.comparable)

    def remove(self, removed: Mapping[str, list[int]]) -> None:
        """Cut these channels, by group, out of everything."""
        if not removed:
            return
        old = self.pupil.network
        made = cut(old, self.pupil.example, removed)
        new = made.apply(old)
        carry_optimizer(self.pupil.optimizer, old, new, made.take)
        self.score.carry(made)
        self.pupil.kept = {
            name: channels[np.setdiff1d(np.arange(len(channels)), removed.get(name, []))]
            for name, channels in self.pupil.kept.items()
        }
        self.pupil.adopt(new, made.apply)
        self._groups = self._found()

    def state(self) -> dict[str, Any]:
        """Return the contents of a checkpoint."""
        return {**self.pupil.state(), 'plan': self.plan.to_dict(), 'kept': dict(self.pupil.kept),
                'score': self.score.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a state; the pupil's network must have the sizes of it already."""
        self.pupil.kept = dict(state['kept'])
        self.score.load(state['score'])

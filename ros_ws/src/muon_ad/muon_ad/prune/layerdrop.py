"""LayerDrop, a baseline: residual blocks left out at random in training, then some for good.

Fan et al., 2020 (arXiv:1909.11556), there for the layers of a transformer.
"""

import copy
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from muon_ad.networks.resize import residual_blocks
from muon_ad.networks.resize import skip
from muon_ad.prune.carry import carry_optimizer
from muon_ad.prune.plan import Plan
from muon_ad.prune.pupil import Pupil
from muon_ad.prune.shapes import count

RATE = 0.2          # how often a block is left out, as in the paper
REMOVE_AT = 0.5     # share of the steps after which some go for good; the others recover


class LayerDrop:
    """A learner (train/loop.py) that leaves out blocks of a pupil, and resumes exactly."""

    def __init__(self, pupil: Pupil, dense: nn.Module, plan: Plan) -> None:
        self.pupil, self.plan = pupil, plan
        self._target = round(count(dense) * (1 - plan.ratio))
        pupil.kept = {}

    @property
    def step(self) -> int:
        """Return the number of steps taken."""
        return self.pupil.step

    def advance(self) -> dict[str, float]:
        """Take one step; return what to log of it."""
        end = max(1, round(REMOVE_AT * self.plan.steps))
        rng = np.random.default_rng([self.plan.seed, 3, self.step])
        blocks = residual_blocks(self.pupil.network)
        out = [name for name in blocks if rng.random() < RATE] if self.step < end else []
        with skipped(self.pupil.network, out):
            values = self.pupil.advance()
        if self.step == end:
            self.remove()
        return {**values, 'parameters': count(self.pupil.network)}

    def remove(self) -> None:
        """Remove the blocks that are missed least, one after the other, down to the ratio."""
        gone: list[str] = []
        network = self.pupil.network
        while blocks := residual_blocks(network):
            judged = {}
            for name in blocks:
                with skipped(network, [name]):
                    judged[name] = self.pupil.judge(network)
            least = min(judged, key=judged.__getitem__)
            smaller = without(network, [least])
            have, left = count(network), count(smaller)
            if have <= self._target or abs(left - self._target) >= have - self._target:
                break
            gone.append(least)
            network = smaller
        old = self.pupil.network
        carry_optimizer(self.pupil.optimizer, old, network, lambda _name, tensor: tensor)
        self.pupil.adopt(network, lambda other: without(other, gone))

    def state(self) -> dict[str, Any]:
        """Return the contents of a checkpoint."""
        return {**self.pupil.state(), 'plan': self.plan.to_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the pupil, which has the blocks that the state has, is all there is."""


@contextmanager
def skipped(network: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Let a network do without some of its residual blocks for a while."""
    def pass_on(_module: nn.Module, arguments: tuple, _result: torch.Tensor) -> torch.Tensor:
        return arguments[0]

    handles = [network.get_submodule(name).register_forward_hook(pass_on) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def without(network: nn.Module, names: Sequence[str]) -> nn.Module:
    """Return a copy without some residual blocks."""
    smaller = copy.deepcopy(network)
    for name in names:
        skip(smaller, name)
    return smaller

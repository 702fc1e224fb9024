"""What channels are worth, seen while a network learns: one interface, several scores by name."""

import zlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import torch
from torch import nn
from torch import Tensor
from torch.optim import Optimizer

from muon_ad.optim.settings import check_choice
from muon_ad.prune.cut import Cut
from muon_ad.prune.graph import ChannelGroup
from muon_ad.prune.graph import PruningError

WINDOW = 100        # steps, and
DECAY = 0.03        # lambda_decay: as in the paper's configuration (score_window, decay_factor)
EPSILON = 1e-8


class Score(Protocol):
    """Importance of channels: the larger, the more a channel is worth.

    `comparable`: whether values of different groups have one scale; where not, what ranks them
    against each other has to scale them first.
    """

    comparable: bool

    def observe(
        self, groups: Sequence[ChannelGroup], network: nn.Module, optimizer: Optimizer,
    ) -> None:
        """Look at a training step: gradients are there, weights not yet changed."""

    def of(self, group: ChannelGroup, network: nn.Module) -> Tensor:
        """Return the scores of a group's channels, float32 [channels].

        Raises PruningError where it needs a step to have been observed, and none was.
        """

    def carry(self, cut: Cut) -> None:
        """Forget what was remembered of channels that are gone."""

    def state(self) -> dict[str, Any]:
        """Return tensors and plain values, for a checkpoint."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up the `state` of a run with the same settings."""


class Weights:
    """What the scores of weights alone share: they observe nothing."""

    comparable = False

    def observe(
        self, groups: Sequence[ChannelGroup], network: nn.Module, optimizer: Optimizer,
    ) -> None:
        """Do nothing."""

    def carry(self, cut: Cut) -> None:
        """Do nothing."""

    def state(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


class Magnitude(Weights):
    """The mean |w| of all kernels of a channel, those that read it included (Li et al., 2017,
    arXiv:1608.08710, for one layer). Biases and scales are of another size and left out.
    """

    def of(self, group: ChannelGroup, network: nn.Module) -> Tensor:
        """See Score."""
        return group.means(_absolute(network), matrices_only=True)


class BatchNorm(Weights):
    """The mean |gamma| of the batch normalisations of a channel (Liu et al., Network Slimming,
    2017, arXiv:1708.06519), without the penalty on gamma in training.
    """

    def of(self, group: ChannelGroup, network: nn.Module) -> Tensor:
        """See Score; raises PruningError for a group without batch normalisation."""
        norms = {f'{name}.weight' for name, module in network.named_modules()
                 if isinstance(module, nn.BatchNorm2d)}
        found = [each for each in group.slices if each.parameter in norms]
        if not found:
            raise PruningError(f'{group.name}: no batch normalisation to score its channels by; '
                               'choose another score')
        return ChannelGroup(group.name, group.channels, tuple(found)).means(_absolute(network))


class Random(Weights):
    """Numbers by seed, group and number of channels: what any score must beat."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def of(self, group: ChannelGroup, network: nn.Module) -> Tensor:
        """See Score."""
        seed = zlib.crc32(f'{self._seed} {group.name} {group.channels}'.encode())
        return torch.rand(group.channels, generator=torch.Generator().manual_seed(seed))


class Taylor:
    """The change of the loss, to first order, were the channel not there: |sum g * w| over all its
    parameters in all layers (Molchanov et al., 2019, arXiv:1906.10771, of a whole group as in
    DepGraph), as an exponential average over steps.

    The absolute value is taken of each step's sum: over single weights it would count what
    cancels. Gradients are those that the optimiser gets, after any clipping.
    """

    comparable = True       # all are changes of one loss

    def __init__(self, window: int = WINDOW) -> None:
        self._keep = 1 - 1 / window
        self._averages: dict[str, Tensor] = {}
        self._steps = 0

    def observe(
        self, groups: Sequence[ChannelGroup], network: nn.Module, optimizer: Optimizer,
    ) -> None:
        """See Score."""
        products = {name: each.detach() * each.grad if each.grad is not None
                    else torch.zeros_like(each) for name, each in network.named_parameters()}
        self._steps += 1
        for group in groups:
            new = group.sums(products).abs()
            old = self._averages.get(group.name, torch.zeros_like(new))
            self._averages[group.name] = self._keep * old + (1 - self._keep) * new

    def of(self, group: ChannelGroup, network: nn.Module) -> Tensor:
        """See Score."""
        _check_observed(self._steps)
        return self._averages[group.name] / (1 - self._keep ** self._steps)

    def carry(self, cut: Cut) -> None:
        """See Score."""
        for name, gone in cut.removed.items():
            if name in self._averages:
                kept = torch.ones(len(self._averages[name]), dtype=torch.bool)
                kept[list(gone)] = False
                self._averages[name] = self._averages[name][kept]

    def state(self) -> dict[str, Any]:
        """See Score."""
        return {'averages': dict(self._averages), 'steps': self._steps}

    def load(self, state: Mapping[str, Any]) -> None:
        """See Score."""
        self._averages, self._steps = dict(state['averages']), state['steps']


class Paper:
    """Muon-AD's score: |grad W| / (sqrt(E[grad W^2]) + eps) + lambda_decay * W^2.

    Read as follows, where the paper (arXiv:2504.08451) leaves it open. Both |grad W| and its
    square are averaged over a window of 100 steps; the window slides as an exponential average of
    that length, since 100 gradients would take 100 times the network's memory. E[grad W^2] is from
    the optimiser's own state where it has one, as AdamW (`exp_avg_sq`, corrected for its start)
    and our Muon for what it leaves to AdamW have; the matrices of Muon have a momentum only, so
    for them, and with Lion or SGD, a running average is kept here. Scores of weights become one
    of a channel by their mean over all of its parameters.

    The first term is near 0.8 for any weight whose gradients are normal with mean zero, so it
    ranks little; it is here to be compared with.
    """

    comparable = False

    def __init__(self, window: int = WINDOW, decay: float = DECAY) -> None:
        self._keep, self._decay = 1 - 1 / window, decay
        self._sizes: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}
        self._steps = 0
        self._optimizer: Optimizer | None = None

    def observe(
        self, groups: Sequence[ChannelGroup], network: nn.Module, optimizer: Optimizer,
    ) -> None:
        """See Score."""
        self._optimizer = optimizer
        self._steps += 1
        for name, parameter in network.named_parameters():
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            self._average(self._sizes, name, grad.abs())
            if _second_moment(optimizer, parameter) is None:
                self._average(self._squares, name, grad.square())
            else:
                self._squares.pop(name, None)   # of the first step, before the optimiser had any

    def _average(self, averages: dict[str, Tensor], name: str, new: Tensor) -> None:
        old = averages.get(name)
        averages[name] = new.lerp(torch.zeros_like(new) if old is None else old, self._keep)

    def of(self, group: ChannelGroup, network: nn.Module) -> Tensor:
        """See Score."""
        _check_observed(self._steps)
        parameters = dict(network.named_parameters())
        return group.means({each.parameter: self._score(each.parameter, parameters)
                            for each in group.slices})

    def _score(self, name: str, parameters: Mapping[str, nn.Parameter]) -> Tensor:
        correction = 1 - self._keep ** self._steps
        parameter = parameters[name]
        square = _second_moment(self._optimizer, parameter)
        if square is None:
            square = self._squares[name] / correction
        size = self._sizes[name] / correction
        return size / (square.sqrt() + EPSILON) + self._decay * parameter.detach().square()

    def carry(self, cut: Cut) -> None:
        """See Score."""
        for averages in (self._sizes, self._squares):
            for name in [*averages]:
                if name in cut.sources:
                    averages[name] = cut.take(name, averages[name])
                else:
                    del averages[name]

    def state(self) -> dict[str, Any]:
        """See Score."""
        return {'sizes': dict(self._sizes), 'squares': dict(self._squares), 'steps': self._steps}

    def load(self, state: Mapping[str, Any]) -> None:
        """See Score."""
        self._sizes, self._squares = dict(state['sizes']), dict(state['squares'])
        self._steps = state['steps']


SCORES: dict[str, Callable[[int], Score]] = {
    'taylor': lambda _seed: Taylor(),
    'paper': lambda _seed: Paper(),
    'magnitude': lambda _seed: Magnitude(),
    'batchnorm': lambda _seed: BatchNorm(),
    'random': Random,
}


def make_score(name: str, seed: int = 0) -> Score:
    """Return the score called `name`; raises ValueError for one that is not in SCORES."""
    check_choice('score', name, tuple(SCORES))
    return SCORES[name](seed)


def _absolute(network: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach().abs() for name, each in network.named_parameters()}


def _second_moment(optimizer: Optimizer | None, parameter: nn.Parameter) -> Tensor | None:
    """Return E[grad^2] as an optimiser of Adam's kind knows it, or None."""
    state = optimizer.state.get(parameter, {}) if optimizer else {}
    if 'exp_avg_sq' not in state or not float(state['step']):
        return None
    group = next(group for group in optimizer.param_groups
                 if any(each is parameter for each in group['params']))
    return state['exp_avg_sq'] / (1 - group['betas'][1] ** float(state['step']))


def _check_observed(steps: int) -> None:
    if not steps:
        raise PruningError('the score has seen no training step; expected one or more before the '
                           'first cut')

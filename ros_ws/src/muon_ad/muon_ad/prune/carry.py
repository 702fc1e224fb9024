"""Takes an optimiser along when its network is cut.

Its state is cut with the parameters, not made anew: momentum and second moments of a weight that
stays are as good after the cut as before, so that training goes on without a warm-up.
"""

from collections.abc import Callable
from itertools import compress

import torch
from torch import nn
from torch import Tensor
from torch.optim import Optimizer

from muon_ad.optim.torch_muon import TorchMuon
from muon_ad.prune.graph import PruningError

Take = Callable[[str, Tensor], Tensor]


def carry_optimizer(optimizer: Optimizer, old: nn.Module, new: nn.Module, take: Take) -> None:
    """Let an optimiser of the parameters of `old` update those of `new` instead, by name.

    `take(name, tensor)` returns what is left of a tensor of the shape of the old parameter `name`
    (`Cut.take`). Parameters that are not in `new` are dropped, those of neither stay. Raises
    PruningError for an optimiser whose state lies outside its `state`.
    """
    if isinstance(optimizer, TorchMuon):
        raise PruningError('torch-muon keeps copies of what it trains, which cannot be cut; '
                           'choose another optimiser, such as muon')
    names = {parameter: name for name, parameter in old.named_parameters()}
    fresh = dict(new.named_parameters())
    for group in optimizer.param_groups:
        stay = [names.get(each) in fresh or each not in names for each in group['params']]
        for key in ('params', 'param_names'):
            if key in group:
                group[key] = list(compress(group[key], stay))
        for index, parameter in enumerate(group['params']):
            if parameter in names:
                group['params'][index] = fresh[names[parameter]]
    for parameter, name in names.items():
        state = optimizer.state.pop(parameter, None)
        if state is not None and name in fresh:
            optimizer.state[fresh[name]] = {
                key: take(name, value) if _belongs(value, parameter) else value
                for key, value in state.items()
            }


def _belongs(value: object, parameter: nn.Parameter) -> bool:
    """Return whether a value has a number for each of the parameter's."""
    return torch.is_tensor(value) and value.shape == parameter.shape

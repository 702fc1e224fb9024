"""Takes an optimiser along when its network is cut.

Its state is cut with the parameters, not made anew: momentum and second moments of a weight that
stays are as good after the cut as before, so that training goes on without a warm-up.
"""

import torch
from torch import nn
from torch.optim import Optimizer

from muon_ad.optim.torch_muon import TorchMuon
from muon_ad.prune.cut import Cut
from muon_ad.prune.graph import PruningError


def carry_optimizer(optimizer: Optimizer, old: nn.Module, new: nn.Module, cut: Cut) -> None:
    """Let an optimiser of the parameters of `old` update those of `new` instead.

    `new` is `cut.apply(old)`. Parameters of neither stay as they are. Raises PruningError for an
    optimiser whose state lies outside its `state`.
    """
    if isinstance(optimizer, TorchMuon):
        raise PruningError('torch-muon keeps copies of what it trains, which cannot be cut; '
                           'choose another optimiser, such as muon')
    names = {parameter: name for name, parameter in old.named_parameters()}
    fresh = dict(new.named_parameters())
    for group in optimizer.param_groups:
        for index, parameter in enumerate(group['params']):
            if parameter not in names:
                continue
            name = names[parameter]
            group['params'][index] = fresh[name]
            state = optimizer.state.pop(parameter, None)
            if state is not None:
                optimizer.state[fresh[name]] = {
                    key: cut.take(name, value) if _belongs(value, parameter) else value
                    for key, value in state.items()
                }


def _belongs(value: object, parameter: nn.Parameter) -> bool:
    """Return whether a value has a number for each of the parameter's."""
    return torch.is_tensor(value) and value.shape == parameter.shape

"""Optimisers by name, as configurations and command lines give them."""

from collections.abc import Callable
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from muon_ad.optim.latent import LatentMuon
from muon_ad.optim.lion import Lion
from muon_ad.optim.muon import Muon
from muon_ad.optim.settings import check_choice
from muon_ad.optim.split import split_parameters
from muon_ad.optim.torch_muon import TorchMuon


def _sgd(params: Iterable, lr: float, **options: object) -> Optimizer:
    return torch.optim.SGD(params, lr, **{'momentum': 0.9, 'nesterov': True, **options})


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    'muon': Muon,
    'torch-muon': TorchMuon,
    'adamw': torch.optim.AdamW,
    'adam': torch.optim.Adam,
    'lion': Lion,
    'sgd': _sgd,
    'latent-muon': LatentMuon,
}
_BY_ALGORITHM = ('muon', 'torch-muon')


def make_optimizer(
    name: str, params_or_model: nn.Module | Iterable, lr: float, **options: object
) -> Optimizer:
    """Return the optimiser called `name`, with its own further `options`.

    Of a model, 'muon' and 'torch-muon' get the groups of `split_parameters`; all others get two
    groups, of which the one of biases and scales is not decayed. Parameters, or groups of them,
    are passed on as they are. 'sgd' has a Nesterov momentum of 0.9. Raises ValueError for another
    name, and what the optimiser raises.
    """
    check_choice('optimizer', name, tuple(OPTIMIZERS))
    params = params_or_model
    if isinstance(params, nn.Module):
        params = split_parameters(params).groups() if name in _BY_ALGORITHM else _groups(params)
    return OPTIMIZERS[name](params, lr=lr, **options)


def _groups(model: nn.Module) -> list[dict]:
    trained = [each for each in model.named_parameters() if each[1].requires_grad]
    parts = ({'params': [each for each in trained if each[1].ndim >= 2]},
             {'params': [each for each in trained if each[1].ndim < 2], 'weight_decay': 0.0})
    return [part for part in parts if part['params']]

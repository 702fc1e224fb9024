"""The optimisers that a trainer of a network offers, and how it sets them up."""

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from muon_ad.optim.registry import make_optimizer
from muon_ad.optim.split import split_parameters

NAMES = ('muon', 'torch-muon', 'adamw', 'adam', 'lion', 'sgd')
_BY_ALGORITHM = ('muon', 'torch-muon')
# Adam's second average is over 50 steps, not 1000: losses change while a training ramps them up.
_BETAS = (0.9, 0.98)
_WITH_BETAS = (*_BY_ALGORITHM, 'adamw', 'adam')


def network_optimizer(
    name: str, model: nn.Module, rate: float, weight_decay: float, first: Sequence[str],
    last: Sequence[str],
) -> Optimizer:
    """Return an optimiser of all parameters of a model, with one learning rate for all of them.

    `first` and `last` name the layers next to the input and the output, which Muon leaves to
    AdamW. Biases and scales are not decayed. Raises ValueError for a name not in NAMES, or no
    module of the model.
    """
    if name not in NAMES:
        raise ValueError(f'optimizer is {name!r}; expected one of {", ".join(NAMES)}')
    by_algorithm = name in _BY_ALGORITHM
    parameters = split_parameters(model, first, last).groups() if by_algorithm else model
    betas = {'betas': _BETAS} if name in _WITH_BETAS else {}
    return make_optimizer(name, parameters, rate, weight_decay=weight_decay, **betas)

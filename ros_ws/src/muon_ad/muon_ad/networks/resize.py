"""Gives a network the sizes that a file says: how a pruned network is built again.

A pruned network has the layers of the dense one with fewer channels, or lacks some of its
residual blocks, and this is written nowhere but in the names and shapes of its tensors. So the
dense network is made, each layer whose tensors differ is given their shape, and the weights are
loaded as always.
"""

from collections.abc import Mapping

import torch
from torch import nn


class Skip(nn.Module):
    """What is left of a residual block that was removed: its first input."""

    def forward(self, x: torch.Tensor, *_rest: torch.Tensor) -> torch.Tensor:
        """Return `x`."""
        return x


def residual_blocks(model: nn.Module) -> list[str]:
    """Return the names of the blocks that a network has left, and can do without.

    They are modules whose class says `residual = True`: what they add is added to their first
    input.
    """
    return [name for name, module in model.named_modules() if getattr(module, 'residual', False)]


def skip(model: nn.Module, name: str) -> None:
    """Remove a residual block, in place."""
    path, _, leaf = name.rpartition('.')
    setattr(model.get_submodule(path), leaf, Skip())


def resize_to(model: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Resize the layers of `model`, in place, to the tensors of `state`, and load these.

    For convolutions (dense or depthwise), linear and normalisation layers, and for modules whose
    tensors alone hold their sizes. Residual blocks that have no tensor there are removed. Returns
    the model. Raises ValueError where names are missing, are unknown, or a tensor has another
    number of dimensions.
    """
    for name in residual_blocks(model):
        if not any(key.startswith(f'{name}.') for key in state):
            skip(model, name)
    own = model.state_dict()
    if own.keys() != state.keys():
        differing = sorted(own.keys() ^ state.keys())
        raise ValueError(f'the weights are of another network: {differing[:3]} and '
                         f'{max(0, len(differing) - 3)} more are in one of the two alone')
    for name, tensor in state.items():
        if own[name].dim() != tensor.dim():
            raise ValueError(f'{name} has shape {list(tensor.shape)}; expected as many dimensions '
                             f'as {list(own[name].shape)} has')
        if own[name].shape != tensor.shape:
            path, _, leaf = name.rpartition('.')
            _replace(model.get_submodule(path), leaf, tensor)
    model.load_state_dict(state)
    return model


def _replace(module: nn.Module, leaf: str, tensor: torch.Tensor) -> None:
    """Put an empty tensor of the new shape in the place of one, and note the new sizes."""
    old = getattr(module, leaf)
    fresh = torch.empty_like(tensor, dtype=old.dtype, device=old.device)
    if isinstance(old, nn.Parameter):
        fresh = nn.Parameter(fresh, requires_grad=old.requires_grad)
    setattr(module, leaf, fresh)
    if isinstance(module, nn.Conv2d) and leaf == 'weight':
        depthwise = module.groups > 1 and module.groups == module.in_channels
        module.groups = len(fresh) if depthwise else module.groups
        module.out_channels = len(fresh)
        module.in_channels = fresh.shape[1] * module.groups
    elif isinstance(module, nn.Linear) and leaf == 'weight':
        module.out_features, module.in_features = fresh.shape
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = len(fresh)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = len(fresh)

"""Refits what is left of a network to what the dense one does, layer by layer, without training.

After channels have gone, the layers that read them miss their part of the sum. Which weights of
what remains make up for it best is a linear problem: least squares between a layer's inputs in the
smaller network and its outputs in the dense one, over places of pictures (He et al., 2017,
arXiv:1707.06168, section 3.1, who alternate it with the choice of channels; here that is made
beforehand). Layers go in the order of the data, each on what the refitted ones before it give, so
that errors do not pile up. It takes a minute where training takes hours to come as far.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch import Tensor

from muon_ad.prune.cut import Cut

PLACES = 6000       # of a layer's output that are looked at, of each batch
RIDGE = 1e-3        # pull towards the weights as they are, relative to the mean square of inputs


@torch.no_grad()
def refit(
    small: nn.Module, dense: nn.Module, cut: Cut, batches: Sequence[Tensor], seed: int = 0,
) -> None:
    """Change the convolutions of `small`, in place, to give what those of `dense` give.

    `cut` is what made `small` of `dense`; both take one picture tensor [B, 3, H, W] and are left
    in evaluation mode. A normalisation that follows a convolution in a Sequential is refitted
    with it: its shift absorbs the new bias, its scale stays. Convolutions of several groups stay
    as they are.
    """
    small.eval()
    dense.eval()
    generator = torch.Generator().manual_seed(seed)
    for name in _in_order(small, batches[0][:1]):
        norm = _norm_after(small, name)
        weight = dense.get_submodule(name).weight
        kept = cut.sources[f'{name}.weight'].flatten(1)[:, 0] // math.prod(weight.shape[1:])
        squares, products = _moments(small, dense, name, norm, kept, batches, generator)
        _solve(small, name, norm, squares, products)


def _in_order(network: nn.Module, picture: Tensor) -> list[str]:
    """Return the names of the convolutions, each once, as they are called."""
    called: dict[str, None] = {}
    handles = [
        module.register_forward_hook(lambda *_, name=name: called.setdefault(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1
    ]
    network(picture)
    for handle in handles:
        handle.remove()
    return list(called)


def _norm_after(network: nn.Module, name: str) -> str:
    """Return the name of the batch normalisation of a convolution, or an empty one."""
    path, _, index = name.rpartition('.')
    parent = network.get_submodule(path)
    if isinstance(parent, nn.Sequential) and int(index) + 1 < len(parent):
        after = f'{path}.{int(index) + 1}'
        if isinstance(network.get_submodule(after), nn.BatchNorm2d):
            return after
    return ''


def _moments(
    small: nn.Module, dense: nn.Module, name: str, norm: str, kept: Tensor,
    batches: Sequence[Tensor], generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return X^T X [D + 1, D + 1] and X^T Y [D + 1, outputs], float64, over random places.

    X are the patches that the layer reads in the smaller network, and a one; Y what the dense
    layer, normalised, makes of the same pictures there, of the channels kept.
    """
    conv = small.get_submodule(name)
    read: list[Tensor] = []
    given: list[Tensor] = []
    handles = [
        conv.register_forward_hook(lambda _module, arguments, _result: read.append(arguments[0])),
        dense.get_submodule(norm or name).register_forward_hook(
            lambda _module, _arguments, result: given.append(result)),
    ]
    squares = products = 0
    for batch in batches:
        small(batch)
        dense(batch)
        # A layer that serves several levels is called once for each.
        for x, y in zip(read, given, strict=True):
            patches = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
            patches = patches.transpose(1, 2).flatten(0, 1)
            wanted = y[:, kept].flatten(2).transpose(1, 2).flatten(0, 1)
            chosen = torch.randperm(len(patches), generator=generator)[:PLACES]
            patches = torch.cat([patches[chosen], torch.ones(len(chosen), 1)], 1)
            squares = squares + (patches.T @ patches).double()
            products = products + (patches.T @ wanted[chosen]).double()
        read.clear()
        given.clear()
    for handle in handles:
        handle.remove()
    return squares, products


def _solve(
    network: nn.Module, name: str, norm: str, squares: Tensor, products: Tensor,
) -> None:
    """Set the layer to the least squares solution, drawn a little to what it is now."""
    conv = network.get_submodule(name)
    scale, shift = _folded(conv, network.get_submodule(norm) if norm else None)
    now = torch.cat([conv.weight.flatten(1).double() * scale[:, None], shift[:, None]], 1)
    pull = torch.full((len(squares),), RIDGE * squares.diagonal()[:-1].mean().item()).double()
    pull[-1] = 0    # the bias is free
    best = torch.linalg.solve(squares + pull.diag(), products + pull[:, None] * now.T).T
    conv.weight.copy_((best[:, :-1] / scale[:, None]).reshape(conv.weight.shape))
    if norm:
        network.get_submodule(norm).bias.add_(best[:, -1] - shift)
    else:
        conv.bias.copy_(best[:, -1])


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Return the scale and the shift [outputs], float64, that follow on the bare convolution."""
    shift = (torch.zeros(conv.out_channels) if conv.bias is None else conv.bias).double()
    if norm is None:
        return torch.ones_like(shift), shift
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, (shift - norm.running_mean.double()) * scale + norm.bias.double()

"""Which self-attention layers to keep: by the entropy of their maps, its inverse, or the loss."""

import math
from collections.abc import Mapping
from collections.abc import Sequence

import torch
from torch import nn
from tqdm import tqdm

from muon_ad.distill.diffusion import DiffusionBackbone
from muon_ad.prune.denoising import Batch
from muon_ad.prune.denoising import mean_loss
from muon_ad.prune.unet_scores import Measured

RULES = ('entropy', 'inverse', 'relative', 'relative-inverse', 'loss')
ENTROPY_SHARE = 0.7     # Muon-AD: keep a layer where H > 0.7 max H
LOSS_SHARE = 0.01       # a layer is kept whose absence raises the loss by more than this
_INVERSE = ('inverse', 'relative-inverse')


def layer_scores(
    rule: str, backbone: DiffusionBackbone, layers: Sequence[str], measured: Measured,
    batches: Sequence[Batch],
) -> dict[str, float]:
    """Return what a rule thinks of each of some self-attention layers, in their order.

    Of 'entropy' and 'inverse' that is the entropy of the layer's maps in nats, mean over heads, as
    the paper writes it. It is larger at finer scales, merely because there are more keys; so
    'relative' and 'relative-inverse' take it over the largest possible, the logarithm of their
    number, which is a value from 0 to 1. Of 'loss' it is the rise of the denoising loss on the
    batches where the layer alone is bypassed, over the loss with all of them. Raises ValueError
    for another rule.
    """
    _check(rule)
    if rule == 'loss':
        whole = mean_loss(backbone, batches)
        return {name: loss_without(backbone, name, batches) / whole - 1
                for name in tqdm(layers, desc='bypassing', unit='layer', disable=None)}
    found = {name: float(measured.entropy[name].mean()) for name in layers}
    if rule in ('entropy', 'inverse'):
        return found
    # With a single key there is nothing to choose, and the entropy is 0.
    return {name: value / math.log(max(2, measured.keys[name])) for name, value in found.items()}


def loss_without(backbone: DiffusionBackbone, layer: str, batches: Sequence[Batch]) -> float:
    """Return the denoising loss with one attention layer adding nothing."""
    part = backbone.denoiser.get_submodule(layer)
    hook = part.register_forward_hook(_nothing)
    try:
        return mean_loss(backbone, batches)
    finally:
        hook.remove()


def _nothing(_part: nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(output)


def kept_layers(
    rule: str, scores: Mapping[str, float], count: int | None = None,
) -> list[str]:
    """Return the layers that a rule keeps, in the order of `scores`.

    With `count` those are its best ones. Without, the rule says how many: 'entropy' and 'relative'
    keep H > 0.7 max H, where we read max H as the largest of the layers; their inverses the
    others; 'loss' the layers without which the loss rises by more than a hundredth. Always one or
    more. Raises ValueError for another rule, or a count that is not 1 to the number of layers.
    """
    _check(rule)
    ranked = sorted(scores, key=scores.get, reverse=rule not in _INVERSE)
    if count is None:
        line = LOSS_SHARE if rule == 'loss' else ENTROPY_SHARE * max(scores.values())
        above = sum(score > line for score in scores.values())
        count = max(1, len(scores) - above if rule in _INVERSE else above)
    if not 1 <= count <= len(scores):
        raise ValueError(f'layers is {count}; expected 1 to {len(scores)}, the number of '
                         'self-attention layers that the rule decides on')
    best = set(ranked[:count])
    return [name for name in scores if name in best]


def _check(rule: str) -> None:
    if rule not in RULES:
        raise ValueError(f'rule is {rule!r}; expected one of {", ".join(RULES)}')

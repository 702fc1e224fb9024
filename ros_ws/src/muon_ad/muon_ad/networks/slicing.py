"""Parts of diffusers' U-Nets cut to what is kept of them: heads, channels, features, skips.

Each function changes a module in place to a smaller one of the same class, which computes what
the larger one did with the rest set to zero, up to rounding. What to keep is given as increasing
indices. Weights keep their dtype and device ('meta' too), and need new optimisers.
"""

import math
from collections.abc import Sequence

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

_WITHIN_HEADS = ('to_q', 'to_k', 'to_v', 'add_q_proj', 'add_k_proj', 'add_v_proj')
_GATED = ('GEGLU', 'SwiGLU')
_PLAIN = ('GELU', 'ApproximateGELU', 'LinearActivation')


class SlicingError(ValueError):
    """A part cannot be cut so: which, and what was expected."""


def keep_heads(attention: Attention, heads: Sequence[int]) -> None:
    """Keep some heads of an attention layer, self- or cross-, with or without added text.

    Rows of the projections to query, key and value and columns of the one from them go; `heads`,
    `inner_dim` and `inner_kv_dim` follow. Raises SlicingError for indices that are not heads,
    fused projections, norms across heads, and keys shared by several heads.
    """
    _check('heads', heads, attention.heads)
    if attention.fused_projections:
        raise SlicingError('the attention layer has fused projections; expected separate ones: '
                           'call unfuse_qkv_projections() first')
    if attention.inner_kv_dim != attention.inner_dim:
        raise SlicingError(f'the attention layer has keys of {attention.inner_kv_dim} numbers for '
                           f'queries of {attention.inner_dim}; expected as many heads of both')
    width = attention.inner_dim // attention.heads
    for name in ('norm_q', 'norm_k'):
        norm = getattr(attention, name)
        if getattr(norm, 'weight', None) is not None and norm.weight.numel() != width:
            raise SlicingError(f'the attention layer has a norm across heads ({name}); expected '
                               'one within each head, or none')
    kept = _spread(heads, width)
    for name in _WITHIN_HEADS:
        if getattr(attention, name, None) is not None:
            _take(getattr(attention, name), outputs=kept)
    if attention.to_out is not None:
        _take(attention.to_out[0], inputs=kept)
    if attention.to_add_out is not None:
        _take(attention.to_add_out, inputs=kept)
    attention.heads = attention.sliceable_head_dim = len(heads)
    attention.inner_dim = attention.inner_kv_dim = len(heads) * width


def keep_groups(resnet: ResnetBlock2D, groups: Sequence[int]) -> None:
    """Keep some groups of the channels between a block's two convolutions.

    Whole groups of the norm between them, since the statistics of a group would change with what
    is left of it. The block's input and output stay as they are. Raises SlicingError.
    """
    norm = resnet.norm2
    _check('groups', groups, norm.num_groups)
    kept = _spread(groups, group_width(resnet))
    before = norm.num_channels
    _take(resnet.conv1, outputs=kept)
    if resnet.time_emb_proj is not None:
        scaled = resnet.time_embedding_norm == 'scale_shift'
        _take(resnet.time_emb_proj, outputs=kept + [before + n for n in kept] if scaled else kept)
    resnet.norm2 = _norm(norm, kept, len(groups))
    _take(resnet.conv2, inputs=kept)


def group_width(resnet: ResnetBlock2D) -> int:
    """Return how many channels a group of the norm between a block's convolutions has."""
    return resnet.norm2.num_channels // resnet.norm2.num_groups


def keep_features(feed_forward: FeedForward, features: Sequence[int]) -> None:
    """Keep some of the features between the two layers of a transformer's feed-forward part.

    Raises SlicingError for indices that are none, and an activation that is not known.
    """
    first, second = feed_forward.net[0], feed_forward.net[2]
    width = second.in_features
    _check('features', features, width)
    kind = type(first).__name__
    if kind not in _GATED + _PLAIN:
        raise SlicingError(f'the feed-forward part begins with {kind}; expected one of '
                           f'{_GATED + _PLAIN}')
    kept = list(features)
    _take(first.proj, outputs=kept + [width + n for n in kept] if kind in _GATED else kept)
    _take(second, inputs=kept)


def drop_skip(resnet: ResnetBlock2D, hidden: int) -> None:
    """Make a block of the way up blind to its skip connection.

    It is still handed `hidden` channels of the way up and those of the skip after them, and reads
    the first. The norm before keeps the size of its groups where one ends with the hidden
    channels; else there is no equal, and it keeps their number. Raises SlicingError.
    """
    if not 0 < hidden < resnet.in_channels:
        raise SlicingError(f'hidden is {hidden}; expected 1 to {resnet.in_channels - 1}, as the '
                           f'block reads {resnet.in_channels} channels')
    norm = resnet.norm1
    width = norm.num_channels // norm.num_groups
    groups = hidden // width if hidden % width == 0 else math.gcd(norm.num_groups, hidden)
    kept = list(range(hidden))
    resnet.norm1 = _norm(norm, kept, groups)
    _take(resnet.conv1, inputs=kept)
    if resnet.conv_shortcut is not None:
        _take(resnet.conv_shortcut, inputs=kept)
    resnet.in_channels = hidden
    resnet.register_forward_pre_hook(_without_skip)


def _without_skip(resnet: ResnetBlock2D, inputs: tuple) -> tuple:
    return inputs[0][:, :resnet.in_channels], *inputs[1:]


def _check(name: str, kept: Sequence[int], count: int) -> None:
    kept = list(kept)
    if not kept or kept != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= count:
        raise SlicingError(f'{name} to keep are {kept}; expected one or more increasing indices '
                           f'from 0 to {count - 1}')


def _spread(parts: Sequence[int], width: int) -> list[int]:
    """Return the indices of the numbers in parts of equal width."""
    return [part * width + offset for part in parts for offset in range(width)]


def _take(
    layer: nn.Linear | nn.Conv2d, outputs: Sequence[int] | None = None,
    inputs: Sequence[int] | None = None,
) -> None:
    """Keep some outputs and inputs of a layer."""
    for dim, kept in enumerate((outputs, inputs)):
        if kept is not None:
            layer.weight = _rows(layer.weight, kept, dim)
    if outputs is not None and layer.bias is not None:
        layer.bias = _rows(layer.bias, outputs, 0)
    sizes = layer.weight.shape[:2]
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = sizes
    else:
        layer.out_channels, layer.in_channels = sizes


def _norm(norm: nn.GroupNorm, kept: Sequence[int], groups: int) -> nn.GroupNorm:
    made = nn.GroupNorm(groups, len(kept), norm.eps, norm.affine, device='meta')
    if norm.affine:
        made.weight, made.bias = (_rows(each, kept, 0) for each in (norm.weight, norm.bias))
    return made.train(norm.training)


def _rows(parameter: nn.Parameter, kept: Sequence[int], dim: int) -> nn.Parameter:
    index = torch.tensor(list(kept), device=parameter.device)
    found = parameter.detach().index_select(dim, index)
    return nn.Parameter(found, requires_grad=parameter.requires_grad)

"""Losses of attention distillation, on what self-attention layers have seen.

Each takes lists with one `Attention` a layer, compares in float32 (or float64 where that is what
it is given), returns a scalar with gradients for the first list alone, and sums over layers: that
is how arXiv 2502.20235 and its code have it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from muon_ad.distill.backbone import Attention

CHUNK = 256


class TokensError(ValueError):
    """Two pictures have attention maps of different sizes where equal ones are needed."""


def attention_loss(own: Sequence[Attention], style: Sequence[Attention]) -> torch.Tensor:
    """L1 between own attention outputs and what the same queries find in the style.

    Equation 3 of arXiv 2502.20235, mean over all elements of a layer. The target,
    softmax(Q K_s^T / sqrt(d)) V_s, is detached. `own` is [B, heads, N, dim]; `style`
    [M, heads, N_s, dim] may have other token counts, and its M pictures are read as one of
    M * N_s tokens. Memory is that of the layers' outputs, not of the maps.
    """
    return sum(_layer_l1(one, other) for one, other in zip(own, style, strict=True))


def _layer_l1(own: Attention, style: Attention) -> torch.Tensor:
    with torch.no_grad():
        target = F.scaled_dot_product_attention(
            own.query, *(_one_picture(part, own.query) for part in (style.key, style.value)))
    return F.l1_loss(_wide(own.output), _wide(target))


def _one_picture(part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[M, heads, N, dim] -> [B, heads, M * N, dim], of the dtype of `like` [B, ...]."""
    joined = part.transpose(0, 1).flatten(1, 2)
    return joined.to(like.dtype).expand(len(like), *joined.shape)


def attention_map_loss(
    own: Sequence[Attention], style: Sequence[Attention], chunk: int = CHUNK,
) -> torch.Tensor:
    """KL(A_style || A_own), A = softmax(Q K^T / sqrt(d)): Muon-AD's distillation loss.

    The paper writes a KL divergence of attention maps and leaves open which. Here each picture's
    map is over its own tokens, the style's is the target (as a teacher's in distillation, and
    detached), and the mean is over samples, heads and queries. So both need equal token counts,
    and position i of one is held against position i of the other. `style` has one picture, or as
    many as `own` has samples. Raises TokensError for other counts.

    `chunk` queries are compared at a time, and again in the backward pass instead of keeping
    their maps: memory grows with chunk * tokens, not with tokens squared.
    """
    return sum(_layer_kl(one, other, chunk) for one, other in zip(own, style, strict=True))


def _layer_kl(own: Attention, style: Attention, chunk: int) -> torch.Tensor:
    if own.key.shape[1:] != style.key.shape[1:] or len(style.key) not in (1, len(own.key)):
        raise TokensError(
            f'layer {own.name!r} has {tuple(own.key.shape)} keys and the style '
            f'{tuple(style.key.shape)} ([pictures, heads, tokens, dim]); the loss on attention '
            'maps needs one style picture of the same size: use the loss l1'
        )
    keys = _wide(own.key), _wide(style.key).detach()
    queries = _wide(own.query).split(chunk, dim=2), _wide(style.query).detach().split(chunk, dim=2)
    total = sum(checkpoint(_divergence, *pair, *keys, use_reentrant=False)
                for pair in zip(*queries, strict=True))
    return total / own.query[..., 0].numel()


def _divergence(
    query: torch.Tensor, style_query: torch.Tensor, key: torch.Tensor, style_key: torch.Tensor,
) -> torch.Tensor:
    """Return the KL divergences of some queries [B, heads, chunk, dim], summed."""
    own, style = _log_map(query, key), _log_map(style_query, style_key)
    return F.kl_div(own, style.expand_as(own), reduction='sum', log_target=True)


def _log_map(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return F.log_softmax(query @ key.mT * query.shape[-1] ** -0.5, dim=-1)


def query_loss(own: Sequence[Attention], content: Sequence[Attention]) -> torch.Tensor:
    """L1 between own queries and the content's: equation 4 of arXiv 2502.20235.

    Mean over all elements of a layer; the content's, of the same shape, are detached.
    """
    return sum(F.l1_loss(_wide(one.query), _wide(other.query).detach())
               for one, other in zip(own, content, strict=True))


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()

"""How spread out attention is: the entropy of attention maps."""

import math

import torch

from muon_ad.distill.backbone import Attention
from muon_ad.distill.losses import CHUNK


@torch.no_grad()
def head_entropy(seen: Attention, chunk: int = CHUNK) -> torch.Tensor:
    """Return the entropy of each head's map, [heads], float32, from 0 to 1.

    -sum p log p of every query's softmax(q k^T / sqrt(dim)), mean over queries and pictures, over
    the logarithm of the number of keys: 1 is attention to everything alike, 0 to a single place.
    Without that division, layers at finer scales would have larger entropies for having more
    keys. `chunk` queries are looked at in one go. A single key has an entropy of 0.
    """
    keys = seen.key.float()
    found = [torch.special.entr((queries.float() @ keys.mT * keys.shape[-1] ** -0.5).softmax(-1))
             .sum(-1) for queries in seen.query.split(chunk, dim=2)]
    most = math.log(max(2, keys.shape[2]))
    return torch.cat(found, dim=2).mean(dim=(0, 2)) / most

"""How spread out attention is: the entropy of attention maps."""

import torch

from muon_ad.distill.backbone import Attention
from muon_ad.distill.losses import CHUNK


@torch.no_grad()
def head_entropy(seen: Attention, chunk: int = CHUNK) -> torch.Tensor:
    """Return the entropy of each head's map in nats, [heads], float32.

    -sum p log p of every query's softmax(q k^T / sqrt(dim)), mean over queries and pictures: the
    logarithm of the number of keys for attention to everything alike, 0 for a single place.
    `chunk` queries are looked at in one go.
    """
    keys = seen.key.float()
    found = [torch.special.entr((queries.float() @ keys.mT * keys.shape[-1] ** -0.5).softmax(-1))
             .sum(-1) for queries in seen.query.split(chunk, dim=2)]
    return torch.cat(found, dim=2).mean(dim=(0, 2))

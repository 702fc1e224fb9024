"""How many parameters a network has, and would have without some channels."""

from collections.abc import Sequence

from torch import nn

from muon_ad.prune.graph import ChannelGroup
from muon_ad.prune.select import Budget
from muon_ad.prune.select import Tensor


def count(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def budget(network: nn.Module, groups: Sequence[ChannelGroup]) -> Budget:
    """Return how many parameters the network has without some channels of its groups."""
    shapes = {name: tuple(each.shape) for name, each in network.named_parameters()}
    shares: dict[str, list[dict[str, int]]] = {name: [{} for _ in shape]
                                               for name, shape in shapes.items()}
    for group in groups:
        for each in group.slices:
            share = shares[each.parameter][each.dim]
            positions = len(each.positions) // group.channels
            share[group.name] = share.get(group.name, 0) + positions
    return Budget(tuple(Tensor(shape, tuple(shares[name])) for name, shape in shapes.items()))

"""Takes channels out of a network for good, and knows where each remaining number came from."""

import copy
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch import Tensor

from muon_ad.prune.graph import dependency_graph
from muon_ad.prune.graph import full_group
from muon_ad.prune.graph import PruningError


@dataclass(frozen=True)
class Cut:
    """A cut through a network: what was removed, and how to do the same to whatever has its shape.

    `removed` are channels by group. `sources` holds, for every parameter and buffer of the smaller
    network, which element (flat index, int64, in the smaller shape) of the larger network's it is:
    so weights, their average and the state of an optimiser are all cut by one rule. `blank` is a
    network of the new sizes, whose weights mean nothing.
    """

    removed: Mapping[str, tuple[int, ...]]
    sources: Mapping[str, Tensor]
    blank: nn.Module

    def take(self, name: str, tensor: Tensor) -> Tensor:
        """Return what remains of a tensor of the shape of the parameter or buffer `name`."""
        values = tensor.flatten()[self.sources[name]]
        return values.contiguous(memory_format=torch.channels_last) if _last(tensor) else values

    def apply(self, network: nn.Module) -> nn.Module:
        """Return the smaller network, with what remains of the weights; `network` is left alone.

        Its mode and what of it is frozen are the same.
        """
        small = copy.deepcopy(self.blank).train(network.training)
        small.load_state_dict(
            {name: self.take(name, tensor) for name, tensor in network.state_dict().items()})
        frozen = {name: not each.requires_grad for name, each in network.named_parameters()}
        for name, parameter in small.named_parameters():
            parameter.requires_grad_(not frozen[name])
        if any(map(_last, network.parameters())):
            small.to(memory_format=torch.channels_last)
        return small


def cut(network: nn.Module, example: tuple, removed: Mapping[str, Sequence[int]]) -> Cut:
    """Remove channels, given by the name of their group (see `channel_groups`), in a copy.

    The sources are found by letting torch-pruning cut a copy whose weights are their own indices.
    Raises PruningError where a group would lose all of its channels, or a name is unknown.
    """
    copied = copy.deepcopy(network)
    graph = dependency_graph(copied, example)
    _number(copied)
    for name, channels in removed.items():
        module = _module(copied, name)
        group = full_group(graph, module, channels)
        if not graph.check_pruning_group(group):
            raise PruningError(f'{name}: {len(channels)} channels to remove; expected to leave '
                               'one or more in every layer')
        if channels:
            group.prune()
    sources = {name: tensor.long() for name, tensor in copied.state_dict().items()}
    return Cut({name: tuple(channels) for name, channels in removed.items()}, sources,
               copied.float())


def _number(network: nn.Module) -> None:
    """Fill every tensor with its own flat indices; 53 bits of a float64 hold them exactly."""
    for tensor in network.state_dict(keep_vars=True).values():
        numbers = torch.arange(tensor.numel(), dtype=torch.float64).reshape(tensor.shape)
        tensor.data = numbers if tensor.is_floating_point() else numbers.long()


def _module(network: nn.Module, name: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError as error:
        raise PruningError(f'the network has no layer {name!r} to remove channels of') from error


def _last(tensor: Tensor) -> bool:
    """Return whether a tensor lies channels-last in memory, and not both ways at once."""
    return (tensor.ndim == 4 and not tensor.is_contiguous()
            and tensor.is_contiguous(memory_format=torch.channels_last))

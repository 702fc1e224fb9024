"""Which channels of a network belong together: the dependency graph of torch-pruning.

Fang et al., DepGraph, 2023 (arXiv:2301.12900). A residual connection, for example, ties together
the outputs of all layers that are added, whatever normalises them and the inputs of all readers.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch import Tensor
from torch_pruning import DependencyGraph
from torch_pruning.dependency import Group
from torch_pruning.pruner.function import BasePruningFunc

from muon_ad.networks.style import Modulation
from muon_ad.networks.style import UpConv

ROOTS = (nn.Conv2d, nn.Linear, UpConv)      # what has channels of its own to remove


class PruningError(ValueError):
    """A network cannot be pruned as asked; the message says what and why."""


class ModulationPruner(BasePruningFunc):
    """Takes channels out of a Modulation: it forgets where they are in the style vector."""

    def prune_out_channels(self, layer: Modulation, idxs: Sequence[int]) -> Modulation:
        """Delete the channels `idxs`."""
        kept = _others(self.get_out_channels(layer), idxs)
        layer.scale, layer.shift = layer.scale[kept], layer.shift[kept]
        return layer

    prune_in_channels = prune_out_channels      # what comes in goes out: one and the same channel

    def get_out_channels(self, layer: Modulation) -> int:
        """Return the number of channels."""
        return len(layer.scale)

    get_in_channels = get_out_channels


class UpConvPruner(BasePruningFunc):
    """Takes channels out of an UpConv, whose convolution is folded anew at each call.

    A convolution before a pixel shuffle, which it is once folded, torch-pruning cannot follow.
    """

    def prune_out_channels(self, layer: UpConv, idxs: Sequence[int]) -> UpConv:
        """Delete the output channels `idxs`."""
        kept, conv = _others(layer.conv.out_channels, idxs), layer.conv
        conv.weight = self._prune_parameter_and_grad(conv.weight, kept, 0)
        conv.bias = self._prune_parameter_and_grad(conv.bias, kept, 0)
        conv.out_channels = len(kept)
        return layer

    def prune_in_channels(self, layer: UpConv, idxs: Sequence[int]) -> UpConv:
        """Delete the input channels `idxs`."""
        kept, conv = _others(layer.conv.in_channels, idxs), layer.conv
        conv.weight = self._prune_parameter_and_grad(conv.weight, kept, 1)
        conv.in_channels = len(kept)
        return layer

    def get_out_channels(self, layer: UpConv) -> int:
        """Return the number of output channels."""
        return layer.conv.out_channels

    def get_in_channels(self, layer: UpConv) -> int:
        """Return the number of input channels."""
        return layer.conv.in_channels


def _others(count: int, idxs: Sequence[int]) -> list[int]:
    removed = set(idxs)
    return [index for index in range(count) if index not in removed]


PRUNERS = {Modulation: ModulationPruner(), UpConv: UpConvPruner()}


@dataclass(frozen=True)
class Slice:
    """Where channels lie in a parameter: position `positions[i]` of dimension `dim` is of channel
    `channels[i]`. A channel may have several, as where a tensor is concatenated with itself.
    """

    parameter: str
    dim: int
    positions: Tensor
    channels: Tensor


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be removed together from all layers that share them.

    `name` is that of the first layer, in the network's order, that puts them out.
    """

    name: str
    channels: int
    slices: tuple[Slice, ...]

    def sums(self, tensors: Mapping[str, Tensor], matrices_only: bool = False) -> Tensor:
        """Return [channels]: the sum over all elements that belong to each channel.

        `tensors` are by name of the parameter, each in its shape. `matrices_only`: leave out
        biases, scales and shifts.
        """
        total = torch.zeros(self.channels)
        for each in self.slices:
            tensor = tensors[each.parameter]
            if matrices_only and tensor.ndim < 2:
                continue
            others = [dim for dim in range(tensor.ndim) if dim != each.dim]
            along = tensor.detach().float()
            along = along.sum(others) if others else along
            total.index_add_(0, each.channels, along[each.positions])
        return total

    def means(self, tensors: Mapping[str, Tensor], matrices_only: bool = False) -> Tensor:
        """Return [channels]: the mean of the elements that `sums` adds up."""
        ones = {each.parameter: torch.ones_like(tensors[each.parameter]) for each in self.slices}
        return self.sums(tensors, matrices_only) / self.sums(ones, matrices_only).clamp_min(1)


@contextmanager
def traceable(network: nn.Module) -> Iterator[None]:
    """Let torch-pruning trace a network, which it leaves in evaluation mode.

    Raises PruningError where it cannot.
    """
    training = network.training
    learnt = {parameter: parameter.requires_grad for parameter in network.parameters()}
    # Where weights are made from weights, the trace must not run along the latter; and it sees no
    # layer that is frozen.
    folded = {parameter for module in network.modules() if isinstance(module, UpConv)
              for parameter in module.parameters()}
    for parameter in learnt:
        parameter.requires_grad_(parameter not in folded)
    try:
        with torch.enable_grad():
            yield
    except (RuntimeError, TypeError, AttributeError) as error:
        raise PruningError(f'{type(network).__name__} cannot be traced: {error}') from error
    finally:
        for parameter, wanted in learnt.items():
            parameter.requires_grad_(wanted)
        network.train(training)


def dependency_graph(network: nn.Module, example: tuple) -> DependencyGraph:
    """Trace a network; `example` are arguments for it. Raises PruningError where it cannot be."""
    with traceable(network):
        return DependencyGraph().build_dependency(
            network, example_inputs=example, customized_pruners=PRUNERS, verbose=False)


def channel_groups(
    network: nn.Module, example: tuple, ignored: Sequence[str] = (),
) -> list[ChannelGroup]:
    """Return all groups of channels that can be removed.

    `ignored` names layers whose outputs must all stay, as those of the last one. Raises
    PruningError where the network cannot be traced.
    """
    graph = dependency_graph(network, example)
    names = {module: name for name, module in network.named_modules()}
    found = [_described(root, group, graph, names)
             for root, group in _groups(network, graph, ignored)]
    return sorted(found, key=lambda group: [*names.values()].index(group.name))


def full_group(graph: DependencyGraph, module: nn.Module, channels: Sequence[int]) -> Group:
    """Return what has to go with these outputs of a layer."""
    pruner = graph.get_pruner_of_module(module)
    return graph.get_pruning_group(module, pruner.prune_out_channels, list(channels))


def _groups(
    network: nn.Module, graph: DependencyGraph, ignored: Sequence[str],
) -> Iterator[tuple[nn.Module, Group]]:
    """Yield each group with its first layer, to whose outputs the group's channels refer."""
    layers = [network.get_submodule(name) for name in ignored]
    order = list(network.modules())
    for group in graph.get_all_groups(ignored_layers=layers, root_module_types=ROOTS):
        writers = [dep.target.module for dep, _ in group
                   if isinstance(dep.target.module, ROOTS) and _is_output(graph, dep.handler)]
        root = min(writers, key=order.index)
        count = graph.get_pruner_of_module(root).get_out_channels(root)
        yield root, full_group(graph, root, range(count))


def _described(
    root: nn.Module, group: Group, graph: DependencyGraph, names: Mapping[nn.Module, str],
) -> ChannelGroup:
    slices = []
    for item in group:
        module = item.dep.target.module
        if module not in names:     # an operation without parameters
            continue
        positions, channels = torch.tensor(item.idxs), torch.tensor(item.root_idxs)
        for leaf, dim in _dimensions(module, _is_output(graph, item.dep.handler)):
            name = f'{names[module]}.{leaf}'
            slices.append(Slice(name, dim, positions, channels))
    count = graph.get_pruner_of_module(root).get_out_channels(root)
    return ChannelGroup(names[root], count, tuple(slices))


def _is_output(graph: DependencyGraph, handler: Callable) -> bool:
    return graph.is_out_channel_pruning_fn(handler)


def _dimensions(module: nn.Module, output: bool) -> list[tuple[str, int]]:
    """Return the parameters of a layer that have its channels, and in which dimension."""
    inner, prefix = (module.conv, 'conv.') if isinstance(module, UpConv) else (module, '')
    weight, bias = (inner._parameters.get(name) for name in ('weight', 'bias'))
    if weight is None:
        return []
    per_channel = weight.ndim < 2 or getattr(inner, 'groups', 1) > 1     # norms, depthwise
    found = [(f'{prefix}weight', 0 if output or per_channel else 1)]
    if bias is not None and (output or per_channel):
        found.append((f'{prefix}bias', 0))
    return found

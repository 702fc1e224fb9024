"""What a pruned network learns from the dense one that it comes from, on the same images."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch import Tensor


@dataclass
class Seen:
    """The newest call of a network: its arguments, its result, and those of some layers."""

    arguments: tuple = ()
    result: Tensor | None = None
    inputs: dict[str, Tensor] = field(default_factory=dict)
    results: dict[str, Tensor] = field(default_factory=dict)


@contextmanager
def watched(
    network: nn.Module, inputs: Iterable[str], results: Iterable[str] = (),
) -> Iterator[Seen]:
    """Note what happens in a network, by names of modules with one input and one result."""
    seen = Seen()

    def note_call(_module: nn.Module, arguments: tuple, result: Tensor) -> None:
        seen.arguments, seen.result = arguments, result

    names = {network.get_submodule(name): name for name in (*inputs, *results)}

    def note_input(module: nn.Module, arguments: tuple) -> None:
        seen.inputs[names[module]] = arguments[0]

    def note_result(module: nn.Module, _arguments: tuple, result: Tensor) -> None:
        seen.results[names[module]] = result

    handles = [
        network.register_forward_hook(note_call),
        *(network.get_submodule(name).register_forward_pre_hook(note_input) for name in inputs),
        *(network.get_submodule(name).register_forward_hook(note_result) for name in results),
    ]
    try:
        yield seen
    finally:
        # A network that is copied, as for a cut, must not take them along.
        for handle in handles:
            handle.remove()


def feature_loss(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], kept: Mapping[str, Tensor | slice],
) -> Tensor:
    """Compare features [N, C, H, W] of a pruned network with those that the dense one has.

    The mean |difference| relative to the mean size of what is wanted, averaged over layers.
    `kept`: by layer, the dense network's channels that are left, in order.
    """
    parts = []
    for name, value in found.items():
        target = wanted[name][:, kept[name]].float()
        parts.append(F.l1_loss(value.float(), target) / target.abs().mean().clamp_min(1e-6))
    return torch.stack(parts).mean()

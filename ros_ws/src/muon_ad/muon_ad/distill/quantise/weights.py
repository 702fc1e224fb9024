"""Weight-only quantisation of large denoisers: 4 or 8 bits, in groups, calibrated by GPTQ.

Weights are most of such a network's memory; activations stay in floating point, and no speed is
gained. The first and the last convolution and the embedding of time, which are small and which
everything passes through, stay as they are, as do depthwise layers, normalisations and biases.
"""

import json
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torchao.quantization import IntxUnpackedToInt8Tensor

from muon_ad.distill.quantise.gptq import gptq
from muon_ad.distill.quantise.gptq import InputStatistics
from muon_ad.distill.quantise.tensor import integer_range
from muon_ad.distill.quantise.tensor import make_tensor
from muon_ad.distill.quantise.tensor import pack
from muon_ad.distill.quantise.tensor import rounded
from muon_ad.distill.quantise.tensor import unpack

FILE = 'quantised.safetensors'
KEPT = ('conv_in', 'conv_out', 'time_embedding', 'add_embedding', 'proj_out', 'norm_out')
GROUP = 64
# A Hessian of so many inputs takes 64 MB; wider layers are rounded to nearest.
WIDEST = 4096


class QuantisedFileError(ValueError):
    """A file of quantised weights is missing, broken, or of another network."""


@dataclass(frozen=True)
class Report:
    """What became of the weights; sizes in bytes, as in memory before and in the file after."""

    bits: int
    group: int
    calibrated: int         # layers rounded by GPTQ
    nearest: int            # layers rounded to nearest
    kept: int               # layers left in floating point
    bytes_before: int
    bytes_after: int


def quantise(
    network: nn.Module, bits: int, group: int = GROUP,
    calibrate: Callable[[], object] | None = None,
) -> Report:
    """Replace the weights of a network's linear and convolutional layers, in place.

    `calibrate` runs the network on inputs as it will see them: then GPTQ rounds, from the inputs
    of the network in floating point; without it, or for layers wider than WIDEST inputs, weights
    are rounded to nearest. Inputs share a scale in groups of `group`, or all of an output's where
    their number is not a multiple. Raises ValueError for bits other than 4 and 8, a group below 2.
    """
    integer_range(bits)
    if group < 2:
        raise ValueError(f'group is {group}; expected 2 or more inputs')
    layers = dict(layers_of(network))
    before = _bytes(network)
    chosen = {name: layer for name, layer in layers.items() if not is_kept(name, layer)}
    seen: dict[str, InputStatistics] = {}
    if calibrate is not None:
        with _watched(chosen) as seen, torch.no_grad():
            calibrate()
    for name, layer in chosen.items():
        layer.weight = nn.Parameter(_quantised(layer, seen.get(name), bits, group),
                                    requires_grad=False)
    return Report(bits, group, len(seen), len(chosen) - len(seen), len(layers) - len(chosen),
                  before, sum(tensor.nbytes for tensor in _flattened(network)[0].values()))


def layers_of(network: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Yield the layers that have weights to quantise, with their names."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            yield name, module


def is_kept(name: str, layer: nn.Linear | nn.Conv2d) -> bool:
    """Whether a layer stays in floating point: by its place, or as depthwise, which is small."""
    return name.split('.')[0] in KEPT or layer.weight.shape[1] < 2


def _bytes(network: nn.Module) -> int:
    return sum(value.nbytes for value in network.state_dict().values())


def _inputs(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.weight[0].numel()


@contextmanager
def _watched(layers: dict[str, nn.Module]) -> Iterator[dict[str, InputStatistics]]:
    """Collect the statistics of what enters each layer that GPTQ can round."""
    seen = {name: InputStatistics(_inputs(layer)) for name, layer in layers.items()
            if _inputs(layer) <= WIDEST and getattr(layer, 'groups', 1) == 1}
    hooks = [
        layers[name].register_forward_pre_hook(
            lambda layer, given, into=statistics: into.add(_columns(layer, given[0])))
        for name, statistics in seen.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
        for name in [name for name, statistics in seen.items() if not statistics.count]:
            del seen[name]


def _columns(layer: nn.Linear | nn.Conv2d, given: torch.Tensor) -> torch.Tensor:
    """Return a layer's inputs as rows [..., K]; those of a convolution as its windows."""
    if isinstance(layer, nn.Linear):
        return given
    windows = functional.unfold(given.float(), layer.kernel_size, layer.dilation, layer.padding,
                                layer.stride)
    # [B, C * h * w, L] -> [B, L, h * w * C]: channels last, as groups go over them.
    channels = layer.in_channels
    windows = windows.reshape(len(given), channels, -1, windows.shape[-1])
    return windows.permute(0, 3, 2, 1).flatten(2)


def _quantised(
    layer: nn.Linear | nn.Conv2d, statistics: InputStatistics | None, bits: int, group: int,
) -> IntxUnpackedToInt8Tensor:
    weight = layer.weight.detach()
    group = group if weight.shape[1] % group == 0 else weight.shape[1]
    if statistics is None:
        return rounded(weight, bits, group)
    # [N, C, h, w] -> [N, h * w * C], and back.
    order, back = ((0, 2, 3, 1), (0, 3, 1, 2)) if weight.ndim == 4 else ((0, 1), (0, 1))
    spread = weight.permute(order)
    integers, scale = gptq(spread.flatten(1), statistics, bits, group)
    integers = integers.reshape(spread.shape).permute(back).contiguous()
    scale = scale.reshape(*spread.shape[:-1], -1).permute(back).contiguous()
    return make_tensor(integers, scale, bits, group, weight.dtype)


def _flattened(network: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors of a file, and what its metadata say of those that are packed."""
    tensors, packed = {}, {}
    for name, value in network.state_dict().items():
        if not isinstance(value, IntxUnpackedToInt8Tensor):
            tensors[name] = value.detach().contiguous()
            continue
        bits = int(str(value.target_dtype).removeprefix('torch.int'))
        packed[name] = {'bits': bits, 'shape': list(value.shape), 'group': value.block_size[1]}
        tensors[f'{name}.integers'] = pack(value.qdata, bits)
        tensors[f'{name}.scale'] = value.scale.to(torch.float16)
    return tensors, packed


def save_quantised(network: nn.Module, path: Path) -> None:
    """Write a quantised network's tensors as safetensors: scales in float16, 4 bits packed."""
    tensors, packed = _flattened(network)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={'quantised': json.dumps(packed)})


def load_quantised(network: nn.Module, path: Path, dtype: torch.dtype) -> nn.Module:
    """Give a network of the same configuration the weights of `save_quantised`; returns it.

    Raises QuantisedFileError.
    """
    try:
        with safe_open(path, 'pt') as file:
            packed = json.loads((file.metadata() or {}).get('quantised', 'null'))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise QuantisedFileError(f'{path}: cannot be read: {error}') from error
    if packed is None:
        raise QuantisedFileError(f'{path}: holds no quantised weights; expected a file of '
                                 '`muon-ad quantize unet`')
    state = {}
    for name, about in packed.items():
        integers = unpack(tensors.pop(f'{name}.integers'), about['bits'], tuple(about['shape']))
        state[name] = make_tensor(integers, tensors.pop(f'{name}.scale'), about['bits'],
                                  about['group'], dtype)
    state |= {name: value.to(dtype) if value.is_floating_point() else value
              for name, value in tensors.items()}
    own = network.state_dict()
    wrong = [name for name in own.keys() | state.keys()
             if name not in own or name not in state or own[name].shape != state[name].shape]
    if wrong:
        raise QuantisedFileError(f'{path}: weights of another network: {sorted(wrong)[:3]} and '
                                 f'{max(0, len(wrong) - 3)} more differ')
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)

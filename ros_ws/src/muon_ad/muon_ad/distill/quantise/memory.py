"""The memory that a diffusion model takes, computed from its configuration alone.

Networks are made on torch's meta device, where tensors have shapes and no storage: what is counted
are the library's own parameters, and what autograd would keep.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from muon_ad.distill.folders import AUTOENCODERS
from muon_ad.distill.folders import DENOISERS
from muon_ad.distill.processors import checkpoint_with_processors
from muon_ad.distill.prompts import needs_time_ids
from muon_ad.distill.quantise.weights import GROUP
from muon_ad.distill.quantise.weights import is_kept
from muon_ad.distill.quantise.weights import layers_of

KNOWN = Path(__file__).with_name('configurations')
PRECISIONS = {'fp32': 32, 'bf16': 16, 'int8': 8, 'int4': 4}     # bits of a weight
TEXT_TOKENS = 77
PARTS = ('unet', 'transformer', 'vae', 'text_encoder', 'text_encoder_2', 'text_encoder_3')


class ConfigurationError(ValueError):
    """A configuration is missing or is of no model that is known here."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of one precision: the denoiser's weights, what else is there, and the peak.

    `activations` is what a pass through the denoiser keeps for the gradient of the latents;
    `checkpointed` the same with gradient checkpointing, which computes the rest anew.
    """

    precision: str
    denoiser: int
    autoencoder: int
    optimiser: int
    activations: int
    checkpointed: int

    @property
    def total(self) -> int:
        """Return the bytes to hold at the peak, with gradient checkpointing."""
        return self.denoiser + self.autoencoder + self.optimiser + self.checkpointed


@dataclass(frozen=True)
class Memory:
    """What a model takes: parameters of each part, and a Footprint for each precision."""

    source: str
    pixels: int
    parameters: dict[str, int]
    footprints: list[Footprint]


def read_configuration(place: str) -> dict[str, Any]:
    """Return the configurations of a model's parts, from a known name, a folder or a config.json.

    Raises ConfigurationError.
    """
    if (KNOWN / f'{place}.json').is_file():
        return json.loads((KNOWN / f'{place}.json').read_text(encoding='utf-8'))
    path = Path(place)
    if path.is_file():
        return {'source': place, 'unet': _read(path)}
    found = {part: _read(path / part / 'config.json') for part in PARTS
             if (path / part / 'config.json').is_file()}
    if not found.keys() & DENOISERS.keys():
        names = sorted(file.stem for file in KNOWN.glob('*.json'))
        raise ConfigurationError(f'{place}: expected one of {names}, a config.json, or a folder '
                                 'with unet/config.json')
    return {'source': place, **found}


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f'{path}: cannot be read as JSON: {error}') from error


def memory_of(configuration: dict[str, Any], pixels: int = 0, group: int = GROUP) -> Memory:
    """Compute what attention distillation takes with a model, for pictures of `pixels` squared.

    `pixels` 0 is the size that the model was made for. Raises ConfigurationError.
    """
    parts = networks_of(configuration)
    unet = parts.get('unet')
    if unet is None:
        raise ConfigurationError(f'{configuration["source"]}: has no unet; expected one, as '
                                 'Stable Diffusion 1.5, 2 and XL have')
    downscale = 2 ** (len(_autoencoder_widths(configuration)) - 1)
    side = pixels // downscale if pixels else unet.config.sample_size
    multiple = 2 ** (len(unet.config.block_out_channels) - 1)
    if side < multiple or side % multiple:
        raise ConfigurationError(f'pictures of {pixels} pixels have latents of {side}; expected '
                                 f'multiples of {multiple * downscale} pixels')
    kept = _activations(unet, side)
    # Latents, their gradient, their momentum, and those of content and style beside them.
    latents = 5 * 4 * unet.config.in_channels * side * side
    autoencoder = 4 * parameters(parts['vae']) if 'vae' in parts else 0    # always fp32
    return Memory(
        configuration['source'], side * downscale,
        {name: parameters(part) for name, part in parts.items()},
        [Footprint(name, weight_bytes(unet, bits, group), autoencoder, latents,
                   *(count if bits == 32 else count // 2 for count in kept))
         for name, bits in PRECISIONS.items()],
    )


def networks_of(configuration: dict[str, Any]) -> dict[str, nn.Module]:
    """Return a model's parts on the meta device. Raises ConfigurationError."""
    return {name: _on_meta(name, config) for name, config in configuration.items()
            if name in PARTS}


def _autoencoder_widths(configuration: dict[str, Any]) -> list[int]:
    """Return the widths of the autoencoder's levels; Stable Diffusion's where there is none."""
    vae = configuration.get('vae', {})
    return vae.get('encoder_block_out_channels') or vae.get('block_out_channels', [0] * 4)


def _on_meta(name: str, config: dict[str, Any]) -> nn.Module:
    classes = {kind.__name__: kind for kind in (*AUTOENCODERS, *DENOISERS.values())}
    with torch.device('meta'):
        if name.startswith('text_encoder'):
            kind = getattr(transformers, config['architectures'][0])
            return kind(kind.config_class(**config))
        found = config.get('_class_name')
        if found not in classes:
            raise ConfigurationError(f'{name}: _class_name is {found!r}; expected one of '
                                     f'{sorted(classes)}')
        return classes[found].from_config(config)


def parameters(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def weight_bytes(network: nn.Module, bits: int, group: int = GROUP) -> int:
    """Return the bytes of a network's weights, packed as `save_quantised` writes them.

    Below 16 bits: integers and a 2-byte scale for each group; what is not quantised has 2 bytes.
    """
    if bits >= 16:
        return parameters(network) * bits // 8
    quantised, total = 0, 0
    for name, layer in layers_of(network):
        if is_kept(name, layer):
            continue
        weight = layer.weight
        shared = group if weight.shape[1] % group == 0 else weight.shape[1]
        quantised += weight.numel()
        total += weight.numel() * bits // 8 + 2 * weight.numel() // shared
    return total + 2 * (parameters(network) - quantised)


def _activations(unet: nn.Module, side: int) -> tuple[int, int]:
    """Return the bytes in fp32 that autograd keeps of one pass, for the gradient of the latents.

    First of a plain pass; then with gradient checkpointing: the inputs of the blocks, and all of
    the largest block, which runs again in the backward pass.
    """
    repeated: set[nn.Module] = set()

    def remember(block: nn.Module, *arguments: object) -> object:
        repeated.add(block)
        return checkpoint_with_processors(block, *arguments)

    unet.enable_gradient_checkpointing(remember)
    inputs = _Kept(unet.train())
    inputs.run(side)        # checkpointing works in training alone
    unet.disable_gradient_checkpointing()
    everything = _Kept(unet.eval())
    largest = everything.run(side, repeated)
    return everything.bytes, inputs.bytes + largest


class _Kept:
    """The tensors that autograd keeps during passes, each counted once.

    Weights are not, since they are there anyway. Attention counts as its fused kernels do it,
    which keep their inputs and output and no map.
    """

    def __init__(self, unet: nn.Module) -> None:
        self.unet = unet.requires_grad_(False)
        self.weights = {id(value) for value in unet.parameters()}
        self.seen: dict[int, torch.Tensor] = {}
        self.bytes = 0

    def run(self, side: int, blocks: Iterable[nn.Module] = ()) -> int:
        """Run a pass; returns the most bytes that one of the `blocks` has added."""
        largest, starts = 0, {}

        def start(block: nn.Module, _given: object) -> None:
            starts[block] = self.bytes

        def end(block: nn.Module, *_: object) -> None:
            nonlocal largest
            largest = max(largest, self.bytes - starts[block])

        hooks = [hook for block in blocks for hook in (
            block.register_forward_pre_hook(start), block.register_forward_hook(end))]
        with saved_tensors_hooks(self._pack, lambda tensor: tensor), _FusedAttention():
            _pass(self.unet, side)
        for hook in hooks:
            hook.remove()
        return largest

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in self.weights and id(base) not in self.seen:
            self.seen[id(base)] = base      # held, so that its id is not given to another
            self.bytes += 4 * base.numel()
        return tensor


def _pass(unet: nn.Module, side: int) -> None:
    config = unet.config
    latents = torch.zeros(1, config.in_channels, side, side, device='meta', requires_grad=True)
    text = torch.zeros(1, TEXT_TOKENS, config.cross_attention_dim, device='meta')
    more = {}
    if needs_time_ids(unet):
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        more['added_cond_kwargs'] = {'text_embeds': torch.zeros(1, pooled, device='meta'),
                                     'time_ids': torch.zeros(1, 6, device='meta')}
    unet(latents, torch.zeros(1, device='meta'), encoder_hidden_states=text, **more)


class _Attention(torch.autograd.Function):
    """Keeps what a fused attention kernel keeps; computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor,  # noqa: ANN401 - torch's own
                value: torch.Tensor) -> torch.Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output)
        return output


class _FusedAttention(TorchFunctionMode):
    """While it is active, attention is `_Attention`: on the meta device, torch would keep maps."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (),  # noqa: ANN401
                           kwargs: dict | None = None) -> Any:  # noqa: ANN401
        if function is functional.scaled_dot_product_attention:
            return _Attention.apply(*args[:3])
        return function(*args, **(kwargs or {}))

"""What attention distillation needs of a network: latents of a picture, attention over them."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from muon_ad.distill.recommended import recommendation
from muon_ad.distill.settings import ATTENTIONS
from muon_ad.paths import expanded
from muon_ad.runtime.installed import models_folder

SHIPPED = 'backbone_tiny'

# Called as override(layer, query, key, value), each [B, heads, tokens, dim]; returns the three
# that the layer shall use instead. Key and value may have another number of tokens.
Override = Callable[
    [str, torch.Tensor, torch.Tensor, torch.Tensor],
    tuple[torch.Tensor, torch.Tensor, torch.Tensor],
]


class BackboneError(ValueError):
    """A backbone cannot be loaded or used: the folder, its part, and what was expected."""


@dataclass(frozen=True)
class Attention:
    """One self-attention layer during one pass.

    Each tensor is [B, heads, tokens, dim] in the network's dtype; `output` is
    softmax(query key^T / sqrt(dim)) value, before the layer's output projection.
    """

    name: str
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor


def check_layers(layers: Sequence[str], known: Sequence[str]) -> None:
    """Raise BackboneError where some of `layers` are not `known` to a backbone."""
    unknown = [name for name in layers if name not in known]
    if unknown:
        raise BackboneError(f'layers are {unknown}; expected some of {list(known)}')


class Backbone(Protocol):
    """A frozen network with a latent space and self-attention over it.

    `downscale` is the pixels a side of one latent, `multiple` what a picture's sides in pixels
    must be divisible by, `layers` the names of the self-attention layers in order of execution,
    `recommended` the settings that suit it, where they are others than settings.REFERENCE.
    """

    downscale: int
    multiple: int
    latent_channels: int
    layers: list[str]
    device: torch.device
    recommended: Mapping[str, float | str]

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] in 0..1 -> latents [B, C, H / downscale, W / downscale], float32."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Invert `encode`, to values in 0..1; differentiable."""
        ...

    def timesteps(self, count: int) -> list[int | float]:
        """Return up to `count` different time-steps, noisiest first: fewer where there are no
        more, one where time means nothing to the network.
        """
        ...

    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: int | float,
    ) -> torch.Tensor:
        """Return the latents as they are at `timestep` of the forward diffusion."""
        ...

    def attend(
        self, latents: torch.Tensor, timestep: int | float, layers: Sequence[str],
        override: Override | None = None,
    ) -> list[Attention]:
        """Return the attention of `layers`, in that order; differentiable in the latents."""
        ...

    def denoise(
        self, latents: torch.Tensor, timestep: int | float, override: Override | None = None,
    ) -> torch.Tensor:
        """Return the network's raw prediction, shaped like the latents."""
        ...

    def step(
        self, latents: torch.Tensor, prediction: torch.Tensor, timestep: int | float,
        target: int | float | None,
    ) -> torch.Tensor:
        """Move the latents from `timestep` to `target` (None: no noise) along the prediction.

        Deterministic, and in both directions: a noisier target inverts (DDIM inversion).
        """
        ...


def load_backbone(
    folder: Path | str | None = None, device: torch.device | str = 'cpu',
    dtype: torch.dtype = torch.float32, gradient_checkpointing: bool = False,
    attention: str | None = None,
) -> Backbone:
    """Load a local diffusers folder; without `folder`, the backbone that is shipped.

    `attention` is 'denoiser' for that of the U-Net or MMDiT, 'features' for that over the features
    of the folder's encoder (features.py), None for what the folder recommends (recommended.py),
    else the denoiser's. `dtype` is that of the denoiser; autoencoders stay in float32, since
    their half precision overflows in some models. `gradient_checkpointing` halves the memory of a
    large network for a third more time.
    Nothing is downloaded. Raises BackboneError, RecommendationError.
    """
    from muon_ad.distill.diffusion import DiffusionBackbone
    from muon_ad.distill.features import FeatureBackbone

    if attention not in (None, *ATTENTIONS):
        raise BackboneError(f'attention is {attention!r}; expected None or one of {ATTENTIONS}')
    folder = _shipped() if folder is None else expanded(folder)
    recommended = recommendation(folder)
    attention = attention or recommended.attention
    if attention == 'features':
        backbone = FeatureBackbone.load(folder, device)
    else:
        backbone = DiffusionBackbone.load(folder, device, dtype, gradient_checkpointing)
    backbone.recommended = recommended.settings.get(attention, {})
    return backbone


def _shipped() -> Path:
    models = models_folder()
    if models is None or not (models / SHIPPED).is_dir():
        raise BackboneError(
            f'the shipped backbone {SHIPPED} is not in the models folder ({models}); give the '
            'folder of another backbone'
        )
    return models / SHIPPED

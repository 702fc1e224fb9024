"""Attention over the features of a convolutional encoder, behind the interface of a backbone.

A denoiser small enough to be shipped sees little. A VGG-like encoder of the same size sees
textures well, and has no attention; but attention is only a way of looking up: here every place
of a picture asks, by the direction of its features, which places are like it, and what is looked
up are the features themselves. With another picture's keys and values that finds, for each
place, the most similar ones of the style (compare nearest-neighbour style transfer, Kolkin et
al., arXiv:2203.13215). The losses of attention distillation apply as they are.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from muon_ad.distill.backbone import Attention
from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.backbone import check_layers
from muon_ad.distill.backbone import Override
from muon_ad.distill.folders import load_autoencoder
from muon_ad.networks.feature_encoder import FeatureEncoder
from muon_ad.networks.feature_encoder import LEVELS
from muon_ad.paths import is_file

# Places of a level are gathered in blocks of that side, or the finest would have too many.
BLOCKS = {'relu2_1': 2, 'relu3_1': 1, 'relu4_1': 1}
# How sharply a place looks for its like: cosines are multiplied by it before the softmax.
SHARPNESS = 100.0
# So that a channel that is silent in a picture stays so; features are about one elsewhere.
LEAST_SPREAD = 0.01


class FeatureBackbone:
    """Autoencoder and feature encoder, both frozen; see `backbone.Backbone` for the methods.

    Layers are levels of the encoder, with one head. Query and key are features less their mean
    over the picture, at unit length; the value is the features themselves. Time and noise mean
    nothing here: there is one time-step, and `denoise` and `step` raise
    BackboneError.
    """

    multiple = 8
    recommended: Mapping[str, float | str] = {}

    def __init__(self, autoencoder: nn.Module, encoder: FeatureEncoder) -> None:
        self._autoencoder = autoencoder
        self._encoder = encoder
        self.device = encoder.device
        self.latent_channels = autoencoder.config.latent_channels
        self.downscale = 2 ** (len(autoencoder.config.encoder_block_out_channels) - 1)
        self.layers = list(BLOCKS)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = 'cpu') -> 'FeatureBackbone':
        """Load `vae/` and `encoder/` of a backbone's folder; raises BackboneError."""
        if not is_file(folder / 'encoder' / 'config.json'):
            raise BackboneError(f'{folder}: no encoder/config.json; expected the folder of a '
                                'backbone with a feature encoder, as backbone_tiny is one')
        encoder = FeatureEncoder.from_pretrained(
            folder / 'encoder', torch_dtype=torch.float32, low_cpu_mem_usage=False)
        autoencoder = load_autoencoder(folder, torch.device(device))
        return cls(autoencoder, encoder.to(device).eval().requires_grad_(False))

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] in 0..1 -> latents [B, C, H / 4, W / 4]."""
        latents = self._autoencoder.encode(image.to(self.device) * 2 - 1).latents
        return latents * self._autoencoder.config.scaling_factor

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Invert `encode`, to values in 0..1."""
        return self._picture(latents).clamp(0, 1)

    def _picture(self, latents: torch.Tensor) -> torch.Tensor:
        raw = latents / self._autoencoder.config.scaling_factor
        return self._autoencoder.decode(raw).sample / 2 + 0.5

    def timesteps(self, count: int) -> list[int | float]:
        """Return the only one there is."""
        return [0]

    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: int | float,
    ) -> torch.Tensor:
        """Return the latents as they are: at the only time-step there is no noise."""
        return latents

    def attend(
        self, latents: torch.Tensor, timestep: int | float, layers: Sequence[str],
        override: Override | None = None,
    ) -> list[Attention]:
        """Return the attention of `layers`; raises BackboneError for unknown ones."""
        check_layers(layers, self.layers)
        # Not clipped, or what has left 0..1 would have no gradient to come back.
        levels = dict(zip(LEVELS, self._encoder(self._picture(latents)), strict=True))
        return [self._attention(name, levels[name], override) for name in layers]

    def _attention(
        self, name: str, features: torch.Tensor, override: Override | None,
    ) -> Attention:
        value = F.pixel_unshuffle(features, BLOCKS[name]).flatten(2).mT[:, None]
        # Scaled dot products divide by the root of the width.
        length = (SHARPNESS * value.shape[-1] ** 0.5) ** 0.5
        spread, mean = torch.std_mean(value, dim=2, keepdim=True)
        query = key = length * F.normalize((value - mean) / (spread + LEAST_SPREAD), dim=-1)
        if override is not None:
            query, key, value = override(name, query, key, value)
        return Attention(name, query, key, value,
                         F.scaled_dot_product_attention(query, key, value))

    def denoise(
        self, latents: torch.Tensor, timestep: int | float, override: Override | None = None,
    ) -> torch.Tensor:
        """Raise BackboneError: there is no denoiser here."""
        raise BackboneError('attention over features has no denoiser; use that of the backbone')

    def step(
        self, latents: torch.Tensor, prediction: torch.Tensor, timestep: int | float,
        target: int | float | None,
    ) -> torch.Tensor:
        """Raise BackboneError: there is no denoiser here."""
        raise BackboneError('attention over features has no denoiser; use that of the backbone')

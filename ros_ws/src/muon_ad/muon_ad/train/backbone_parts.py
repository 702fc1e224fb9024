"""The three networks of the embedded backbone and what each of them learns from.

- The autoencoder (diffusers' AutoencoderTiny) makes latents of a quarter of the size. Noise is
  added to them in training: whoever optimises latents leaves the paths on which an encoder would
  have put them, and the decoder has to make a picture of that, too.
- The denoiser (diffusers' UNet2DConditionModel) learns to predict the velocity of a noisy latent.
  Its features before the last attentions are drawn to those of a VGG (as REPA does, Yu et al.,
  arXiv:2410.06940), which a few thousand steps on a few hundred pictures would not find alone.
- The feature encoder imitates a VGG level by level.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import AutoencoderTiny
from diffusers import DDPMScheduler
from diffusers import UNet2DConditionModel
from torch import nn

from muon_ad.networks.feature_encoder import FeatureEncoder
from muon_ad.networks.feature_encoder import LEVELS

LATENT_CHANNELS = 8     # at a quarter of the size: a sixth of the picture's numbers
PROMPT_WIDTH = 16
FEATURE_CHANNELS = (16, 32, 64, 128)    # of the VGG that is imitated
LATENT_NOISE = 0.1      # standard deviation, beside latents of about 1
TRAIN_TIMESTEPS = 1000
# Blocks whose features are likened to a level of the VGG, with the number of that level.
LIKENED = {'up_blocks.0': 3, 'up_blocks.1': 2}

Losses = dict[str, torch.Tensor]


def make_autoencoder(width: int = 32) -> AutoencoderTiny:
    """Return an untrained autoencoder: two halvings, and no wide layer at full resolution."""
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * 3, decoder_block_out_channels=(width,) * 3,
        num_encoder_blocks=(0, 1, 2), num_decoder_blocks=(3, 2, 0),
        latent_channels=LATENT_CHANNELS,
    )


def make_denoiser(widths: Sequence[int] = (32, 64, 96)) -> UNet2DConditionModel:
    """Return an untrained U-Net with six self-attention layers on its way up, as many as the
    attention distillation of Zhou et al. (CVPR 2025) reads of Stable Diffusion.
    """
    return UNet2DConditionModel(
        sample_size=64, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS,
        block_out_channels=tuple(widths), layers_per_block=1, norm_num_groups=16,
        down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D'),
        up_block_types=('CrossAttnUpBlock2D',) * 3, mid_block_type='UNetMidBlock2DCrossAttn',
        cross_attention_dim=PROMPT_WIDTH, attention_head_dim=4, use_linear_projection=True,
    )


def make_scheduler() -> DDPMScheduler:
    """Return Stable Diffusion's noise schedule, for a network that predicts the velocity."""
    return DDPMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS, beta_start=0.00085, beta_end=0.012,
        beta_schedule='scaled_linear', prediction_type='v_prediction', clip_sample=False,
    )


class AutoencoderPart(nn.Module):
    """Learns to give back what it is shown, by pixel and by the features of a VGG."""

    COLUMNS = ('pixels', 'perceptual', 'spread')

    def __init__(self, features: nn.Module, width: int = 32) -> None:
        super().__init__()
        self.net = make_autoencoder(width)
        self._features = [features]     # in a list: not a part of what is trained and saved

    def losses(self, images: torch.Tensor, generator: torch.Generator) -> Losses:
        """Return the weighted losses of pictures [N, 3, H, W] in 0..1."""
        latents = self.net.encode(images * 2 - 1).latents
        noise = torch.randn(latents.shape, generator=generator)
        found = self.net.decode(latents + LATENT_NOISE * noise).sample / 2 + 0.5
        with torch.no_grad():
            wanted = self._features[0](images)
        return {
            'pixels': F.l1_loss(found, images),
            'perceptual': 0.05 * _relative(self._features[0](found), wanted),
            # A variance of one, so that noise means the same for every channel.
            'spread': 0.02 * (latents.square().mean(dim=(0, 2, 3)) - 1).square().mean(),
        }


class DenoiserPart(nn.Module):
    """Learns to denoise latents of a trained autoencoder."""

    COLUMNS = ('velocity', 'likeness')

    def __init__(
        self, autoencoder: AutoencoderTiny, features: nn.Module,
        widths: Sequence[int] = (32, 64, 96),
    ) -> None:
        super().__init__()
        self.net = make_denoiser(widths)
        self.scheduler = make_scheduler()
        self._frozen = autoencoder.requires_grad_(False).eval(), features
        seen = {'up_blocks.0': widths[2], 'up_blocks.1': widths[1]}
        self.likeners = nn.ModuleDict({
            name.replace('.', '_'): nn.Conv2d(seen[name], FEATURE_CHANNELS[level], 1)
            for name, level in LIKENED.items()
        })
        self._seen: dict[str, torch.Tensor] = {}
        for name in LIKENED:
            self.net.get_submodule(name).register_forward_hook(self._remember(name))

    def _remember(self, name: str) -> object:
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            self._seen[name] = output
        return hook

    def losses(self, images: torch.Tensor, generator: torch.Generator) -> Losses:
        """Return the weighted losses of pictures [N, 3, H, W] in 0..1."""
        autoencoder, features = self._frozen
        with torch.no_grad():
            latents = autoencoder.encode(images * 2 - 1).latents
            latents = latents * autoencoder.config.scaling_factor
            wanted = features(images)
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.randint(TRAIN_TIMESTEPS, (len(images),), generator=generator)
        noisy = self.scheduler.add_noise(latents, noise, times)
        prompt = torch.zeros(len(images), 1, PROMPT_WIDTH)
        found = self.net(noisy, times, prompt).sample
        velocity = self.scheduler.get_velocity(latents, noise, times)
        return {'velocity': F.mse_loss(found, velocity), 'likeness': 0.5 * self._likeness(wanted)}

    def _likeness(self, wanted: Sequence[torch.Tensor]) -> torch.Tensor:
        """Mean of 1 - cosine between own features and a VGG's, at every place."""
        parts = []
        for name, level in LIKENED.items():
            found = self.likeners[name.replace('.', '_')](self._seen[name])
            parts.append(1 - F.cosine_similarity(found, wanted[level], dim=1).mean())
        return torch.stack(parts).mean()


class EncoderPart(nn.Module):
    """Learns the features of a VGG, level by level, in units of their size on `examples`.

    `examples` are pictures [N, 3, H, W] in 0..1.
    """

    COLUMNS = LEVELS

    def __init__(self, features: nn.Module, examples: torch.Tensor) -> None:
        super().__init__()
        self.net = FeatureEncoder()
        with torch.no_grad():
            self._sizes = [level.square().mean().sqrt() for level in features(examples)]
        self._features = [features]

    def losses(self, images: torch.Tensor, generator: torch.Generator) -> Losses:
        """Return the mean squared error at each level of pictures [N, 3, H, W] in 0..1."""
        with torch.no_grad():
            wanted = [x / size for x, size in zip(self._features[0](images), self._sizes,
                                                  strict=True)]
        found = self.net(images)
        return {name: F.mse_loss(a, b)
                for name, a, b in zip(self.COLUMNS, found, wanted, strict=True)}


def _relative(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> torch.Tensor:
    parts = [(a - b).abs().mean() / b.abs().mean().clamp_min(1e-6)
             for a, b in zip(found, wanted, strict=True)]
    return torch.stack(parts).mean()

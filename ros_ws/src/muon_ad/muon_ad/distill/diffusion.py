"""A local diffusers folder as a backbone: Stable Diffusion 1.5, 2.1, Turbo, XL, 3, or a small one.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from muon_ad.distill.backbone import Attention
from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.backbone import check_layers
from muon_ad.distill.backbone import Override
from muon_ad.distill.folders import check_layout
from muon_ad.distill.folders import load_autoencoder
from muon_ad.distill.folders import load_denoiser
from muon_ad.distill.noise import load_noise_schedule
from muon_ad.distill.noise import NoiseSchedule
from muon_ad.distill.processors import capture
from muon_ad.distill.processors import checkpoint_with_processors
from muon_ad.distill.processors import self_attention_layers
from muon_ad.distill.prompts import needs_time_ids
from muon_ad.distill.prompts import null_prompt
from muon_ad.distill.prompts import pooled_width


class DiffusionBackbone:
    """Autoencoder, denoiser (U-Net or MMDiT) and noise schedule, all frozen, under the empty
    prompt; see `backbone.Backbone` for the methods.

    `prompt` holds the denoiser's arguments for a batch of one, as `prompts.null_prompt` does.
    `denoiser` and `noise` are open to who works on the denoiser itself, as pruning does.
    """

    recommended: Mapping[str, float | str] = {}

    def __init__(
        self, autoencoder: nn.Module, denoiser: nn.Module, noise: NoiseSchedule,
        prompt: dict[str, torch.Tensor],
    ) -> None:
        self._autoencoder = autoencoder
        self.denoiser = denoiser
        self.noise = noise
        self._prompt = prompt
        self._dtype = next(denoiser.parameters()).dtype
        self.device = next(denoiser.parameters()).device
        self.latent_channels = autoencoder.config.latent_channels
        self.downscale = _downscale(autoencoder)
        self.multiple = self.downscale * _latent_multiple(denoiser)
        self.layers = self_attention_layers(denoiser)
        _check_fit(autoencoder, denoiser, self.layers)

    @classmethod
    def load(
        cls, folder: Path, device: torch.device | str = 'cpu',
        dtype: torch.dtype = torch.float32, gradient_checkpointing: bool = False,
    ) -> 'DiffusionBackbone':
        """Load a folder as diffusers saves it; see `backbone.load_backbone`."""
        device = torch.device(device)
        part = check_layout(folder)
        noise = load_noise_schedule(folder)
        autoencoder = load_autoencoder(folder, device)
        denoiser = load_denoiser(folder, part, device, dtype)
        if gradient_checkpointing:
            denoiser.enable_gradient_checkpointing(checkpoint_with_processors)
        prompt = null_prompt(folder, denoiser)
        try:
            return cls(autoencoder, denoiser, noise, prompt)
        except BackboneError as error:
            raise BackboneError(f'{folder}: {error}') from error

    @property
    def denoiser(self) -> nn.Module:
        """The U-Net or MMDiT itself, for what works on its weights."""
        return self._denoiser

    def with_denoiser(self, denoiser: nn.Module) -> 'DiffusionBackbone':
        """Return the same with another denoiser of the same interface, such as a lighter one."""
        return DiffusionBackbone(self._autoencoder, denoiser, self.noise, self._prompt)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] in 0..1 -> latents; the mean of the distribution where there is one."""
        encoded = self._autoencoder.encode(image.to(self.device, torch.float32) * 2 - 1)
        raw = encoded.latents if hasattr(encoded, 'latents') else encoded.latent_dist.mean
        return (raw - self._shift) * self._scale

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Invert `encode`, to values clipped to 0..1."""
        raw = latents.to(self.device, torch.float32) / self._scale + self._shift
        return (self._autoencoder.decode(raw).sample / 2 + 0.5).clamp(0, 1)

    @property
    def _scale(self) -> float:
        return self._autoencoder.config.scaling_factor

    @property
    def _shift(self) -> float:
        # Null in the configuration of autoencoders before SD3's.
        return self._autoencoder.config.get('shift_factor') or 0.0

    def timesteps(self, count: int) -> list[int | float]:
        """Return up to `count` different time-steps, noisiest first."""
        return self.noise.timesteps(count)

    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: int | float,
    ) -> torch.Tensor:
        """Return the latents as they are at `timestep`."""
        return self.noise.add_noise(latents, noise, timestep)

    def attend(
        self, latents: torch.Tensor, timestep: int | float, layers: Sequence[str],
        override: Override | None = None,
    ) -> list[Attention]:
        """Return the attention of `layers` in that order. Raises BackboneError for others."""
        check_layers(layers, self.layers)
        with capture(self.denoiser, layers, override) as captured:
            self.predict(latents, timestep)
        return [captured[name] for name in layers]

    def denoise(
        self, latents: torch.Tensor, timestep: int | float, override: Override | None = None,
    ) -> torch.Tensor:
        """Return the raw prediction, float32; `override` is asked at every layer."""
        if override is None:
            return self.predict(latents, timestep).float()
        with capture(self.denoiser, self.layers, override):
            return self.predict(latents, timestep).float()

    def step(
        self, latents: torch.Tensor, prediction: torch.Tensor, timestep: int | float,
        target: int | float | None,
    ) -> torch.Tensor:
        """Move the latents to the time-step `target` along the prediction."""
        return self.noise.step(latents, prediction, timestep, target)

    def predict(
        self, latents: torch.Tensor, timestep: int | float | torch.Tensor,
    ) -> torch.Tensor:
        """Return the raw prediction in the denoiser's dtype, of one time-step or of [B] of them.
        """
        arguments = self._arguments(latents)
        time = torch.as_tensor(timestep, device=self.device).expand(len(latents))
        return self.denoiser(latents.to(self.device, self._dtype), timestep=time,
                              return_dict=False, **arguments)[0]

    def _arguments(self, latents: torch.Tensor) -> dict:
        """Return the empty prompt for each sample, and for SDXL the size of its picture."""
        found = {name: value.expand(len(latents), *value.shape[1:])
                 for name, value in self._prompt.items()}
        if not needs_time_ids(self.denoiser):
            return found
        height, width = (side * self.downscale for side in latents.shape[-2:])
        sizes = torch.tensor([height, width, 0, 0, height, width], device=self.device)
        found['added_cond_kwargs'] = {
            'text_embeds': found.pop('text_embeds'),
            'time_ids': sizes.to(self._dtype).expand(len(latents), -1),
        }
        return found


def _downscale(autoencoder: nn.Module) -> int:
    config = autoencoder.config
    channels = config.get('encoder_block_out_channels') or config.block_out_channels
    return 2 ** (len(channels) - 1)


def _latent_multiple(denoiser: nn.Module) -> int:
    """Return what the sides of latents must be divisible by."""
    if 'patch_size' in denoiser.config:
        return denoiser.config.patch_size
    return 2 ** (len(denoiser.config.block_out_channels) - 1)


def _check_fit(autoencoder: nn.Module, denoiser: nn.Module, layers: list[str]) -> None:
    config = denoiser.config
    latents = autoencoder.config.latent_channels
    if config.in_channels != latents:
        raise BackboneError(
            f'the denoiser takes {config.in_channels} channels and vae/ has {latents}; expected a '
            'text-to-image model, not one for inpainting, depth or upscaling'
        )
    if not layers:
        raise BackboneError('the denoiser has no self-attention layer; expected at least one '
                            '(CrossAttnDownBlock2D or the like)')
    if config.get('class_embed_type') or config.get('num_class_embeds'):
        raise BackboneError('the denoiser needs class labels; expected a text-to-image model')
    if config.get('addition_embed_type') not in (None, 'text_time'):
        raise BackboneError(f'the denoiser has addition_embed_type '
                            f'{config.addition_embed_type!r}; expected none or text_time (SDXL)')
    if needs_time_ids(denoiser) and pooled_width(denoiser) < 1:
        raise BackboneError('the denoiser takes other size embeddings than six (SDXL refiner?); '
                            'expected the base model')

"""What a stylisation minimises: style and content losses of latents at a time-step."""

from dataclasses import dataclass

import torch

from muon_ad.distill.backbone import Attention
from muon_ad.distill.backbone import Backbone
from muon_ad.distill.clip import clip_loss
from muon_ad.distill.clip import ClipFeatures
from muon_ad.distill.losses import attention_loss
from muon_ad.distill.losses import attention_map_loss
from muon_ad.distill.losses import query_loss
from muon_ad.distill.settings import Settings
from muon_ad.distill.statistics import whiten_and_colour
from muon_ad.paths import expanded

_STYLE_LOSSES = {'l1': attention_loss, 'kl': attention_map_loss}
REFERENCE_LAYERS = 6    # arXiv 2502.20235 distils the last six


@dataclass(frozen=True)
class Losses:
    """Scalars with gradients, unweighted; `clip` is None where no CLIP folder is given."""

    style: torch.Tensor
    content: torch.Tensor
    clip: torch.Tensor | None = None


@dataclass(frozen=True)
class _Targets:
    timestep: int | float
    style: list[Attention]
    content: list[Attention]


class Objective:
    """Losses against fixed style and content, whose attention is kept for one time-step.

    `content` and `style` are pictures [B, 3, H, W] and [M, 3, H_s, W_s] in 0..1, with sides that
    the backbone can take.
    """

    def __init__(
        self, backbone: Backbone, settings: Settings, content: torch.Tensor, style: torch.Tensor,
    ) -> None:
        self._backbone = backbone
        self._settings = settings
        self._targets: _Targets | None = None
        self._layers = settings.layers or tuple(backbone.layers[-REFERENCE_LAYERS:])
        with torch.no_grad():
            self.content = backbone.encode(content)
            self._style = backbone.encode(style)
            self._clip = self._clip_target = None
            if settings.clip is not None:
                self._clip = ClipFeatures.load(expanded(settings.clip), backbone.device)
                self._clip_target = self._clip(content.to(backbone.device))
        self._noise = self._style_noise = None
        if settings.noised:
            self._noise = seeded_noise(settings.seed, self.content)
            self._style_noise = seeded_noise(settings.seed, self._style)

    def start(self) -> torch.Tensor:
        """Return the latents to begin with, [B, C, h, w], as `Settings.start` says."""
        if self._settings.start == 'noise':
            return seeded_noise(self._settings.seed, self.content)
        if self._settings.start == 'palette':
            style = self._style.transpose(0, 1).flatten(1).double()
            coloured = [whiten_and_colour(sample.flatten(1).double(), style).view_as(sample)
                        for sample in self.content]
            return torch.stack(coloured).to(self.content)
        return self.content

    def losses(self, latents: torch.Tensor, timestep: int | float) -> Losses:
        """Compute the losses of latents [B, C, h, w], each a mean over the batch."""
        targets = self._targets_at(timestep)
        own = self._attend(latents, self._noise, timestep)
        style = _STYLE_LOSSES[self._settings.loss](own, targets.style)
        content = query_loss(own, targets.content)
        if self._clip is None:
            return Losses(style, content)
        seen = self._clip(self._backbone.decode(latents))
        return Losses(style, content, clip_loss(seen, self._clip_target))

    @torch.no_grad()
    def _targets_at(self, timestep: int | float) -> _Targets:
        # Time-steps come in order, so no other than the last is needed again.
        if self._targets is None or self._targets.timestep != timestep:
            self._targets = _Targets(
                timestep, self._attend(self._style, self._style_noise, timestep),
                self._attend(self.content, self._noise, timestep))
        return self._targets

    def _attend(
        self, latents: torch.Tensor, noise: torch.Tensor | None, timestep: int | float,
    ) -> list[Attention]:
        if noise is not None:
            latents = self._backbone.add_noise(latents, noise, timestep)
        half = self._settings.dtype == 'bfloat16'
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=half):
            return self._backbone.attend(latents, timestep, self._layers)


def seeded_noise(seed: int, like: torch.Tensor) -> torch.Tensor:
    """Return standard normal values; drawn on the CPU, so that every device gets the same."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator).to(like)

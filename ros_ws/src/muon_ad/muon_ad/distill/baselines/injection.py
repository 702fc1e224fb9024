"""Key and value injection: a diffusion model redraws the content while it attends to the style.

Chung et al., "Style injection in diffusion: a training-free approach for adapting large-scale
diffusion models for style transfer" (StyleID, arXiv:2312.09008), section 4.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from muon_ad.distill.backbone import Backbone
from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.baselines.picture import from_picture
from muon_ad.distill.baselines.picture import to_picture
from muon_ad.distill.pixels import working_size
from muon_ad.distill.statistics import align_statistics

LAST_LAYERS = 6
Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Injection:
    """StyleID on a diffusion backbone, with the paper's settings but fewer `steps` of DDIM (50).

    `gamma` is the share of the content's queries against those of the picture that is drawn (query
    preservation), `temperature` sharpens the attention to what is not the picture's own. `layers`
    are names of self-attention layers; None is the last six, in the U-Net's decoder.

    DDIM inversion takes the clean latents for those of the least noisy time-step.
    """

    backbone: Backbone
    steps: int = 20
    gamma: float = 0.75
    temperature: float = 1.5
    layers: tuple[str, ...] | None = None
    name: str = 'injection'

    @torch.no_grad()
    def __call__(self, content: np.ndarray, style: np.ndarray) -> np.ndarray:
        """Stylise: see Stylizer. Raises BackboneError where the backbone does not denoise."""
        timesteps = self.backbone.timesteps(self.steps)
        if len(timesteps) < 2:
            raise BackboneError('injection needs a backbone that denoises, with two time-steps or '
                                f'more; this one has {timesteps}')
        pictures = self._fitted('content', content), self._fitted('style', style)
        (noisy, scene), (style_noisy, pattern) = (
            self._inverted(picture, timesteps) for picture in pictures)
        latents = align_statistics(noisy, style_noisy)
        for timestep, target in zip(timesteps, [*timesteps[1:], None], strict=True):
            inject = _Injector(scene[timestep], pattern[timestep], self.gamma, self.temperature)
            prediction = self.backbone.denoise(latents, timestep, inject)
            latents = self.backbone.step(latents, prediction, timestep, target)
        return to_picture(_resized(self.backbone.decode(latents), content.shape[:2]))

    def _inverted(
        self, image: torch.Tensor, timesteps: list[int | float],
    ) -> tuple[torch.Tensor, dict[int | float, dict[str, Triple]]]:
        """Return an image's latents at the noisiest time-step, and its attention at each."""
        latents = self.backbone.encode(image)
        layers = self.layers or self.backbone.layers[-LAST_LAYERS:]
        found = {}
        rising = timesteps[::-1]
        for timestep, target in zip(rising, [*rising[1:], timesteps[0]], strict=True):
            recorder = _Recorder(layers)
            prediction = self.backbone.denoise(latents, timestep, recorder)
            latents = self.backbone.step(latents, prediction, timestep, target)
            found[timestep] = recorder.seen
        return latents, found

    def _fitted(self, name: str, picture: np.ndarray) -> torch.Tensor:
        """Return the picture as a tensor, with sides as the backbone takes them."""
        size = working_size(*picture.shape[:2], self.backbone.multiple)
        return _resized(from_picture(name, picture), size).to(self.backbone.device)


def _resized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    resized = F.interpolate(image, size, mode='bicubic', antialias=True, align_corners=False)
    return resized.clamp(0, 1)


class _Recorder:
    """An override that changes nothing, and keeps what it sees of some layers."""

    def __init__(self, layers: list[str] | tuple[str, ...]) -> None:
        self._layers = layers
        self.seen: dict[str, Triple] = {}

    def __call__(
        self, layer: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    ) -> Triple:
        if layer in self._layers:
            self.seen[layer] = (query, key, value)
        return query, key, value


@dataclass(frozen=True)
class _Injector:
    """An override with the content's queries mixed in, and the style's keys and values.

    Equations 5 to 7; with attention of the form softmax(q k / sqrt(d)) v, the temperature is a
    factor of the query.
    """

    content: dict[str, Triple]
    style: dict[str, Triple]
    gamma: float
    temperature: float

    def __call__(
        self, layer: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    ) -> Triple:
        if layer not in self.content:
            return query, key, value
        mixed = torch.lerp(query, self.content[layer][0], self.gamma)
        return mixed * self.temperature, *self.style[layer][1:]

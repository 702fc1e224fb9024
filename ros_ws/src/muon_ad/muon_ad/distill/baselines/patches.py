"""Patch distribution matching: the style's patches in the content's order, without a network.

Elnekave and Weiss, "Generating natural images with direct patch distributions matching"
(arXiv:2203.11862): pixels are optimised until the patches of the picture, projected on random
lines, lie as those of the style do.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from muon_ad.distill.baselines.picture import from_picture
from muon_ad.distill.baselines.picture import to_picture
from muon_ad.metrics.wasserstein import quantiles
from muon_ad.metrics.wasserstein import random_directions

_LUMINANCE = (0.299, 0.587, 0.114)
_CONTENT_SIDE = 32     # pixels of the shorter side: what is light and dark, but no brush stroke


@dataclass(frozen=True)
class PatchMatching:
    """GPDM started from the content, which a weight on its light and dark holds in place.

    `steps` of Adam at each of `scales`, each twice as fine as the one before, with a learning
    rate that falls from `lr` to a twentieth; `patch` pixels a side. What a finer scale adds to
    the content is added to the picture when it is reached. Of each picture `samples` patches at
    most are compared a step, along `directions` lines.
    """

    scales: int = 3
    steps: int = 60
    patch: int = 7
    content_weight: float = 0.1
    lr: float = 0.03
    directions: int = 32
    samples: int = 8192
    seed: int = 0
    name: str = 'patches'

    def __call__(self, content: np.ndarray, style: np.ndarray) -> np.ndarray:
        """Stylise: see Stylizer."""
        whole, pattern = from_picture('content', content), from_picture('style', style)
        generator = torch.Generator().manual_seed(self.seed)
        picture, coarser = None, None
        for factor in self._factors(min(*content.shape[:2], *style.shape[:2])):
            scene, target = _scaled(whole, factor), _scaled(pattern, factor)
            picture = scene if picture is None else _raised(picture, coarser, scene)
            picture = self._matched(picture, scene, target, generator)
            coarser = scene
        return to_picture(picture)

    def _factors(self, side: int) -> list[float]:
        """Return the scales, coarsest first; none where a picture would be but few patches."""
        factors = [0.5 ** level for level in range(self.scales)]
        return [factor for factor in factors if side * factor >= 3 * self.patch][::-1] or [1.0]

    def _matched(
        self, start: torch.Tensor, scene: torch.Tensor, target: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        picture = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([picture], self.lr)
        # Steps of full size would leave the noise of the random lines in the picture.
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, self.steps)
        for _ in range(self.steps):
            optimizer.zero_grad()
            filters = self._filters(generator)
            loss = F.l1_loss(self._projected(picture, filters, generator),
                             self._projected(target, filters, generator))
            loss = loss + self.content_weight * F.mse_loss(_tones(picture), _tones(scene))
            loss.backward()
            optimizer.step()
            schedule.step()
        return picture.detach().clamp(0, 1)

    def _filters(self, generator: torch.Generator) -> torch.Tensor:
        lines = random_directions(3 * self.patch ** 2, self.directions, generator)
        return lines.T.reshape(self.directions, 3, self.patch, self.patch)

    def _projected(
        self, image: torch.Tensor, filters: torch.Tensor, generator: torch.Generator,
    ) -> torch.Tensor:
        """Return [directions, samples] quantiles of the image's patches along the lines."""
        # A patch times a line is what a convolution with the line gives at its place.
        values = F.conv2d(image, filters)[0].flatten(1)
        if values.shape[1] > self.samples:
            values = values[:, torch.randperm(values.shape[1], generator=generator)[:self.samples]]
        return quantiles(values, self.samples)


def _scaled(image: torch.Tensor, factor: float) -> torch.Tensor:
    if factor == 1:
        return image
    size = [round(side * factor) for side in image.shape[2:]]
    return F.interpolate(image, size, mode='bilinear', antialias=True, align_corners=False)


def _raised(picture: torch.Tensor, coarser: torch.Tensor, scene: torch.Tensor) -> torch.Tensor:
    """Return the picture at the size of `scene`, with what that shows beyond `coarser`."""
    change = F.interpolate(picture - coarser, scene.shape[2:], mode='bilinear',
                           align_corners=False)
    return (scene + change).clamp(0, 1)


def _tones(image: torch.Tensor) -> torch.Tensor:
    """Return the luminance in few pixels, less its mean and over its spread."""
    grey = (image * image.new_tensor(_LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return F.instance_norm(_scaled(grey, min(1.0, _CONTENT_SIDE / min(image.shape[2:]))), eps=1e-4)

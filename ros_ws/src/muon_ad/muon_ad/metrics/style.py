"""How well a style network does, judged by a network it was not trained against (SqueezeNet 1.0).

Style distance: how far textures and palette are from the style image. Sliced Wasserstein: the
same by whole distributions of features, where style distance sees second moments only. Content
distance: how far what is where is from the photograph. Flicker: how much the answer changes,
beyond moving along, when the camera moves by one pixel. All are better when smaller, and those of
style trade with that of content. Similarity (SSIM) is of structure in pixels, better when larger.
"""

from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from skimage.metrics import structural_similarity

from muon_ad.metrics.wasserstein import random_directions
from muon_ad.metrics.wasserstein import sliced_wasserstein

Stylise = Callable[[np.ndarray], np.ndarray]  # uint8 [H, W, 3] RGB to the same
STYLE_LAYERS = ('conv1', 'f3', 'f5', 'f8')
CONTENT_LAYER = 'f8'
_MEAN_BGR = (104.0, 117.0, 123.0)
_DIRECTIONS = 128   # the distance of two images varies by about one per cent with their choice


class JudgeError(ValueError):
    """The weights of the judging network are missing or are something else."""


class Judge:
    """SqueezeNet 1.0 (arXiv:1602.07360) as a feature extractor.

    Its weights are plain arrays `conv1.{w,b}`, `f2..f9.{s,e1,e3}.{w,b}` for BGR input in 0..255
    less the ImageNet means, as in songhan/SqueezeNet_compressed.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._weights = {name: torch.from_numpy(np.asarray(value, np.float32))
                         for name, value in weights.items()}

    @classmethod
    def load(cls, path: Path) -> 'Judge':
        """Read the weights from an .npz file; raises JudgeError where it is missing or another."""
        if not path.is_file():
            raise JudgeError(f'{path}: no such file; expected SqueezeNet 1.0 as .npz arrays')
        with np.load(path) as arrays:
            missing = {'conv1.w', 'f2.s.w', 'f9.e3.b'} - set(arrays.files)
            if missing:
                raise JudgeError(f'{path}: holds no {sorted(missing)}; expected SqueezeNet 1.0')
            return cls(dict(arrays))

    @torch.no_grad()
    def features(self, image: np.ndarray) -> dict[str, torch.Tensor]:
        """uint8 [H, W, 3] RGB, at least 64 pixels a side -> {layer: float32 [C, h, w]}."""
        x = torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)[None].float()
        x = x - torch.tensor(_MEAN_BGR)[None, :, None, None]
        x = F.relu(self._conv(x, 'conv1', stride=2))
        found = {'conv1': x[0]}
        for index in range(2, 10):
            if index in (2, 5, 9):
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            name = f'f{index}'
            squeezed = F.relu(self._conv(x, f'{name}.s'))
            x = F.relu(torch.cat([self._conv(squeezed, f'{name}.e1'),
                                  self._conv(squeezed, f'{name}.e3', padding=1)], dim=1))
            found[name] = x[0]
        return found

    def _conv(self, x: torch.Tensor, name: str, stride: int = 1, padding: int = 0) -> torch.Tensor:
        weights = self._weights
        return F.conv2d(x, weights[f'{name}.w'], weights[f'{name}.b'], stride, padding)

    def style_distance(self, image: np.ndarray, style: np.ndarray) -> float:
        """Relative distance of the Gram matrices, averaged over STYLE_LAYERS; 0 is equal."""
        found, wanted = self.features(image), self.features(style)
        parts = [_relative(_gram(found[name]), _gram(wanted[name])) for name in STYLE_LAYERS]
        return float(np.mean(parts))

    def sliced_wasserstein(self, image: np.ndarray, style: np.ndarray, seed: int = 0) -> float:
        """Sliced Wasserstein-1 distance of the features, averaged over STYLE_LAYERS; 0 is equal.

        Each layer's is relative to how far the style's own features lie from their mean, on
        average, along the same directions (drawn from `seed`).
        """
        generator = torch.Generator().manual_seed(seed)
        found, wanted = self.features(image), self.features(style)
        parts = []
        for name in STYLE_LAYERS:
            ours, theirs = found[name].flatten(1).T, wanted[name].flatten(1).T
            directions = random_directions(ours.shape[1], _DIRECTIONS, generator)
            spread = ((theirs - theirs.mean(0)) @ directions).abs().mean().clamp_min(1e-12)
            parts.append(float(sliced_wasserstein(ours, theirs, directions) / spread))
        return float(np.mean(parts))

    def content_distance(self, image: np.ndarray, photo: np.ndarray) -> float:
        """Distance of the normalised features at CONTENT_LAYER: 0 equal, about 1.4 unrelated."""
        found, wanted = (F.instance_norm(self.features(x)[CONTENT_LAYER][None])
                         for x in (image, photo))
        return float((found - wanted).square().mean().sqrt())


def similarity(image: np.ndarray, photo: np.ndarray) -> float:
    """Structural similarity (SSIM) of two uint8 [H, W, 3] images: 1 is equal, 0 is unrelated."""
    return float(structural_similarity(image, photo, channel_axis=2, data_range=255))


def _gram(x: torch.Tensor) -> torch.Tensor:
    flat = x.flatten(1)
    return flat @ flat.T / flat.shape[1]


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-12))


def flicker(stylise: Stylise, photo: np.ndarray) -> float:
    """Mean change of the answer, in grey levels, when the scene moves by one pixel to the left.

    `photo` is uint8 [H, W + 1, 3] with W and H such as `stylise` takes. 0 would be an answer that
    moves with the scene; a constant answer also scores 0, so read it beside the distances.
    """
    first = stylise(np.ascontiguousarray(photo[:, :-1])).astype(np.float32)
    second = stylise(np.ascontiguousarray(photo[:, 1:])).astype(np.float32)
    return float(np.abs(first[:, 1:] - second[:, :-1]).mean())

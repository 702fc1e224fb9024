"""WCT: the covariance of the style's features on the content's, from coarse features to fine.

Li et al., "Universal style transfer via feature transforms" (arXiv:1705.08086), section 3.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from muon_ad.distill.baselines.picture import from_picture
from muon_ad.distill.baselines.picture import to_picture
from muon_ad.networks.vgg import Codec
from muon_ad.networks.vgg import LEVELS

# Of the largest eigenvalue: in directions below it the features say nothing but rounding.
_NEGLIGIBLE = 1e-5


def whiten_and_colour(content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """Return `content` [C, N] with the mean and covariance of `style` [C, M]; both float64.

    Equations 1 and 2. Directions in which the content hardly varies stay empty, so that the
    covariance is the style's as far as the content has the directions.
    """
    centred = content - content.mean(dim=1, keepdim=True)
    mean = style.mean(dim=1, keepdim=True)
    return _power(style - mean, 0.5) @ (_power(centred, -0.5) @ centred) + mean


def _power(centred: torch.Tensor, exponent: float) -> torch.Tensor:
    """Return the covariance of centred points [C, N] to a power, on the directions they have."""
    values, vectors = torch.linalg.eigh(centred @ centred.T / centred.shape[1])
    kept = values > _NEGLIGIBLE * values[-1]
    return vectors[:, kept] * values[kept] ** exponent @ vectors[:, kept].T


@dataclass(frozen=True)
class WCT:
    """Whitening and colouring at relu5_1 to relu1_1 of the distilled VGG-19, one after another.

    `strength` from 0 (content) to 1 blends features at every level, as the paper's alpha (0.6).
    """

    codecs: tuple[Codec, ...]
    strength: float = 0.6
    name: str = 'wct'

    @classmethod
    def load(cls, weights: Path, **options: float) -> 'WCT':
        """Read the weights of all levels from a folder. Raises CodecError."""
        return cls(tuple(Codec.load(weights, level) for level in LEVELS[::-1]), **options)

    def __call__(self, content: np.ndarray, style: np.ndarray) -> np.ndarray:
        """Stylise: see Stylizer."""
        image, pattern = from_picture('content', content), from_picture('style', style)
        for codec in self.codecs:
            features, wanted = codec.encode(image), codec.encode(pattern)
            # The smallest eigenvalues, whose roots are divided by, need the precision.
            coloured = whiten_and_colour(features[0].flatten(1).double(),
                                         wanted[0].flatten(1).double())
            mixed = torch.lerp(features, coloured.float().view_as(features), self.strength)
            image = codec.decode(mixed, content.shape[:2])
        return to_picture(image)

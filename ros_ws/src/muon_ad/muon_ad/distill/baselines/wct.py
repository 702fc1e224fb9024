"""WCT: the covariance of the style's features on the content's, from coarse features to fine.

Li et al., "Universal style transfer via feature transforms" (arXiv:1705.08086), section 3.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from muon_ad.distill.baselines.picture import from_picture
from muon_ad.distill.baselines.picture import to_picture
from muon_ad.distill.statistics import whiten_and_colour
from muon_ad.networks.vgg import Codec
from muon_ad.networks.vgg import LEVELS


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

"""AdaIN: the mean and spread of each feature of the style, on the content's features.

Huang and Belongie, "Arbitrary style transfer in real-time with adaptive instance normalization"
(arXiv:1703.06868), equation 8.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from muon_ad.distill.baselines.picture import from_picture
from muon_ad.distill.baselines.picture import to_picture
from muon_ad.distill.statistics import align_statistics
from muon_ad.networks.vgg import Codec

LEVEL = 4


@dataclass(frozen=True)
class AdaIN:
    """AdaIN at relu4_1 of the distilled VGG-19.

    The decoder is the one for reconstruction that WCT uses: the paper's was trained on stylised
    features, against content and style loss. `strength` from 0 (content) to 1 blends features.
    """

    codec: Codec
    strength: float = 1.0
    name: str = 'adain'

    @classmethod
    def load(cls, weights: Path, **options: float) -> 'AdaIN':
        """Read the weights from a folder. Raises CodecError."""
        return cls(Codec.load(weights, LEVEL), **options)

    def __call__(self, content: np.ndarray, style: np.ndarray) -> np.ndarray:
        """Stylise: see Stylizer."""
        image = from_picture('content', content)
        features = self.codec.encode(image)
        aligned = align_statistics(features, self.codec.encode(from_picture('style', style)))
        mixed = torch.lerp(features, aligned, self.strength)
        return to_picture(self.codec.decode(mixed, content.shape[:2]))

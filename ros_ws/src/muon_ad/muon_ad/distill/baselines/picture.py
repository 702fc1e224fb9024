"""One picture in and out of the baselines; pixels.py does the work."""

import numpy as np
import torch

from muon_ad.distill.pixels import as_batch
from muon_ad.distill.pixels import to_pixels
from muon_ad.distill.pixels import to_tensor
from muon_ad.images import ImageError

SMALLEST = 32       # five levels of VGG, and reflection at the deepest, take this much


def from_picture(name: str, picture: np.ndarray) -> torch.Tensor:
    """uint8 [H, W, 3] RGB -> float32 [1, 3, H, W] in 0..1.

    Raises ImageError for what is no such picture, or is below 32 pixels a side.
    """
    batch = as_batch(name, picture)
    if picture.ndim != 3 or min(picture.shape[:2]) < SMALLEST:
        raise ImageError(f'{name} is {list(picture.shape)}; expected one picture [H, W, 3] with '
                         f'{SMALLEST} pixels a side or more')
    return to_tensor(batch, torch.device('cpu'))


def to_picture(image: torch.Tensor) -> np.ndarray:
    """[1, 3, H, W], clipped to 0..1 -> uint8 [H, W, 3] RGB."""
    return to_pixels(image.detach())[0]

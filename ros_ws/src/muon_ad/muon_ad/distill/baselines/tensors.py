"""Between pictures, uint8 [H, W, 3] RGB, and tensors, float32 [1, 3, H, W] in 0..1."""

import numpy as np
import torch

from muon_ad.images import ImageError

SMALLEST = 32       # five levels of VGG, and reflection at the deepest, take this much


def to_tensor(picture: np.ndarray, name: str) -> torch.Tensor:
    """Return a picture as a tensor. Raises ImageError for what is none or is below 32 pixels."""
    good = (isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3
            and picture.shape[2] == 3 and min(picture.shape[:2]) >= SMALLEST)
    if not good:
        what = f'{picture.dtype} {picture.shape}' if isinstance(picture, np.ndarray) else \
            type(picture).__name__
        raise ImageError(f'{name} is {what}; expected uint8 (height, width, 3), {SMALLEST} pixels '
                         'a side or more')
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255


def to_picture(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor, clipped to 0..1, as a picture."""
    levels = tensor.detach()[0].permute(1, 2, 0).float().clamp(0, 1) * 255
    return levels.round().to(torch.uint8).cpu().numpy()

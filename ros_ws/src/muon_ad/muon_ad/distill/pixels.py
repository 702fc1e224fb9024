"""Pictures in and out: their checks, the size that is worked at, and tensors of them."""

import math

import cv2
import numpy as np
import torch

from muon_ad.images import ImageError
from muon_ad.images import MAX_SIDE


def as_batch(name: str, pictures: np.ndarray) -> np.ndarray:
    """Return [N, H, W, 3] of one picture [H, W, 3] or of several. Raises ImageError for others.

    `name` is what an error calls them.
    """
    batch = pictures[None] if pictures.ndim == 3 else pictures
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3 or not batch.size:
        raise ImageError(f'{name} is {pictures.dtype} {list(pictures.shape)}; expected uint8 RGB, '
                         '[H, W, 3] or [N, H, W, 3]')
    if max(batch.shape[1:3]) > MAX_SIDE:
        raise ImageError(f'{name} is {batch.shape[2]}x{batch.shape[1]}; expected up to {MAX_SIDE} '
                         'pixels a side')
    return batch


def bounded_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Return the sides of a picture of this aspect with at most size * size pixels.

    A smaller picture keeps its own: enlarging would cost time and add nothing.
    """
    scale = min(1.0, size / math.sqrt(height * width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def working_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    """Return the nearest sides that `multiple` divides, at least one multiple each."""
    return tuple(max(1, round(side / multiple)) * multiple for side in (height, width))


def resized(batch: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 [N, H, W, 3]: by area where it shrinks, else by cubic interpolation."""
    if batch.shape[1:3] == (height, width):
        return batch
    smaller = height * width < batch.shape[1] * batch.shape[2]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.stack([cv2.resize(one, (width, height), interpolation=method) for one in batch])


def to_tensor(batch: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in 0..1."""
    tensor = torch.from_numpy(np.ascontiguousarray(batch)).to(device)
    return tensor.permute(0, 3, 1, 2).float() / 255


def to_pixels(images: torch.Tensor) -> np.ndarray:
    """[N, 3, H, W] in 0..1 -> uint8 [N, H, W, 3]."""
    return (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()

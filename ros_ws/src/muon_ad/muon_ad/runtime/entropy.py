"""How much there is to see in a frame, or a region of it, as one number."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAMPLES = 96            # pixels a side that are looked at, at most
GREY_WIDTH = 8          # of a class of grey levels; what is finer is mostly noise
STEP_WIDTH = 16         # of a class of differences; the middle one counts as none


class RegionError(ValueError):
    """A region of interest cannot be used; the message says what it is and what was expected."""


@dataclass(frozen=True)
class Region:
    """A rectangle of a frame: in pixels, or in shares of its sides where `relative`."""

    x: float
    y: float
    width: float
    height: float
    relative: bool = False

    @classmethod
    def parse(cls, values: Sequence[float]) -> 'Region | None':
        """Return the region of [x, y, width, height], relative where none is above 1.

        None for an empty list: the whole frame. Raises RegionError for other than four numbers,
        negative ones, and an empty rectangle.
        """
        if not len(values):
            return None
        good = len(values) == 4 and all(0 <= value < float('inf') for value in values)
        if not good or not (values[2] > 0 and values[3] > 0):
            raise RegionError(
                f'{list(values)}; expected [] or [x, y, width, height], in pixels or, none above '
                '1, in shares of the frame; none negative, width and height above 0'
            )
        return cls(*map(float, values), relative=max(values) <= 1)

    def __str__(self) -> str:
        return f'[{self.x:g}, {self.y:g}, {self.width:g}, {self.height:g}]'

    def of(self, frame: np.ndarray) -> np.ndarray:
        """Return the part of a frame [H, W, ...] inside the region, a view; may be empty."""
        height, width = frame.shape[:2]
        scale_x, scale_y = (width, height) if self.relative else (1, 1)
        left, right = (round(x * scale_x) for x in (self.x, self.x + self.width))
        top, bottom = (round(y * scale_y) for y in (self.y, self.y + self.height))
        return frame[top:bottom, left:right]


def scene_entropy(rgb: np.ndarray) -> float:
    """Return how much there is to see in a frame, uint8 [H, W, 3], from 0 (blank) to 1 (noise).

    The mean of two entropies, of grey levels and of their differences to the right and below, over
    the largest that they can have: the first alone takes a smooth shade for detail, the second one
    black line for none. Of at most SAMPLES pixels a side, green standing for grey; noise of a
    few grey levels is not seen. Raises ValueError for a frame without pixels.
    """
    if 0 in rgb.shape:
        raise ValueError(f'frame has shape {rgb.shape}; expected at least one pixel')
    every = -(-max(rgb.shape[:2]) // SAMPLES)
    grey = rgb[::every, ::every, 1].astype(np.int16)
    right, below = grey[:, 1:] - grey[:, :-1], grey[1:] - grey[:-1]
    steps = np.concatenate([right.ravel(), below.ravel()])
    return 0.5 * (
        _entropy(grey.ravel() // GREY_WIDTH, 256 // GREY_WIDTH)
        + _entropy((steps + 256 + STEP_WIDTH // 2) // STEP_WIDTH, 512 // STEP_WIDTH + 1)
    )


def _entropy(classes: np.ndarray, number: int) -> float:
    """Return the entropy of values from 0 to `number`, exclusive, over the largest possible."""
    counts = np.bincount(classes, minlength=number)
    shares = counts[counts > 0] / max(1, classes.size)
    return abs(float((shares * np.log2(shares)).sum())) / np.log2(number)

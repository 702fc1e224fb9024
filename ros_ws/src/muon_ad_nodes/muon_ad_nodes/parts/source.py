"""What the sources of frames for the CSI camera node have in common.

A source is a class with a few methods and no base class:

- `read(stopping, timeout_s)` waits for the next Frame, or returns None where none came in time or
  `stopping` was set. Raises FrameError for a frame that must be skipped, EndOfInput after the last
  one, SourceError where the camera is gone.
- `calibration()` returns what the source itself knows of its camera, or None.
- `close()` lets go of the device or file.

Live sources deliver what the camera sees now and lose what nobody fetched; files deliver every
frame, at their own pace or slower, never faster.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

DEFAULT_FPS = 30.0


class SourceError(RuntimeError):
    """A source cannot be used: what was asked for, what is there, and what to do."""


class FrameError(RuntimeError):
    """One frame cannot be used; the next may be. Names the frame and what is wrong with it."""


class EndOfInput(Exception):
    """The source has no further frame. The text says how it ended, for people."""


@dataclass(frozen=True)
class Frame:
    """A picture, RGB uint8 [H, W, 3], and when it was taken, in ns of the node's clock."""

    rgb: np.ndarray
    stamp_ns: int


@dataclass(frozen=True)
class Request:
    """What is asked of a source; zeros leave the choice to it. `now_ns` is the node's clock.

    With only one of `width` and `height` given, the other follows from the source's aspect ratio.
    """

    now_ns: Callable[[], int]
    width: int = 0
    height: int = 0
    fps: float = 0.0
    loop: bool = False

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """Return the size in which a frame of `width` x `height` is to be delivered."""
        if self.width and self.height:
            return self.width, self.height
        if self.width:
            return self.width, max(round(height * self.width / width), 1)
        if self.height:
            return max(round(width * self.height / height), 1), self.height
        return width, height

    def fit(self, frame: np.ndarray) -> np.ndarray:
        """Return the frame, uint8 [H, W, 3], in the size asked for."""
        height, width = frame.shape[:2]
        size = self.size_for(width, height)
        if size == (width, height):
            return frame
        shrinks = size[0] * size[1] < width * height
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(frame, size, interpolation=how)

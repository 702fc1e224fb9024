"""What the sources of frames for the camera nodes have in common.

A source is a class with a few methods and no base class:

- `read(stopping, timeout_s)` waits for the next Frame, or returns None where none came in time or
  `stopping` was set. Raises FrameError for a frame that must be skipped, EndOfInput after the last
  one, SourceError where the camera is gone.
- `calibration(stream)` returns what the source itself knows of the camera behind a stream, or
  None. It may become known with the first frame, and change when the source is opened again.
- `close()` lets go of the device or file.

Live sources deliver what the camera sees now and lose what nobody fetched; files deliver every
frame, at their own pace or slower, never faster.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from muon_ad_nodes.parts.calibration import Calibration

DEFAULT_FPS = 30.0

Metadata = dict[str, int | float | str]


class SourceError(RuntimeError):
    """A source cannot be used: what was asked for, what is there, and what to do."""


class FrameError(RuntimeError):
    """One frame cannot be used; the next may be. Names the frame and what is wrong with it."""


class EndOfInput(Exception):
    """The source has no further frame. The text says how it ended, for people."""


@dataclass(frozen=True)
class Picture:
    """What one stream shows in a frame.

    `pixels` makes the array of `encoding` (rgb8: uint8 [H, W, 3], 16UC1: uint16 [H, W] in
    millimetres), `size` is its width and height. `metadata` gives what the camera tells of this
    picture, under the names of realsense-ros. Both are called only when someone wants them.
    """

    encoding: str
    pixels: Callable[[], np.ndarray]
    size: tuple[int, int]
    metadata: Callable[[], Metadata] = dict


@dataclass(frozen=True)
class Frame:
    """What a camera took at one moment.

    `pictures` are named by stream: 'color', 'depth' and 'aligned', or 'image' of a camera with
    one stream. `arrival_ns` is when the frame came in, in the node's clock, and `number` the
    source's own count. `device_ns` is when it was taken, in the clock that `domain` names as
    RealSense does: 'system_time' and 'global_time' are the clock of this machine,
    'hardware_clock' is one of the device, which may wrap; None: nobody but the node took a time.
    """

    pictures: dict[str, Picture]
    arrival_ns: int
    number: int
    domain: str = 'system_time'
    device_ns: int | None = None


class Source(Protocol):
    """Where frames come from; see the head of this file."""

    def read(self, stopping: threading.Event, timeout_s: float) -> Frame | None:
        """Return the next frame, or None where none came in time."""

    def calibration(self, stream: str) -> Calibration | None:
        """Return what the source knows of the camera behind a stream."""

    def close(self) -> None:
        """Let go of the device or file."""


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

    def frame(
        self, pixels: np.ndarray, arrival_ns: int, number: int, device_ns: int | None = None
    ) -> Frame:
        """Return the frame of a camera with one stream, from BGR or BGRX pixels uint8 [H, W, C].

        With `device_ns`, the time at which the driver says that it was taken.
        """
        code = cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
        size = self.size_for(pixels.shape[1], pixels.shape[0])
        picture = Picture('rgb8', lambda: self.fit(cv2.cvtColor(pixels, code)), size)
        domain = 'system_time' if device_ns is None else 'hardware_clock'
        return Frame({'image': picture}, arrival_ns, number, domain, device_ns)

    def fit(self, frame: np.ndarray) -> np.ndarray:
        """Return the frame, uint8 [H, W, 3], in the size asked for."""
        height, width = frame.shape[:2]
        size = self.size_for(width, height)
        if size == (width, height):
            return frame
        shrinks = size[0] * size[1] < width * height
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(frame, size, interpolation=how)

"""Frames from a video file or a folder of images: every one of them, at most at their pace."""

import threading
import time
from pathlib import Path

import cv2
import numpy as np

from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.pacing import Pacer
from muon_ad_nodes.parts.source import DEFAULT_FPS
from muon_ad_nodes.parts.source import EndOfInput
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import FrameError
from muon_ad_nodes.parts.source import Request
from muon_ad_nodes.parts.source import SourceError

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
# Containers miscount their frames by a few; a smaller share than this means a damaged file.
WHOLE_SHARE = 0.98


class VideoSource:
    """A video file, at `request.fps` or else its own rate."""

    def __init__(self, path: Path, request: Request) -> None:
        _check_video(path)
        self._path = path
        self._request = request
        self._open()
        own = self._capture.get(cv2.CAP_PROP_FPS)
        self._pacer = Pacer(request.fps or (own if 0 < own <= 1000 else DEFAULT_FPS), skip=False)

    def read(self, stopping: threading.Event, timeout_s: float) -> Frame | None:
        """Return the next frame when it is due."""
        if not self._pacer.wait(stopping, time.monotonic() + timeout_s):
            return None
        arrival_ns = self._request.now_ns()
        bgr = self._next
        if bgr is None:
            self._end()
            return None
        self._delivered += 1
        self._next = self._decode()
        return self._request.frame(bgr, arrival_ns, self._delivered - 1)

    def calibration(self, _stream: str) -> Calibration | None:
        """Return None: a file does not know its camera."""
        return None

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def _open(self) -> None:
        self._capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        self._promised = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._delivered = 0
        self._next = self._decode()
        if self._next is None:
            self.close()
            raise SourceError(
                f'{self._path}: no frame can be decoded; expected a video file that FFmpeg reads '
                '(one that was cut off while it was written may lack its index)'
            )

    def _decode(self) -> np.ndarray | None:
        good, frame = self._capture.read()
        return frame if good else None

    def _end(self) -> None:
        """Start over or raise EndOfInput; a file that ends early is told of either way."""
        damaged = self._delivered < WHOLE_SHARE * self._promised
        count = f'{self._delivered} frames'
        if damaged:
            count = (
                f'frame {self._delivered} of the {self._promised} that the file announces; '
                'the rest cannot be decoded'
            )
        self.close()
        if not self._request.loop:
            raise EndOfInput(f'end of input after {count}')
        self._open()
        if damaged:
            raise FrameError(f'{self._path} starts over after {count}')


class FolderSource:
    """The images of a folder in the order of their names, at `request.fps` (30 where it is 0)."""

    def __init__(self, path: Path, request: Request) -> None:
        if not path.is_dir():
            raise SourceError(
                f'parameter path is {str(path)!r}, which is '
                f'{"a file" if path.exists() else "not there"}; expected a folder of images'
            )
        self._paths = sorted(
            entry for entry in path.iterdir()
            if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()
        )
        if not self._paths:
            raise SourceError(
                f'{path}: no images in this folder; expected names ending in '
                f'{", ".join(IMAGE_SUFFIXES)}'
            )
        if all(_read_image(image) is None for image in self._paths):
            raise SourceError(f'{path}: none of its {len(self._paths)} images can be decoded')
        self._request = request
        self._index = 0
        self._pacer = Pacer(request.fps or DEFAULT_FPS, skip=False)

    def read(self, stopping: threading.Event, timeout_s: float) -> Frame | None:
        """Return the next image when it is due."""
        if not self._pacer.wait(stopping, time.monotonic() + timeout_s):
            return None
        if self._index == len(self._paths):
            if not self._request.loop:
                raise EndOfInput(f'end of input after {self._index} images')
            self._index = 0
        arrival_ns = self._request.now_ns()
        path = self._paths[self._index]
        self._index += 1
        image = _read_image(path)
        if image is None:
            raise FrameError(f'{path}: not decodable as an image')
        return self._request.frame(image, arrival_ns, self._index - 1)

    def calibration(self, _stream: str) -> Calibration | None:
        """Return None: a folder does not know its camera."""
        return None

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _check_video(path: Path) -> None:
    if path.is_dir():
        raise SourceError(
            f'parameter path is {str(path)!r}, which is a folder; expected a video file (for a '
            'folder of images set source to folder)'
        )
    if not path.exists():
        raise SourceError(
            f'parameter path is {str(path)!r}, which is not there; expected a video file'
        )
    if path.stat().st_size == 0:
        raise SourceError(f'{path}: the file is empty (0 bytes); expected a video file')


def _read_image(path: Path) -> np.ndarray | None:
    """Return the image as BGR uint8 [H, W, 3], or None where it is none."""
    try:
        return cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error:       # a header that promises more pixels than OpenCV takes
        return None

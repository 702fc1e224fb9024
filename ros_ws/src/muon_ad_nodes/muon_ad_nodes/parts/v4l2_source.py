"""Frames from a video device of Linux: a USB webcam, or a camera with a kernel driver."""

import os
import stat
import threading
from pathlib import Path

import cv2

from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import Request
from muon_ad_nodes.parts.source import SourceError

# Raw video beyond this size does not fit through USB 2 at 30 frames a second.
RAW_PIXELS = 640 * 480
RETRY_S = 0.1


class V4l2Source:
    """A video device, by path or number. Live."""

    def __init__(self, device: str, request: Request) -> None:
        self._path = device_path(device)
        self._request = request
        self._number = 0
        _check_device(self._path, device)
        # Instead of 10 s, so that a camera that fell silent does not hold up deactivation.
        os.environ.setdefault('OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT', '1')
        self._capture = cv2.VideoCapture(str(self._path), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceError(
                f'{self._path}: cannot be opened for capture; it may be in use, be no camera, or '
                'need membership in the group video'
            )
        if request.width * request.height > RAW_PIXELS:
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*'MJPG'))
        wishes = (
            (cv2.CAP_PROP_FRAME_WIDTH, request.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, request.height),
            (cv2.CAP_PROP_FPS, request.fps),
        )
        for setting, value in wishes:
            if value:
                self._capture.set(setting, value)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def read(self, stopping: threading.Event, _timeout_s: float) -> Frame | None:
        """Return the next frame; the driver waits up to a second for it."""
        good, bgr = self._capture.read()
        if good:
            arrival_ns = self._request.now_ns()
            # When the driver had the frame, in a clock that does not jump; 0: it does not tell.
            taken_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
            device_ns = round(taken_ms * 1e6) if taken_ms > 0 else None
            self._number += 1
            return self._request.frame(bgr, arrival_ns, self._number - 1, device_ns)
        if not is_device(self._path):
            raise SourceError(f'{self._path}: the device is gone; was it unplugged?')
        stopping.wait(RETRY_S)
        return None

    def calibration(self, _stream: str) -> Calibration | None:
        """Return None: the device does not know its lens."""
        return None

    def close(self) -> None:
        """Let go of the device."""
        self._capture.release()


def device_path(device: str) -> Path:
    """Return the path of a device that is given by path or number."""
    return Path(f'/dev/video{device}' if device.isdigit() else device)


def is_device(path: Path) -> bool:
    """Whether a device is there."""
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:     # also where it goes while it is looked at
        return False


def _check_device(path: Path, asked: str) -> None:
    if is_device(path):
        return
    there = sorted(str(found) for found in Path('/dev').glob('video*'))
    raise SourceError(
        f'parameter device is {asked!r}, but {path} is '
        f'{"not a device" if path.exists() else "not there"}; '
        f'video devices on this machine: {", ".join(there) or "none"}'
    )

"""What is known around an image: aligned depth of its moment, and the camera's calibration.

Takes messages by their fields, as muon_ad.images does, so that the detector node and the replay
of bags pair alike.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from muon_ad.images import DEPTH_ENCODINGS
from muon_ad.images import ImageMessage
from muon_ad.images import to_array
from muon_ad.runtime.detection import Detections
from muon_ad.runtime.positions import DepthError
from muon_ad.runtime.positions import Intrinsics
from muon_ad.runtime.positions import locate
from muon_ad.runtime.positions import Position
from muon_ad.stamps import nanoseconds

# Depth frames kept for pairing: a detector that is a few frames behind still finds its own.
KEPT_FRAMES = 8


@dataclass(frozen=True)
class Surroundings:
    """Depth [H, W] (uint16 mm or float32 m), and the camera at the size of the image."""

    depth: np.ndarray
    camera: Intrinsics


class DepthPairing:
    """The newest depth images and the calibration of one camera, to be found again by stamp."""

    def __init__(self, kept: int = KEPT_FRAMES) -> None:
        self.depths: deque[ImageMessage] = deque(maxlen=kept)
        self.camera_info: object | None = None      # the newest sensor_msgs/CameraInfo

    def clear(self) -> None:
        """Forget the depth images; the calibration stays."""
        self.depths.clear()

    def around(self, image: ImageMessage, tolerance_ms: float) -> Surroundings | None:
        """Return what belongs to `image`; None where depth or calibration are not there.

        The depth is the nearest by stamp, at most `tolerance_ms` away. Raises ImageError or
        DepthError where depth or calibration are there, and cannot be used.
        """
        depth = self.depth_of(nanoseconds(image.header.stamp), tolerance_ms)
        info = self.camera_info
        if depth is None or info is None or _matrix(info)[0] == 0.0:
            return None
        return Surroundings(to_array(depth, DEPTH_ENCODINGS), camera_of(info, image))

    def depth_of(self, stamp_ns: int, tolerance_ms: float) -> ImageMessage | None:
        """Return the depth image nearest to a stamp, if it is near enough."""
        def apart(depth: ImageMessage) -> int:
            return abs(nanoseconds(depth.header.stamp) - stamp_ns)

        nearest = min(tuple(self.depths), key=apart, default=None)
        if nearest is None or apart(nearest) > tolerance_ms * 1e6:
            return None
        return nearest


def camera_of(info: object, image: ImageMessage) -> Intrinsics:
    """Return the intrinsics for the image's size; K belongs to the calibrated one (REP-104).

    Raises DepthError for a calibration without size or focal length.
    """
    if not (info.width and info.height):
        raise DepthError(f'camera_info has size {info.width}x{info.height}; expected above 0')
    camera = Intrinsics.from_matrix(_matrix(info))
    x, y = image.width / info.width, image.height / info.height
    return Intrinsics(camera.fx * x, camera.fy * y, camera.cx * x, camera.cy * y)


def locate_all(
    found: Detections, size: tuple[int, int], around: Surroundings | None
) -> list[Position]:
    """Locate every detection of an image of `size` (width, height); invalid without depth.

    Raises DepthError as `locate` does.
    """
    if around is None:
        return [Position(valid=False)] * len(found)
    return [locate(around.depth, box, size, around.camera) for box in found.boxes]


def _matrix(info: object) -> np.ndarray:
    """Return K; ROS 1 writes the name in capitals."""
    return info.k if hasattr(info, 'k') else info.K

"""The rendered scene as a camera: works anywhere, and shows every lost frame."""

import threading
import time

import numpy as np

from muon_ad.scene import Scene
from muon_ad.scene import View
from muon_ad.test_pattern import draw_strip
from muon_ad.test_pattern import MIN_WIDTH
from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.pacing import Pacer
from muon_ad_nodes.parts.source import DEFAULT_FPS
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import Picture
from muon_ad_nodes.parts.source import Request
from muon_ad_nodes.parts.source import SourceError

SIZE = (640, 480)
MIN_HEIGHT = 32
IMX219_FOV_DEG = 62.2
# Beside and above the RealSense, so that their pictures differ as on a robot.
POSITION = (0.06, -0.08, 0.0)


class PatternSource:
    """The scene seen by a second camera, with colour bars and a frame number. Live.

    A frame shows the scene at the time of its stamp.
    """

    def __init__(self, request: Request) -> None:
        size = request.size_for(*SIZE)
        if size[0] < MIN_WIDTH or size[1] < MIN_HEIGHT:
            raise SourceError(
                f'parameters width and height give {size[0]}x{size[1]}; the test pattern needs at '
                f'least {MIN_WIDTH}x{MIN_HEIGHT}'
            )
        self._size = size
        self._scene = Scene(View.from_fov(*size, IMX219_FOV_DEG, POSITION))
        self._now_ns = request.now_ns
        self._number = 0
        self._scene.rgb(0.0)    # makes the textures now rather than with the first frame
        self._pacer = Pacer(request.fps or DEFAULT_FPS, skip=True)

    def read(self, stopping: threading.Event, timeout_s: float) -> Frame | None:
        """Return the next frame when it is due."""
        if not self._pacer.wait(stopping, time.monotonic() + timeout_s):
            return None
        stamp_ns = self._now_ns()
        number = self._number
        self._number += 1
        picture = Picture('rgb8', lambda: self._draw(stamp_ns, number), self._size)
        return Frame({'image': picture}, stamp_ns, number)

    def calibration(self, _stream: str) -> Calibration | None:
        """Return the calibration of the rendering camera."""
        view = self._scene.view
        return Calibration.pinhole(
            (view.width, view.height), (view.fx, view.fy), (view.cx, view.cy)
        )

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def _draw(self, stamp_ns: int, number: int) -> np.ndarray:
        rgb = self._scene.rgb(stamp_ns * 1e-9)
        draw_strip(rgb, number)
        return rgb

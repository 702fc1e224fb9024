"""A RealSense camera that Intel's SDK simulates: its software device, fed with the scene."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from muon_ad.scene import Scene
from muon_ad.scene import View
from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.pacing import Pacer
from muon_ad_nodes.parts.realsense_frames import Framer
from muon_ad_nodes.parts.realsense_sdk import DEPTH_UNIT_M
from muon_ad_nodes.parts.realsense_sdk import Profile
from muon_ad_nodes.parts.realsense_sdk import require_sdk
from muon_ad_nodes.parts.realsense_sdk import rs
from muon_ad_nodes.parts.realsense_sdk import Wishes
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import SourceError

# D415: fields of view as the lenses have them (the colour camera's at 4:3), and the colour lens
# 15 mm to the right of the left imager, which is the origin of depth.
COLOR_FOV_DEG = 55.0
DEPTH_FOV_DEG = 69.0
BASELINE_M = 0.015
STAMPS_KEPT = 32    # far more frames than the SDK's syncer ever holds


class SimulatedCamera:
    """The SDK's software device, fed with the rendered scene at the frame rate. Live.

    Streams from the first `read` on. `now_ns` gives the node's clock; a frame shows the scene at
    the time of its arrival, so several cameras agree on what they see. To the SDK the camera has
    a clock of its own, as a real one, which ticks evenly: its syncer gives up on streams that come
    late or irregularly. Nobody else sees that clock.
    """

    def __init__(self, wishes: Wishes, framer: Framer, now_ns: Callable[[], int]) -> None:
        """Build the device; SourceError where a wish cannot be met."""
        require_sdk()
        if wishes.color and wishes.depth and wishes.color.fps != wishes.depth.fps:
            raise SourceError(
                f'the simulated camera needs equal frame rates, got color {wishes.color} and '
                f'depth {wishes.depth}'
            )
        self._framer = framer
        self._now_ns = now_ns
        self._fps = (wishes.color or wishes.depth).fps
        self._device = rs.software_device()
        self._device.register_info(rs.camera_info.serial_number, wishes.serial_no or 'simulated')
        self._device.create_matcher(rs.matchers.default)
        self._streams: list[_Stream] = []
        if wishes.depth:
            view = _view(wishes.depth, DEPTH_FOV_DEG, (-BASELINE_M, 0.0, 0.0))
            sensor = self._device.add_sensor('Stereo Module')
            sensor.add_read_only_option(rs.option.depth_units, DEPTH_UNIT_M)
            self._streams.append(_Stream(sensor, view, wishes.depth, rs.stream.depth))
        if wishes.color:
            view = _view(wishes.color, COLOR_FOV_DEG)
            sensor = self._device.add_sensor('RGB Camera')
            self._streams.append(_Stream(sensor, view, wishes.color, rs.stream.color))
        if len(self._streams) == 2:
            self._relate(*self._streams)
        self._syncer: rs.syncer | None = None
        self._pacer: Pacer | None = None
        self._number = 0
        self._stamps: dict[int, int] = {}

    def read(self, stopping: threading.Event, timeout_s: float) -> Frame | None:
        """Return the next frame when it is due."""
        frames = self.take(stopping, timeout_s)
        if frames is None:
            return None
        return self._framer.frame(frames, self._stamps[frames.get_frame_number()], timed=False)

    def take(self, stopping: threading.Event, timeout_s: float) -> rs.composite_frame | None:
        """Render the next frames when they are due, and return what the SDK makes of them."""
        if self._syncer is None:
            self._start()
        if not self._pacer.wait(stopping, time.monotonic() + timeout_s):
            return None
        now_ns = self._now_ns()
        self._stamps[self._number] = now_ns
        self._stamps.pop(self._number - STAMPS_KEPT, None)
        for stream in self._streams:
            stream.push(now_ns, self._number)
        self._number += 1
        arrived, frames = self._syncer.try_wait_for_frames(round(timeout_s * 1e3))
        if not arrived:
            return None
        # What is left over from an incomplete set would delay every later one.
        while (newer := self._syncer.poll_for_frames()).size():
            frames = newer
        return frames

    def calibration(self, stream: str) -> Calibration | None:
        """Return the intrinsics of the rendering camera; None before the first frame."""
        return self._framer.calibrations.get(stream)

    def close(self) -> None:
        """Cease to stream."""
        if self._syncer is not None:
            for stream in self._streams:
                stream.sensor.stop()
                stream.sensor.close()
            self._syncer = None

    def _start(self) -> None:
        self._framer.forget()
        self._syncer = rs.syncer()
        self._pacer = Pacer(self._fps, skip=True)
        for stream in self._streams:
            stream.sensor.open(stream.profile)
            stream.sensor.start(self._syncer)

    def _relate(self, depth: _Stream, color: _Stream) -> None:
        extrinsics = rs.extrinsics()
        extrinsics.rotation = np.eye(3).ravel().tolist()
        offset = np.subtract(depth.scene.view.position, color.scene.view.position)
        extrinsics.translation = offset.tolist()
        depth.profile.register_extrinsics_to(color.profile, extrinsics)


class _Stream:
    """One software sensor with the view of the scene that feeds it."""

    def __init__(
        self, sensor: rs.software_sensor, view: View, profile: Profile, kind: rs.stream
    ) -> None:
        self.sensor = sensor
        self.scene = Scene(view)
        self._is_depth = kind == rs.stream.depth
        stream = rs.video_stream()
        stream.type = kind
        stream.uid = int(kind)
        stream.width, stream.height, stream.fps = profile.width, profile.height, profile.fps
        stream.fmt = rs.format.z16 if self._is_depth else rs.format.rgb8
        self._period_ms = 1000 / profile.fps
        self._bytes = stream.bpp = 2 if self._is_depth else 3
        stream.intrinsics = _intrinsics(view)
        self.profile = sensor.add_video_stream(stream)
        self._render(0.0)   # makes the textures now rather than with the first frame

    def push(self, now_ns: int, number: int) -> None:
        """Render the scene at `now_ns` and hand it to the SDK."""
        frame = rs.software_video_frame()
        frame.pixels = self._render(now_ns * 1e-9)
        if self._is_depth:
            frame.depth_units = DEPTH_UNIT_M
        frame.bpp = self._bytes
        frame.stride = self._bytes * self.scene.view.width
        frame.timestamp = number * self._period_ms
        frame.domain = rs.timestamp_domain.hardware_clock
        frame.frame_number = number
        frame.profile = self.profile.as_video_stream_profile()
        self.sensor.on_video_frame(frame)

    def _render(self, t: float) -> np.ndarray:
        if not self._is_depth:
            return self.scene.rgb(t)
        return np.rint(self.scene.depth(t) / DEPTH_UNIT_M).astype(np.uint16)


def _view(
    profile: Profile, fov_deg: float, position: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> View:
    return View.from_fov(profile.width, profile.height, fov_deg, position)


def _intrinsics(view: View) -> rs.intrinsics:
    intrinsics = rs.intrinsics()
    intrinsics.width, intrinsics.height = view.width, view.height
    intrinsics.fx, intrinsics.fy = view.fx, view.fy
    intrinsics.ppx, intrinsics.ppy = view.cx, view.cy
    intrinsics.model = rs.distortion.brown_conrady
    intrinsics.coeffs = [0.0] * 5
    return intrinsics

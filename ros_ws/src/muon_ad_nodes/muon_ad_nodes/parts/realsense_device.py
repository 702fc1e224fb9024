"""RealSense cameras through Intel's SDK: a connected one, and one that the SDK simulates.

Both deliver the SDK's own framesets, so that everything downstream of them is the same code:
synchronising, aligning and reading intrinsics run with no hardware as they do with it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from muon_ad.scene import Scene
from muon_ad.scene import View
from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.pacing import Pacer

try:
    import pyrealsense2 as rs
except ImportError as error:
    rs = None
    _WHY_NOT = str(error)

# D415: fields of view as the lenses have them (the colour camera's at 4:3), and the colour lens
# 15 mm to the right of the left imager, which is the origin of depth.
COLOR_FOV_DEG = 55.0
DEPTH_FOV_DEG = 69.0
BASELINE_M = 0.015
DEPTH_UNIT_M = 0.001
STAMPS_KEPT = 32    # far more frames than the SDK's syncer ever holds
_DISTORTION = {
    'brown_conrady': 'plumb_bob',
    'inverse_brown_conrady': 'plumb_bob',
    'modified_brown_conrady': 'plumb_bob',
    'none': 'plumb_bob',
    'kannala_brandt4': 'equidistant',
}


class RealSenseError(RuntimeError):
    """A RealSense cannot be used: what was asked for, what is there, and what to do."""


@dataclass(frozen=True)
class Profile:
    """Size in pixels and frames a second of one stream."""

    width: int
    height: int
    fps: int

    @classmethod
    def parse(cls, name: str, text: str) -> Profile:
        """Read `640x480x30`, as realsense-ros writes it; RealSenseError names parameter `name`."""
        found = re.fullmatch(r'(\d{1,5})[x,](\d{1,5})[x,](\d{1,3})', text.replace(' ', ''))
        profile = cls(*map(int, found.groups())) if found else None
        if profile is None or not (profile.width and profile.height and profile.fps):
            raise RealSenseError(
                f'parameter {name} is {text!r}; expected WIDTHxHEIGHTxFPS, such as 640x480x30'
            )
        return profile


@dataclass(frozen=True)
class Wishes:
    """What is asked of a camera; a stream that is None is not started."""

    color: Profile | None
    depth: Profile | None
    serial_no: str = ''
    emitter: int = 1
    auto_exposure: bool = True


@dataclass(frozen=True)
class Extrinsics:
    """Carries a point of the depth camera to the colour camera: rotation 3x3 row by row, and
    translation in metres."""

    rotation: tuple[float, ...]
    translation: tuple[float, float, float]


def require_sdk() -> None:
    """Raise RealSenseError, with what to install, where the SDK cannot be imported."""
    if rs is None:
        raise RealSenseError(
            f'pyrealsense2 cannot be imported ({_WHY_NOT}); run: pip install pyrealsense2, and '
            'install the system package libusb-1.0-0'
        )


def calibration_of(frame: rs.video_frame) -> Calibration:
    """Return the intrinsics that the SDK gives for this frame."""
    found = frame.profile.as_video_stream_profile().get_intrinsics()
    model = _DISTORTION.get(found.model.name)
    if model is None:
        raise RealSenseError(f'distortion model {found.model.name} has no equivalent in ROS')
    count = 4 if model == 'equidistant' else 5
    return Calibration.pinhole(
        (found.width, found.height), (found.fx, found.fy), (found.ppx, found.ppy),
        tuple(found.coeffs[:count]), model,
    )


def depth_to_color(frames: rs.composite_frame) -> Extrinsics:
    """Return the SDK's extrinsics between the two streams of a complete frameset."""
    color = frames.get_color_frame().profile
    found = frames.get_depth_frame().profile.get_extrinsics_to(color)
    # The SDK stores rotations column by column.
    rotation = np.reshape(found.rotation, (3, 3)).T.ravel().tolist()
    return Extrinsics(tuple(rotation), tuple(found.translation))


def millimetres(frame: rs.depth_frame) -> np.ndarray:
    """Return depth as uint16 [H, W] in millimetres; a view of the frame where that is its unit."""
    raw = np.asanyarray(frame.get_data())
    scale = frame.get_units() / DEPTH_UNIT_M
    if abs(scale - 1) < 1e-6:
        return raw
    return np.clip(np.rint(raw * np.float32(scale)), 0, 65535).astype(np.uint16)


class HardwareCamera:
    """A connected camera, by serial number (empty: the only one), through the SDK's pipeline."""

    def __init__(self, wishes: Wishes, now_ns: Callable[[], int], simulated_time: bool) -> None:
        """Find the camera; RealSenseError where it is not there or cannot do what is wished."""
        require_sdk()
        self._wishes = wishes
        self._now_ns = now_ns
        self._simulated_time = simulated_time
        self._context = rs.context()
        self._serial_no = self._find()
        self._pipeline: rs.pipeline | None = None
        if not self._config().can_resolve(rs.pipeline_wrapper(rs.pipeline(self._context))):
            raise RealSenseError(
                f'RealSense {self._serial_no} cannot stream color {wishes.color} with depth '
                f'{wishes.depth} over its present USB connection (USB 2 allows less than USB 3; '
                'rs-enumerate-devices lists the modes)'
            )

    def start(self) -> None:
        """Begin to stream."""
        self._pipeline = rs.pipeline(self._context)
        profile = self._pipeline.start(self._config())
        for sensor in profile.get_device().query_sensors():
            self._set(sensor, rs.option.global_time_enabled, 1)
            if sensor.is_depth_sensor():
                self._set(sensor, rs.option.emitter_enabled, self._wishes.emitter)
            elif sensor.is_color_sensor():
                self._set(sensor, rs.option.enable_auto_exposure, self._wishes.auto_exposure)

    def wait(self, timeout_ms: int) -> rs.composite_frame | None:
        """Return the next frameset, or None where none came in time."""
        arrived, frames = self._pipeline.try_wait_for_frames(timeout_ms)
        return frames if arrived else None

    def stamp_ns(self, frame: rs.frame) -> int:
        """Return when the frame was taken, in nanoseconds of the node's clock.

        The SDK's global and system times are the host's clock. Only the time of arrival is known
        for a frame stamped by the camera's own clock, or while the node runs in simulated time.
        """
        own_clock = frame.get_frame_timestamp_domain() == rs.timestamp_domain.hardware_clock
        if own_clock or self._simulated_time:
            return self._now_ns()
        return round(frame.get_timestamp() * 1e6)

    def stop(self) -> None:
        """Cease to stream."""
        if self._pipeline is not None:
            self._pipeline.stop()
            self._pipeline = None

    def _find(self) -> str:
        found = [
            device.get_info(rs.camera_info.serial_number)
            for device in self._context.query_devices()
            if device.supports(rs.camera_info.serial_number)
        ]
        wanted = self._wishes.serial_no
        if not found:
            raise RealSenseError(
                f'no RealSense is connected{f" (looked for {wanted})" if wanted else ""}; check '
                'the cable and the udev rules, or set source to simulated'
            )
        if wanted and wanted not in found:
            raise RealSenseError(f'parameter serial_no is {wanted!r}; connected are {found}')
        if not wanted and len(found) > 1:
            raise RealSenseError(f'several cameras are connected; set serial_no to one of {found}')
        return wanted or found[0]

    def _config(self) -> rs.config:
        config = rs.config()
        config.enable_device(self._serial_no)
        wishes = (
            (rs.stream.color, rs.format.rgb8, self._wishes.color),
            (rs.stream.depth, rs.format.z16, self._wishes.depth),
        )
        for stream, encoding, profile in wishes:
            if profile is not None:
                config.enable_stream(stream, profile.width, profile.height, encoding, profile.fps)
        return config

    def _set(self, sensor: rs.sensor, option: rs.option, value: float) -> None:
        if sensor.supports(option):
            sensor.set_option(option, value)


class SimulatedCamera:
    """The SDK's software device, fed with the rendered scene at the frame rate.

    `now_ns` gives the node's clock; a frame shows the scene at the time of its stamp, so several
    cameras agree on what they see. To the SDK the camera has a clock of its own, as a real one,
    which ticks evenly: its syncer gives up on streams that come late or irregularly.
    """

    def __init__(self, wishes: Wishes, now_ns: Callable[[], int]) -> None:
        """Build the device; RealSenseError where a wish cannot be met."""
        require_sdk()
        if wishes.color and wishes.depth and wishes.color.fps != wishes.depth.fps:
            raise RealSenseError(
                f'the simulated camera needs equal frame rates, got color {wishes.color} and '
                f'depth {wishes.depth}'
            )
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
        self._stopping = threading.Event()
        self._number = 0
        self._stamps: dict[int, int] = {}

    def start(self) -> None:
        """Begin to stream."""
        self._stamps.clear()
        self._syncer = rs.syncer()
        self._stopping.clear()
        self._pacer = Pacer(self._fps, skip=True)
        for stream in self._streams:
            stream.sensor.open(stream.profile)
            stream.sensor.start(self._syncer)

    def wait(self, timeout_ms: int) -> rs.composite_frame | None:
        """Render the next frames when they are due, and return what the SDK makes of them."""
        deadline = time.monotonic() + timeout_ms * 1e-3
        if not self._pacer.wait(self._stopping, deadline):
            return None
        now_ns = self._now_ns()
        self._stamps[self._number] = now_ns
        self._stamps.pop(self._number - STAMPS_KEPT, None)
        for stream in self._streams:
            stream.push(now_ns, self._number)
        self._number += 1
        try:
            frames = self._syncer.wait_for_frames(timeout_ms)
        except RuntimeError:    # how the SDK says that nothing came in time
            return None
        # What is left over from an incomplete set would delay every later one.
        while (newer := self._syncer.poll_for_frames()).size():
            frames = newer
        return frames

    def stamp_ns(self, frame: rs.frame) -> int:
        """Return when the frame was taken, in nanoseconds of the node's clock."""
        return self._stamps[frame.get_frame_number()]

    def stop(self) -> None:
        """Cease to stream."""
        self._stopping.set()
        if self._syncer is not None:
            for stream in self._streams:
                stream.sensor.stop()
                stream.sensor.close()
            self._syncer = None

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

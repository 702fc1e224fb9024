"""A connected RealSense camera, and the bus on which it comes and goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.realsense_frames import Framer
from muon_ad_nodes.parts.realsense_sdk import Profile
from muon_ad_nodes.parts.realsense_sdk import require_sdk
from muon_ad_nodes.parts.realsense_sdk import rs
from muon_ad_nodes.parts.realsense_sdk import Wishes
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import FrameError
from muon_ad_nodes.parts.source import SourceError

POLL_S = 0.5
# What a D415 gives of colour and depth together on USB 2.
USB2_PROFILE = Profile(640, 480, 15)


class Bus:
    """The cameras that are connected, and the one that was chosen among them.

    The SDK tells of changes, but not of all, so its word only hastens the next look of our own.
    """

    def __init__(self, wanted: str) -> None:
        """Begin to look for the camera with serial number `wanted`; empty: the only one."""
        require_sdk()
        self.context = _context()
        self._wanted = wanted
        self._chosen = wanted
        self._changed = threading.Event()
        self._looked_s = float('-inf')
        self._seen = False
        self.context.set_devices_changed_callback(lambda _event: self._changed.set())

    def choose(self) -> rs.device:
        """Return the camera; SourceError where it is not there, or it is unclear which it is.

        Once a camera was chosen, only that one will do.
        """
        devices = self._devices()
        if not devices:
            raise SourceError(
                f'no RealSense is connected{self._looked_for}; check the cable and the udev '
                'rules, or set source to simulated'
            )
        if self._wanted and self._wanted not in devices:
            raise SourceError(
                f'parameter serial_no is {self._wanted!r}; connected are {sorted(devices)}'
            )
        if not self._chosen and len(devices) > 1:
            raise SourceError(
                f'several cameras are connected; set serial_no to one of {sorted(devices)}'
            )
        chosen = self._chosen or next(iter(devices))
        if chosen not in devices:
            raise SourceError(f'RealSense {chosen} is gone; connected are {sorted(devices)}')
        self._chosen = chosen
        return devices[chosen]

    def present(self) -> bool:
        """Whether the camera is connected, as of at most POLL_S ago."""
        now = time.monotonic()
        if self._changed.is_set() or now - self._looked_s > POLL_S:
            self._changed.clear()
            self._looked_s = now
            self._seen = self._chosen in self._devices()
        return self._seen

    def reset(self) -> None:
        """Reset the camera, which leaves the bus for seconds; SourceError where that fails."""
        try:
            self.choose().hardware_reset()
        except RuntimeError as error:   # how the SDK says that it went before it could answer
            raise SourceError(f'hardware reset of RealSense {self._chosen}: {error}') from error

    @property
    def _looked_for(self) -> str:
        return f' (looked for {self._chosen})' if self._chosen else ''

    def _devices(self) -> dict[str, rs.device]:
        try:
            return {
                device.get_info(rs.camera_info.serial_number): device
                for device in self.context.query_devices()
                if device.supports(rs.camera_info.serial_number)
            }
        except RuntimeError as error:   # one that left the bus while it was asked
            raise SourceError(f'looking for RealSense cameras failed: {error}') from error


class HardwareCamera:
    """A connected camera through the SDK's pipeline. Streams from the first `read` on. Live."""

    def __init__(
        self,
        wishes: Wishes,
        framer: Framer,
        bus: Bus,
        now_ns: Callable[[], int],
        tell: Callable[[dict[str, str], str], None],
    ) -> None:
        """Find the camera; SourceError where it is not there or cannot do what is wished.

        `tell` is told of its connection, by names for the status, and gets a warning where that
        allows less than what is wished.
        """
        device = bus.choose()
        self._framer = framer
        self._bus = bus
        self._now_ns = now_ns
        self._serial_no = device.get_info(rs.camera_info.serial_number)
        self._pipeline: rs.pipeline | None = None
        usb_type = _usb_type(device)
        self._wishes = self._possible(wishes, usb_type)
        connection = {
            'serial_no': self._serial_no,
            'usb_type': usb_type,
            'color_profile': str(self._wishes.color or 'off'),
            'depth_profile': str(self._wishes.depth or 'off'),
        }
        less = self._wishes != wishes
        tell(connection, self._falls_back(wishes, usb_type) if less else '')

    def read(self, _stopping: threading.Event, timeout_s: float) -> Frame | None:
        """Return the next frame, or None where none came in time."""
        try:
            if self._pipeline is None:
                self._start()
            # Never the blocking call: after a replug it may not come back for 45 s.
            arrived, frames = self._pipeline.try_wait_for_frames(round(timeout_s * 1e3))
            if arrived:     # the first frame asks the camera for its geometry
                return self._framer.frame(frames, self._now_ns())
        except (SourceError, FrameError):
            raise
        except RuntimeError as error:
            raise SourceError(f'RealSense {self._serial_no}: {error}') from error
        if not self._bus.present():
            raise SourceError(f'RealSense {self._serial_no} is gone; was it unplugged?')
        return None

    def calibration(self, stream: str) -> Calibration | None:
        """Return the intrinsics that the camera tells of; None before the first frame."""
        return self._framer.calibrations.get(stream)

    def close(self) -> None:
        """Cease to stream."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            try:
                pipeline.stop()
            except RuntimeError:    # nothing to stop: the camera is gone, or never started
                return

    def _start(self) -> None:
        self._framer.forget()
        pipeline = rs.pipeline(self._bus.context)
        profile = pipeline.start(self._config(self._wishes))
        self._pipeline = pipeline
        for sensor in profile.get_device().query_sensors():
            _set(sensor, rs.option.global_time_enabled, 1)
            if sensor.is_depth_sensor():
                _set(sensor, rs.option.emitter_enabled, self._wishes.emitter)
            elif sensor.is_color_sensor():
                _set(sensor, rs.option.enable_auto_exposure, self._wishes.auto_exposure)

    def _possible(self, wishes: Wishes, usb_type: str) -> Wishes:
        """Return the wishes, or on USB 2 what a D415 can do of them."""
        if self._resolves(wishes):
            return wishes
        fallback = replace(
            wishes,
            color=wishes.color and USB2_PROFILE,
            depth=wishes.depth and USB2_PROFILE,
        )
        if usb_type.startswith('2') and self._resolves(fallback):
            return fallback
        raise SourceError(
            f'RealSense {self._serial_no} cannot stream color {wishes.color} with depth '
            f'{wishes.depth} over its present connection, USB {usb_type} (USB 2 allows less than '
            'USB 3; rs-enumerate-devices lists the modes)'
        )

    def _falls_back(self, wishes: Wishes, usb_type: str) -> str:
        return (
            f'RealSense {self._serial_no} is connected over USB {usb_type}, which does not allow '
            f'color {wishes.color} with depth {wishes.depth}: it streams {USB2_PROFILE}; use a '
            'cable and a port of USB 3 for more'
        )

    def _resolves(self, wishes: Wishes) -> bool:
        pipeline = rs.pipeline(self._bus.context)
        return self._config(wishes).can_resolve(rs.pipeline_wrapper(pipeline))

    def _config(self, wishes: Wishes) -> rs.config:
        config = rs.config()
        config.enable_device(self._serial_no)
        streams = (
            (rs.stream.color, rs.format.rgb8, wishes.color),
            (rs.stream.depth, rs.format.z16, wishes.depth),
        )
        for stream, encoding, profile in streams:
            if profile is not None:
                config.enable_stream(stream, profile.width, profile.height, encoding, profile.fps)
        return config


@cache
def _context() -> rs.context:
    """The one context of the process: cameras that come back are the same to it.

    Destroying one may also wait for a callback that waits for Python.
    """
    return rs.context()


def _usb_type(device: rs.device) -> str:
    known = device.supports(rs.camera_info.usb_type_descriptor)
    return device.get_info(rs.camera_info.usb_type_descriptor) if known else 'unknown'


def _set(sensor: rs.sensor, option: rs.option, value: float) -> None:
    if sensor.supports(option):
        sensor.set_option(option, value)

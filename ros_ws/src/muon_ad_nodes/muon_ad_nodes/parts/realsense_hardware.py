"""A connected RealSense camera."""

from __future__ import annotations

import threading
from collections.abc import Callable

from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.realsense_frames import Framer
from muon_ad_nodes.parts.realsense_sdk import require_sdk
from muon_ad_nodes.parts.realsense_sdk import rs
from muon_ad_nodes.parts.realsense_sdk import Wishes
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import SourceError


class HardwareCamera:
    """A connected camera, by serial number (empty: the only one), through the SDK's pipeline.

    Streams from the first `read` on. Live.
    """

    def __init__(self, wishes: Wishes, framer: Framer, now_ns: Callable[[], int]) -> None:
        """Find the camera; SourceError where it is not there or cannot do what is wished."""
        require_sdk()
        self._wishes = wishes
        self._framer = framer
        self._now_ns = now_ns
        self._context = rs.context()
        self._serial_no = self._find()
        self._pipeline: rs.pipeline | None = None
        if not self._config().can_resolve(rs.pipeline_wrapper(rs.pipeline(self._context))):
            raise SourceError(
                f'RealSense {self._serial_no} cannot stream color {wishes.color} with depth '
                f'{wishes.depth} over its present USB connection (USB 2 allows less than USB 3; '
                'rs-enumerate-devices lists the modes)'
            )

    def read(self, _stopping: threading.Event, timeout_s: float) -> Frame | None:
        """Return the next frame, or None where none came in time."""
        if self._pipeline is None:
            self._start()
        arrived, frames = self._pipeline.try_wait_for_frames(round(timeout_s * 1e3))
        if not arrived:
            return None
        return self._framer.frame(frames, self._now_ns())

    def calibration(self, stream: str) -> Calibration | None:
        """Return the intrinsics that the camera tells of; None before the first frame."""
        return self._framer.calibrations.get(stream)

    def close(self) -> None:
        """Cease to stream."""
        if self._pipeline is not None:
            self._pipeline.stop()
            self._pipeline = None

    def _start(self) -> None:
        self._framer.forget()
        self._pipeline = rs.pipeline(self._context)
        profile = self._pipeline.start(self._config())
        for sensor in profile.get_device().query_sensors():
            self._set(sensor, rs.option.global_time_enabled, 1)
            if sensor.is_depth_sensor():
                self._set(sensor, rs.option.emitter_enabled, self._wishes.emitter)
            elif sensor.is_color_sensor():
                self._set(sensor, rs.option.enable_auto_exposure, self._wishes.auto_exposure)

    def _find(self) -> str:
        found = [
            device.get_info(rs.camera_info.serial_number)
            for device in self._context.query_devices()
            if device.supports(rs.camera_info.serial_number)
        ]
        wanted = self._wishes.serial_no
        if not found:
            raise SourceError(
                f'no RealSense is connected{f" (looked for {wanted})" if wanted else ""}; check '
                'the cable and the udev rules, or set source to simulated'
            )
        if wanted and wanted not in found:
            raise SourceError(f'parameter serial_no is {wanted!r}; connected are {found}')
        if not wanted and len(found) > 1:
            raise SourceError(f'several cameras are connected; set serial_no to one of {found}')
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

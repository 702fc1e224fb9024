"""Publishes a RealSense camera, connected or simulated, on the topics of realsense-ros."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
from builtin_interfaces.msg import Time

from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.capture import CaptureThread
from muon_ad_nodes.parts.image_topic import ImageTopic
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.realsense_device import calibration_of
from muon_ad_nodes.parts.realsense_device import depth_to_color
from muon_ad_nodes.parts.realsense_device import HardwareCamera
from muon_ad_nodes.parts.realsense_device import millimetres
from muon_ad_nodes.parts.realsense_device import Profile
from muon_ad_nodes.parts.realsense_device import rs
from muon_ad_nodes.parts.realsense_device import SimulatedCamera
from muon_ad_nodes.parts.realsense_device import Wishes
from muon_ad_nodes.parts.stamps import milliseconds
from muon_ad_nodes.parts.stamps import to_stamp
from muon_ad_nodes.parts.transforms import ExtrinsicsPublisher

WAIT_MS = 500
SILENCE_S = 2.0     # without frames, before the status says so

PARAMETERS = (
    Parameter(
        'source', 'device',
        'A connected camera, or the software device of the SDK fed with a rendered scene.',
        choices=('device', 'simulated'),
    ),
    Parameter('serial_no', '', 'Serial number of the camera; empty takes the only one connected.'),
    Parameter('camera_name', 'camera', 'Prefix of the frame ids, as in realsense-ros.'),
    Parameter('enable_color', True, 'Stream colour.'),
    Parameter('enable_depth', True, 'Stream depth.'),
    Parameter(
        'rgb_camera.color_profile', '640x480x30',
        'Width, height and frame rate of colour.',
    ),
    Parameter(
        'depth_module.depth_profile', '640x480x30',
        'Width, height and frame rate of depth. Aligning costs time in proportion to its pixels.',
    ),
    Parameter('align_depth.enable', True, 'Publish depth aligned to colour as well.'),
    Parameter(
        'depth_module.emitter_enabled', 1,
        'Infrared projector: 0 off, 1 laser, 2 automatic. No effect on a simulated camera.',
        range=(0, 2),
    ),
    Parameter(
        'rgb_camera.enable_auto_exposure', True,
        'Automatic exposure of colour. No effect on a simulated camera.',
    ),
)


class RealSenseCamera(SuiteNode):
    """Publishes `~/color`, `~/depth` and `~/aligned_depth_to_color`, each an image with its
    camera_info, and `~/extrinsics/depth_to_color`.

    Colour is rgb8, depth 16UC1 in millimetres. All messages of a frameset carry one stamp, in the
    node's clock. Images are converted and aligned only where their topic has a subscriber.
    """

    def __init__(self) -> None:
        super().__init__('camera', PARAMETERS)
        self._camera: HardwareCamera | SimulatedCamera | None = None
        self._align: rs.align | None = None
        self._topics: dict[str, ImageTopic] = {}
        self._calibrations: dict[str, Calibration] = {}
        self._extrinsics: ExtrinsicsPublisher | None = None
        self._capture: CaptureThread | None = None
        self._last_frame_s = 0.0

    def build(self) -> None:
        """Find the camera and create the topics."""
        settings = self.settings
        wishes = _wishes(settings)
        if settings.source == 'simulated':
            self._camera = SimulatedCamera(wishes, self._now_ns)
        else:
            simulated_time = self.get_clock().ros_time_is_active
            self._camera = HardwareCamera(wishes, self._now_ns, simulated_time)
        if wishes.color:
            self._add('color', 'color/image_raw', 'rgb8', 'color')
        if wishes.depth:
            self._add('depth', 'depth/image_rect_raw', '16UC1', 'depth')
        if wishes.color and wishes.depth:
            self._extrinsics = ExtrinsicsPublisher(self)
            if settings.align_depth_enable:
                self._align = rs.align(rs.stream.color)
                self._add('aligned', 'aligned_depth_to_color/image_raw', '16UC1', 'color')

    def start(self) -> None:
        """Begin to stream."""
        self._calibrations.clear()
        self._last_frame_s = time.monotonic()
        self._camera.start()
        self._capture = CaptureThread(self, self._step)

    def stop(self) -> None:
        """Cease to stream."""
        if self._capture is not None:
            self._capture.stop()
            self._capture = None
        if self._camera is not None:
            self._camera.stop()

    def teardown(self) -> None:
        """Let go of the camera and destroy the topics."""
        for topic in self._topics.values():
            topic.destroy()
        self._topics.clear()
        if self._extrinsics is not None:
            self._extrinsics.destroy()
        self._extrinsics = self._align = self._camera = None

    def _add(self, name: str, topic: str, encoding: str, seen_by: str) -> None:
        frame_id = f'{self.settings.camera_name}_{seen_by}_optical_frame'
        self._topics[name] = ImageTopic(self, f'~/{topic}', encoding, frame_id)

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _step(self, _stopping: threading.Event) -> bool:
        frames = self._camera.wait(WAIT_MS)
        if frames is None:
            silence = time.monotonic() - self._last_frame_s
            if silence > SILENCE_S:
                self.say(f'no frame from the camera for {silence:.0f} s')
            return True
        self._last_frame_s = time.monotonic()
        self.say('')
        images = {'color': frames.get_color_frame(), 'depth': frames.get_depth_frame()}
        images = {name: images[name] for name in images if name in self._topics}
        if all(images.values()):
            self._publish(frames, images)
        elif self._calibrations:
            # Before the first complete set this is normal: the SDK is learning which streams run.
            lacking = ' and '.join(name for name in images if not images[name])
            self.drop_invalid(f'the camera delivered a frameset without {lacking}')
        return True

    def _publish(self, frames: rs.composite_frame, images: dict[str, rs.video_frame]) -> None:
        self.monitor.received()
        stamp_ns = self._camera.stamp_ns(next(iter(images.values())))
        stamp = to_stamp(stamp_ns)
        age_ms = (self._now_ns() - stamp_ns) * 1e-6
        if not self._calibrations:
            self._describe(frames, images, stamp)
        begun = time.perf_counter()
        pixels = {}
        if 'color' in images and self._topics['color'].wanted:
            pixels['color'] = np.asanyarray(images['color'].get_data())
        if 'depth' in images and self._topics['depth'].wanted:
            pixels['depth'] = millimetres(images['depth'])
        if 'aligned' in self._topics and self._topics['aligned'].wanted:
            pixels['aligned'] = millimetres(self._align.process(frames).get_depth_frame())
        prepared = time.perf_counter()
        for name, topic in self._topics.items():
            topic.publish(pixels.get(name), self._calibrations[name], stamp)
        self.monitor.published(
            stamp_ns,
            capture=age_ms,
            preprocess=milliseconds(begun, prepared),
            publish=milliseconds(prepared, time.perf_counter()),
        )

    def _describe(
        self, frames: rs.composite_frame, images: dict[str, rs.video_frame], stamp: Time
    ) -> None:
        """Read the geometry from the first complete frameset; publish the extrinsics."""
        self._calibrations = {name: calibration_of(image) for name, image in images.items()}
        if 'color' in images:
            self._calibrations['aligned'] = self._calibrations['color']
        if self._extrinsics is not None:
            self._extrinsics.publish(self.settings.camera_name, depth_to_color(frames), stamp)


def _wishes(settings: SimpleNamespace) -> Wishes:
    color = Profile.parse('rgb_camera.color_profile', settings.rgb_camera_color_profile)
    depth = Profile.parse('depth_module.depth_profile', settings.depth_module_depth_profile)
    if not (settings.enable_color or settings.enable_depth):
        raise ParameterError('parameters enable_color and enable_depth are both false; set one')
    return Wishes(
        color=color if settings.enable_color else None,
        depth=depth if settings.enable_depth else None,
        serial_no=settings.serial_no,
        emitter=settings.depth_module_emitter_enabled,
        auto_exposure=settings.rgb_camera_enable_auto_exposure,
    )


def make() -> RealSenseCamera:
    """Return the node."""
    return RealSenseCamera()

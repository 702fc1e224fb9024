"""Publishes a RealSense camera, connected or simulated, on the topics of realsense-ros."""

from __future__ import annotations

import time
from types import SimpleNamespace

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts.capture import CaptureThread
from muon_ad_nodes.parts.fault_injection import FaultInjection
from muon_ad_nodes.parts.fault_injection import FAULTS
from muon_ad_nodes.parts.image_topic import ImageTopic
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.realsense_frames import Framer
from muon_ad_nodes.parts.realsense_hardware import HardwareCamera
from muon_ad_nodes.parts.realsense_sdk import Profile
from muon_ad_nodes.parts.realsense_sdk import require_sdk
from muon_ad_nodes.parts.realsense_sdk import Wishes
from muon_ad_nodes.parts.realsense_simulated import SimulatedCamera
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import Source
from muon_ad_nodes.parts.stamps import milliseconds
from muon_ad_nodes.parts.stamps import to_stamp
from muon_ad_nodes.parts.transforms import ExtrinsicsPublisher

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
    *FAULTS,
)


class RealSenseCamera(SuiteNode):
    """Publishes `~/color`, `~/depth` and `~/aligned_depth_to_color`, each an image with its
    camera_info, and `~/extrinsics/depth_to_color`.

    Colour is rgb8, depth 16UC1 in millimetres. All messages of a frameset carry one stamp, in the
    node's clock. Images are converted and aligned only where their topic has a subscriber.
    """

    def __init__(self) -> None:
        super().__init__('camera', PARAMETERS)
        self._framer: Framer | None = None
        self._source: Source | None = None
        self._topics: dict[str, ImageTopic] = {}
        self._extrinsics: ExtrinsicsPublisher | None = None
        self._described = False
        self._capture: CaptureThread | None = None
        self._faults: FaultInjection | None = None

    def build(self) -> None:
        """Find the camera and create the topics."""
        settings = self.settings
        wishes = _wishes(settings)
        streams = tuple(name for name in ('color', 'depth') if getattr(wishes, name))
        both = len(streams) == 2
        require_sdk()
        self._framer = Framer(streams, both and settings.align_depth_enable)
        self._faults = FaultInjection(self, beside_source=True)
        self._source = self._faults.around(self._open)()
        if wishes.color:
            self._add('color', 'color/image_raw', 'color')
        if wishes.depth:
            self._add('depth', 'depth/image_rect_raw', 'depth')
        if both:
            self._extrinsics = ExtrinsicsPublisher(self)
            if settings.align_depth_enable:
                self._add('aligned', 'aligned_depth_to_color/image_raw', 'color')

    def start(self) -> None:
        """Begin to stream."""
        if self._source is None:
            self._source = self._faults.around(self._open)()
        self._described = False
        self._faults.begin()
        self._capture = CaptureThread(self, self._source, self._publish, live=True)

    def stop(self) -> None:
        """Cease to stream, and let go of the camera."""
        if self._capture is not None:
            self._capture.stop()
            self._capture = None
        self._faults.end()
        self._close()

    def teardown(self) -> None:
        """Let go of the camera and destroy the topics."""
        self._close()
        for topic in self._topics.values():
            topic.destroy()
        self._topics.clear()
        if self._extrinsics is not None:
            self._extrinsics.destroy()
        if self._faults is not None:
            self._faults.destroy()
        self._extrinsics = self._framer = self._faults = None

    def describe(self, status: TaskStatus) -> None:
        """Add the faults done on purpose."""
        if self._faults is not None:
            self._faults.describe(status)

    def _add(self, stream: str, topic: str, seen_by: str) -> None:
        frame_id = f'{self.settings.camera_name}_{seen_by}_optical_frame'
        self._topics[stream] = ImageTopic(self, f'~/{topic}', stream, frame_id, self._faults)

    def _open(self) -> Source:
        wishes = _wishes(self.settings)
        camera = SimulatedCamera if self.settings.source == 'simulated' else HardwareCamera
        return camera(wishes, self._framer, self._now_ns)

    def _close(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _stamp_ns(self, frame: Frame) -> int:
        """Return when the frame was taken, in nanoseconds of the node's clock.

        Only the time of arrival is known for a frame stamped by the camera's own clock, or while
        the node runs in simulated time.
        """
        host_clock = frame.domain != 'hardware_clock' and frame.device_ns is not None
        if host_clock and not self.get_clock().ros_time_is_active:
            return frame.device_ns
        return frame.arrival_ns

    def _publish(self, frame: Frame) -> None:
        stamp_ns = self._stamp_ns(frame)
        stamp = to_stamp(stamp_ns)
        age_ms = (self._now_ns() - stamp_ns) * 1e-6
        if self._extrinsics is not None and not self._described:
            name = self.settings.camera_name
            self._extrinsics.publish(name, self._framer.extrinsics, stamp)
            self._described = True
        begun = time.perf_counter()
        pictures = {name: frame.pictures[name] for name in self._topics if name in frame.pictures}
        pixels = {
            name: picture.pixels()
            for name, picture in pictures.items() if self._topics[name].wanted
        }
        prepared = time.perf_counter()
        for name, picture in pictures.items():
            calibration = self._source.calibration(name)
            self._topics[name].publish(pixels.get(name), picture.encoding, calibration, stamp)
        self.monitor.published(
            stamp_ns,
            capture=age_ms,
            preprocess=milliseconds(begun, prepared),
            publish=milliseconds(prepared, time.perf_counter()),
        )


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

"""Publishes a RealSense camera, connected, simulated or recorded, as realsense-ros does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import KeyValue
from rclpy.service import Service
from std_srvs.srv import Empty

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts.capture import Capture
from muon_ad_nodes.parts.capture import STALL
from muon_ad_nodes.parts.fault_injection import FaultInjection
from muon_ad_nodes.parts.fault_injection import FAULTS
from muon_ad_nodes.parts.fault_injection import streams_of_camera
from muon_ad_nodes.parts.frame_clock import FrameClock
from muon_ad_nodes.parts.image_topic import ImageTopic
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.metadata_topic import MetadataTopic
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.realsense_frames import Extrinsics
from muon_ad_nodes.parts.realsense_frames import Framer
from muon_ad_nodes.parts.realsense_hardware import Bus
from muon_ad_nodes.parts.realsense_hardware import HardwareCamera
from muon_ad_nodes.parts.realsense_recorded import RecordedCamera
from muon_ad_nodes.parts.realsense_sdk import Profile
from muon_ad_nodes.parts.realsense_sdk import require_sdk
from muon_ad_nodes.parts.realsense_sdk import Wishes
from muon_ad_nodes.parts.realsense_simulated import SimulatedCamera
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import Source
from muon_ad_nodes.parts.source import SourceError
from muon_ad_nodes.parts.stamps import to_stamp
from muon_ad_nodes.parts.transforms import ExtrinsicsPublisher

PARAMETERS = (
    Parameter(
        'source', 'device',
        'A connected camera (device), the software device of the SDK fed with a rendered scene '
        '(simulated), or a recording of the SDK (recording).',
        choices=('device', 'simulated', 'recording'),
    ),
    Parameter('serial_no', '', 'Serial number of the camera; empty takes the only one connected.'),
    Parameter('path', '', 'File of the recording, .bag or .db3; source recording.'),
    Parameter('loop', False, 'Start over at the end; source recording.'),
    Parameter(
        'real_time', True,
        'Play at the pace of the recording, as a live camera; false: every frame, as fast as it '
        'is published. Source recording.',
    ),
    *STALL,
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
    camera_info, `~/color/metadata`, `~/depth/metadata` and `~/extrinsics/depth_to_color`.

    Colour is rgb8, depth 16UC1 in millimetres. All messages of a frameset carry one stamp, in the
    node's clock. Images are converted and aligned, and metadata read, only where their topic has
    a subscriber. `~/hw_reset` (std_srvs/Empty) resets the camera.
    """

    def __init__(self) -> None:
        super().__init__('camera', PARAMETERS)
        self._framer: Framer | None = None
        self._bus: Bus | None = None
        self._capture: Capture | None = None
        self._faults: FaultInjection | None = None
        self._topics: dict[str, ImageTopic] = {}
        self._metadata: list[MetadataTopic] = []
        self._extrinsics: ExtrinsicsPublisher | None = None
        self._described: Extrinsics | None = None
        self._reset_service: Service | None = None
        self._connection: dict[str, str] = {}

    def build(self) -> None:
        """Find the camera and create the topics."""
        settings = self.settings
        wishes = _wishes(settings)
        require_sdk()
        streams = tuple(name for name in ('color', 'depth') if getattr(wishes, name))
        aligned = ('aligned',) if len(streams) == 2 and settings.align_depth_enable else ()
        self._framer = Framer(streams, bool(aligned))
        self._faults = FaultInjection(self, True, streams_of_camera(streams + aligned))
        self._capture = self._new_capture()
        self._capture.open()
        self._create_topics(streams)
        self._reset_service = self.create_service(Empty, '~/hw_reset', self._on_reset)

    def start(self) -> None:
        """Begin to stream."""
        self._described = None
        self._capture.start()

    def stop(self) -> None:
        """Cease to stream, and let go of the camera."""
        if self._capture is not None:
            self._capture.stop()

    def teardown(self) -> None:
        """Let go of the camera and destroy the topics."""
        if self._capture is not None:
            self._capture.stop()
        if self._reset_service is not None:
            self.destroy_service(self._reset_service)
        for topic in (*self._topics.values(), *self._metadata):
            topic.destroy()
        self._topics.clear()
        self._metadata.clear()
        self._connection.clear()
        if self._extrinsics is not None:
            self._extrinsics.destroy()
        if self._faults is not None:
            self._faults.destroy()
        self._extrinsics = self._framer = self._faults = self._capture = self._bus = None
        self._reset_service = None

    def describe(self, status: TaskStatus) -> None:
        """Add the connection, the camera's losses and clock, and the faults done on purpose."""
        status.values += [
            KeyValue(key=key, value=value) for key, value in list(self._connection.items())
        ]
        if self._capture is not None:
            self._capture.describe(status)
            self._faults.describe(status)

    def _create_topics(self, streams: tuple[str, ...]) -> None:
        topics = {'color': 'color/image_raw', 'depth': 'depth/image_rect_raw'}
        for stream in streams:
            self._add(stream, topics[stream], self._frame_id(stream))
            self._metadata.append(
                MetadataTopic(self, f'~/{stream}/metadata', stream, self._frame_id(stream))
            )
        if len(streams) == 2:
            self._extrinsics = ExtrinsicsPublisher(self)
            if self.settings.align_depth_enable:
                self._add('aligned', 'aligned_depth_to_color/image_raw', self._frame_id('color'))

    def _add(self, stream: str, topic: str, frame_id: str) -> None:
        self._topics[stream] = ImageTopic(self, f'~/{topic}', stream, frame_id, self._faults)

    def _frame_id(self, stream: str) -> str:
        return f'{self.settings.camera_name}_{stream}_optical_frame'

    def _new_capture(self) -> Capture:
        settings = self.settings
        recorded = settings.source == 'recording'
        clock = FrameClock(
            lambda: self.get_clock().ros_time_is_active,
            replayed=recorded,
            paced=not recorded or settings.real_time,
        )
        present = reset = None
        if settings.source == 'device':
            self._bus = Bus(settings.serial_no)
            present, reset = self._bus.present, self._bus.reset
        stall_s = 0.0 if recorded else settings.stall_s
        return Capture(
            self, self._open, clock, self._publish, self._faults, stall_s, present, reset
        )

    def _open(self) -> Source:
        settings = self.settings
        if settings.source == 'recording':
            if not settings.path:
                raise ParameterError('parameter path is empty; source recording needs it')
            path = Path(settings.path).expanduser()
            return RecordedCamera(
                path, self._framer, self._now_ns, settings.real_time, settings.loop
            )
        wishes = _wishes(settings)
        if settings.source == 'simulated':
            return SimulatedCamera(wishes, self._framer, self._now_ns)
        return HardwareCamera(wishes, self._framer, self._bus, self._now_ns, self._connected)

    def _connected(self, connection: dict[str, str], warning: str) -> None:
        self._connection.update(connection)
        if warning:
            self.warn_once(warning)

    def _on_reset(self, _request: Empty.Request, response: Empty.Response) -> Empty.Response:
        """Reset the camera; also while inactive, as one that hangs may need it to start."""
        if self.settings.source == 'recording':
            self.get_logger().warning('nothing to reset: plays a recording')
        elif self.active:
            self._capture.request_reset()
        elif self._bus is not None:
            self._reset_now()
        else:
            self.get_logger().info(f'source {self.settings.source} has nothing to reset')
        return response

    def _reset_now(self) -> None:
        try:
            self._bus.reset()
        except SourceError as error:
            self.get_logger().error(str(error))

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _publish(self, frame: Frame, stamp_ns: int) -> None:
        stamp = to_stamp(stamp_ns)
        frame_ids = tuple(
            self._frame_id(name) for name in ('color', 'depth') if name in frame.pictures
        )
        times = self.monitor.begin(stamp_ns, frame_ids, captured=True)
        self._describe_geometry(stamp)
        pictures = {name: frame.pictures[name] for name in self._topics if name in frame.pictures}
        pixels = {
            name: picture.pixels()
            for name, picture in pictures.items() if self._topics[name].wanted
        }
        times.mark('preprocess')
        for name, picture in pictures.items():
            calibration = self._capture.calibration(name)
            self._topics[name].publish(pixels.get(name), picture.encoding, calibration, stamp)
        for topic in self._metadata:
            topic.publish(frame, stamp)
        times.mark('publish')
        self.monitor.published(times)

    def _describe_geometry(self, stamp: Time) -> None:
        """Publish the extrinsics with the first frame, and when the camera came back with others.
        """
        found = self._framer.extrinsics
        if self._extrinsics is not None and found is not None and found != self._described:
            self._extrinsics.publish(self.settings.camera_name, found, stamp)
            self._described = found


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

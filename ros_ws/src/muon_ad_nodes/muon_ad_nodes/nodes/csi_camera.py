"""Publishes a CSI camera, or what stands in for one: a device, a video, images, a pattern."""

from functools import partial
from pathlib import Path

from diagnostic_msgs.msg import KeyValue

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts.argus_source import argus_pipeline
from muon_ad_nodes.parts.argus_source import open_gstreamer
from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.calibration import load_calibration
from muon_ad_nodes.parts.capture import Capture
from muon_ad_nodes.parts.capture import STALL
from muon_ad_nodes.parts.fault_injection import FaultInjection
from muon_ad_nodes.parts.fault_injection import FAULTS
from muon_ad_nodes.parts.fault_injection import streams_of_camera
from muon_ad_nodes.parts.file_sources import FolderSource
from muon_ad_nodes.parts.file_sources import VideoSource
from muon_ad_nodes.parts.frame_clock import FrameClock
from muon_ad_nodes.parts.image_topic import ImageTopic
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.metadata_topic import MetadataTopic
from muon_ad_nodes.parts.opencv_source import stuck_readers
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.pattern_source import PatternSource
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import Request
from muon_ad_nodes.parts.source import Source
from muon_ad_nodes.parts.stamps import to_stamp
from muon_ad_nodes.parts.v4l2_source import device_path
from muon_ad_nodes.parts.v4l2_source import is_device
from muon_ad_nodes.parts.v4l2_source import V4l2Source

FILES = {'video': VideoSource, 'folder': FolderSource}

PARAMETERS = (
    Parameter(
        'source', 'argus',
        'A CSI camera through NVIDIA Argus (argus), a device of Linux (v4l2), a file (video), a '
        'folder of images (folder), or the rendered scene with a frame number (test_pattern).',
        choices=('argus', 'v4l2', 'video', 'folder', 'test_pattern'),
    ),
    Parameter('sensor_id', 0, 'Number of the CSI camera; source argus.', range=(0, 15)),
    Parameter(
        'pipeline', '',
        'GStreamer pipeline up to its sink, in place of the one for Argus; source argus.',
    ),
    Parameter('device', '0', 'Path or number of the video device; source v4l2.'),
    Parameter('path', '', 'Video file or folder of images; sources video and folder.'),
    Parameter('loop', False, 'Start over at the end; sources video and folder.'),
    Parameter(
        'width', 0,
        'Pixels across; 0 takes the own width of the source, or follows the height.',
        range=(0, 8192),
    ),
    Parameter(
        'height', 0,
        'Pixels down; 0 takes the own height of the source, or follows the width.',
        range=(0, 8192),
    ),
    Parameter(
        'fps', 0.0,
        'Frames a second; 0 takes the own rate of a video, 30 for every other source.',
        range=(0.0, 240.0),
    ),
    Parameter('frame_id', 'csi_camera_optical_frame', 'Frame id of the images.'),
    Parameter(
        'camera_info_url', '',
        'Calibration file of the camera calibrator: a path, file:///path or package://name/path.',
    ),
    *STALL,
    *FAULTS,
)


class CsiCamera(SuiteNode):
    """Publishes `image_raw` (rgb8), `camera_info` and `metadata`, stamped in the node's clock.

    When a file has ended the node stays active and the message of its status begins with
    'end of input'; it starts over when it is activated again.
    """

    def __init__(self) -> None:
        super().__init__('csi_camera', PARAMETERS)
        self._calibration: Calibration | None = None
        self._topic: ImageTopic | None = None
        self._metadata: MetadataTopic | None = None
        self._capture: Capture | None = None
        self._faults: FaultInjection | None = None

    def build(self) -> None:
        """Read the calibration, open the source and create the topics."""
        url, frame_id = self.settings.camera_info_url, self.settings.frame_id
        loaded = load_calibration(url) if url else None
        self._faults = FaultInjection(self, True, streams_of_camera(['image']))
        self._capture = self._new_capture()
        self._capture.open()
        self._calibration = loaded or self._capture.calibration('image')
        if self._calibration is None:
            self.get_logger().warning(
                'the camera is uncalibrated: camera_info carries sizes only, K is zero; set '
                'camera_info_url'
            )
        self._topic = ImageTopic(self, 'image_raw', 'image', frame_id, self._faults)
        self._metadata = MetadataTopic(self, 'metadata', 'image', frame_id)

    def start(self) -> None:
        """Begin to publish; what was played before starts over."""
        self._capture.start()

    def stop(self) -> None:
        """Cease to publish, and close the source."""
        if self._capture is not None:
            self._capture.stop()

    def teardown(self) -> None:
        """Close the source and destroy the topics."""
        if self._capture is not None:
            self._capture.stop()
        for part in filter(None, (self._topic, self._metadata, self._faults)):
            part.destroy()
        self._capture = self._topic = self._metadata = self._calibration = self._faults = None

    def describe(self, status: TaskStatus) -> None:
        """Add the camera's losses and clock, and the faults done on purpose."""
        if self._capture is not None:
            self._capture.describe(status)
            if stuck := stuck_readers():
                status.values.append(KeyValue(key='threads stuck in OpenCV', value=str(stuck)))
            self._faults.describe(status)

    def _new_capture(self) -> Capture:
        settings = self.settings
        live = settings.source not in FILES
        # A camera that is slow on purpose is not silent.
        patience_s = max(settings.stall_s, 3 / settings.fps if settings.fps else 0.0)
        stall_s = patience_s if live and settings.stall_s else 0.0
        present = None
        if settings.source == 'v4l2':
            present = partial(is_device, device_path(settings.device))
        clock = FrameClock(lambda: self.get_clock().ros_time_is_active)
        return Capture(self, self._open, clock, self._publish, self._faults, stall_s, present)

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _open(self) -> Source:
        settings = self.settings
        request = Request(
            self._now_ns, settings.width, settings.height, settings.fps, settings.loop
        )
        if settings.source == 'test_pattern':
            return PatternSource(request)
        if settings.source == 'v4l2':
            return V4l2Source(settings.device, request)
        if settings.source == 'argus':
            self._warn_of_stuck()
            pipeline = settings.pipeline or argus_pipeline(settings.sensor_id, request)
            return open_gstreamer(pipeline, request)
        if not settings.path:
            raise ParameterError(f'parameter path is empty; source {settings.source} needs it')
        return FILES[settings.source](Path(settings.path).expanduser(), request)

    def _warn_of_stuck(self) -> None:
        if stuck := stuck_readers():
            self.warn_once(
                f'{stuck} threads are stuck in OpenCV and left behind: the pipeline gave neither '
                'frames nor an error'
            )

    def _publish(self, frame: Frame, stamp_ns: int) -> None:
        times = self.monitor.begin(stamp_ns, (self.settings.frame_id,), captured=True)
        stamp, picture = to_stamp(stamp_ns), frame.pictures['image']
        calibration = (self._calibration or Calibration(*picture.size)).scaled(*picture.size)
        pixels = picture.pixels() if self._topic.wanted else None
        self._topic.publish(pixels, picture.encoding, calibration, stamp)
        self._metadata.publish(frame, stamp)
        times.mark('publish')
        self.monitor.published(times)


def make() -> CsiCamera:
    """Return the node."""
    return CsiCamera()

"""Publishes a CSI camera, or what stands in for one: a device, a video, images, a pattern."""

import time
from pathlib import Path

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts.argus_source import argus_pipeline
from muon_ad_nodes.parts.argus_source import open_gstreamer
from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.calibration import load_calibration
from muon_ad_nodes.parts.capture import CaptureThread
from muon_ad_nodes.parts.fault_injection import FaultInjection
from muon_ad_nodes.parts.fault_injection import FAULTS
from muon_ad_nodes.parts.file_sources import FolderSource
from muon_ad_nodes.parts.file_sources import VideoSource
from muon_ad_nodes.parts.image_topic import ImageTopic
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.pattern_source import PatternSource
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import Request
from muon_ad_nodes.parts.source import Source
from muon_ad_nodes.parts.stamps import milliseconds
from muon_ad_nodes.parts.stamps import to_stamp
from muon_ad_nodes.parts.v4l2_source import V4l2Source

CAMERAS = ('argus', 'v4l2')

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
    *FAULTS,
)


class CsiCamera(SuiteNode):
    """Publishes `image_raw` (rgb8) and `camera_info`, stamped by the node's clock.

    When a file has ended the node stays active and the message of its status begins with
    'end of input'; it starts over when it is activated again.
    """

    def __init__(self) -> None:
        super().__init__('csi_camera', PARAMETERS)
        self._source: Source | None = None
        self._calibration: Calibration | None = None
        self._topic: ImageTopic | None = None
        self._capture: CaptureThread | None = None
        self._faults: FaultInjection | None = None

    def build(self) -> None:
        """Read the calibration, open the source and create the topics."""
        url = self.settings.camera_info_url
        loaded = load_calibration(url) if url else None
        self._faults = FaultInjection(self, beside_source=True)
        self._source = self._faults.around(self._open)()
        self._calibration = loaded or self._source.calibration('image')
        if self._calibration is None:
            self.get_logger().warning(
                'the camera is uncalibrated: camera_info carries sizes only, K is zero; set '
                'camera_info_url'
            )
        frame_id = self.settings.frame_id
        self._topic = ImageTopic(self, 'image_raw', 'image', frame_id, self._faults)

    def start(self) -> None:
        """Begin to publish; what was played before starts over."""
        if self._source is None:
            self._source = self._faults.around(self._open)()
        self.say('')
        self._faults.begin()
        live = self.settings.source in CAMERAS
        self._capture = CaptureThread(self, self._source, self._publish, live)

    def stop(self) -> None:
        """Cease to publish, and close the source."""
        if self._capture is not None:
            self._capture.stop()
            self._capture = None
        self._faults.end()
        self._close()

    def teardown(self) -> None:
        """Close the source and destroy the topics."""
        self._close()
        if self._topic is not None:
            self._topic.destroy()
        if self._faults is not None:
            self._faults.destroy()
        self._topic = self._calibration = self._faults = None

    def describe(self, status: TaskStatus) -> None:
        """Add the faults done on purpose."""
        if self._faults is not None:
            self._faults.describe(status)

    def _close(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

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
            pipeline = settings.pipeline or argus_pipeline(settings.sensor_id, request)
            return open_gstreamer(pipeline, request)
        if not settings.path:
            raise ParameterError(f'parameter path is empty; source {settings.source} needs it')
        path = Path(settings.path).expanduser()
        return {'video': VideoSource, 'folder': FolderSource}[settings.source](path, request)

    def _publish(self, frame: Frame) -> None:
        age_ms = (self._now_ns() - frame.arrival_ns) * 1e-6
        begun = time.perf_counter()
        picture = frame.pictures['image']
        calibration = (self._calibration or Calibration(*picture.size)).scaled(*picture.size)
        pixels = picture.pixels() if self._topic.wanted else None
        self._topic.publish(pixels, picture.encoding, calibration, to_stamp(frame.arrival_ns))
        self.monitor.published(
            frame.arrival_ns, capture=age_ms, publish=milliseconds(begun, time.perf_counter())
        )


def make() -> CsiCamera:
    """Return the node."""
    return CsiCamera()

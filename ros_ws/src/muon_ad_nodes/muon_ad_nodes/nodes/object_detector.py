"""Finds objects in the newest frame of a camera, and where they are in space."""

import numpy as np
from rclpy.publisher import Publisher
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from muon_ad.images import ImageError
from muon_ad.runtime.detection import Detections
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.positions import DepthError
from muon_ad.runtime.positions import Position
from muon_ad.runtime.surroundings import DepthPairing
from muon_ad.runtime.surroundings import locate_all
from muon_ad.runtime.surroundings import Surroundings
from muon_ad_msgs.msg import Detection
from muon_ad_msgs.msg import DetectionArray
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.frame_task import FrameTask
from muon_ad_nodes.parts.image_input import TRANSPORT
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.lod import chosen_variants
from muon_ad_nodes.parts.lod import level_of_detail
from muon_ad_nodes.parts.lod import LevelOfDetail
from muon_ad_nodes.parts.lod import lod_parameters
from muon_ad_nodes.parts.lod import OneLevel
from muon_ad_nodes.parts.models import describe_engine
from muon_ad_nodes.parts.models import ENGINE
from muon_ad_nodes.parts.models import engine_options
from muon_ad_nodes.parts.models import model_folder
from muon_ad_nodes.parts.parameters import Parameter

PARAMETERS = (
    Parameter(
        'model', 'detector_default',
        'Model package: name of an installed one, or path of its folder.',
    ),
    Parameter(
        'score_threshold', 0.4,
        'Least confidence of a detection.',
        range=(0.0, 1.0),
        dynamic=True,
    ),
    Parameter(
        'iou_threshold', 0.5,
        'Overlap (intersection over union) above which the weaker box of a class is dropped.',
        range=(0.0, 1.0),
        dynamic=True,
    ),
    Parameter(
        'max_detections', 50,
        'Most detections in one message, best first.',
        range=(1, 1000),
        dynamic=True,
    ),
    Parameter(
        'classes', [],
        'Names of the classes to report; empty reports all of the model.',
        kind='strings',
    ),
    Parameter(
        'depth_tolerance_ms', 20.0,
        'Largest difference between the stamps of image and aligned depth.',
        range=(0.0, 1000.0),
        dynamic=True,
    ),
    TRANSPORT,
    *ENGINE,
    # A scene may be plain and yet have something small in it.
    *lod_parameters(plain=0.0, rich=0.0),
)


class ObjectDetector(SuiteNode):
    """Subscribes `image_raw`, `camera_info` and `aligned_depth/image_raw`; publishes `detections`.

    Every image yields a message, also where nothing is found. Positions are filled in where depth
    of the same moment (16UC1 millimetres or 32FC1 metres) and a calibration are there. Where
    `lod.variants` names several variants, each frame gets the best that is in time.
    """

    def __init__(self) -> None:
        super().__init__('object_detector', PARAMETERS)
        self._detectors: list[Detector] = []
        self._package: ModelPackage | None = None
        self._publisher: Publisher | None = None
        self._subscriptions_for_depth: list[Subscription] = []
        self._lod: LevelOfDetail | OneLevel | None = None
        self._task: FrameTask | None = None
        self._pairing = DepthPairing()

    @property
    def reported(self) -> tuple[str, ...]:
        """The labels that detections can have; none before it is configured."""
        return self._detectors[0].reported if self._detectors else ()

    def build(self) -> None:
        """Load the networks, warm them up, and create the topics."""
        settings = self.settings
        self._package = load_package(model_folder(settings.model))
        variants = chosen_variants(settings, self._package)
        self._detectors = [
            Detector(
                self._package,
                variant.name,
                engine_options(settings),
                keep=tuple(settings.classes),
            )
            for variant in variants
        ]
        self.changed('')
        self._lod = level_of_detail(self, variants, self._detect)
        self._publisher = self.create_publisher(DetectionArray, 'detections', qos.PUBLISH)
        self._subscriptions_for_depth = [
            self.create_subscription(CameraInfo, 'camera_info', self._on_info, qos.SENSOR),
            self.create_subscription(
                Image, 'aligned_depth/image_raw', self._on_depth, qos.SENSOR
            ),
        ]
        self._task = FrameTask(self, self._lod.infer, self._publish, settings.image_transport)

    def start(self) -> None:
        """Begin to detect."""
        self._task.start()

    def stop(self) -> None:
        """Cease to detect, after the frame in work."""
        self._task.stop()
        self._pairing.clear()

    def teardown(self) -> None:
        """Destroy topics and network."""
        if self._task is not None:
            self._task.destroy()
        if self._lod is not None:
            self._lod.destroy()
        for subscription in self._subscriptions_for_depth:
            self.destroy_subscription(subscription)
        if self._publisher is not None:
            self.destroy_publisher(self._publisher)
        self._subscriptions_for_depth = []
        self._detectors = []
        self._task = self._lod = self._publisher = None
        self._pairing.camera_info = None

    def describe(self, status: TaskStatus) -> None:
        """Add model, variant, provider and level of detail."""
        if self._detectors:
            first = self._detectors[0]
            describe_engine(status, self._package, first.variant, first.engine)
        if self._lod is not None:
            self._lod.describe(status)

    def changed(self, _name: str) -> None:
        """Take over thresholds and deadline."""
        self.monitor.deadline_ms = self.settings.deadline_ms
        for detector in self._detectors:
            detector.score_threshold = self.settings.score_threshold
            detector.iou_threshold = self.settings.iou_threshold
            detector.max_detections = self.settings.max_detections

    def _on_info(self, message: CameraInfo) -> None:
        if self.active:
            self._pairing.camera_info = message

    def _on_depth(self, message: Image) -> None:
        if self.active:
            self._pairing.depths.append(message)

    def _detect(self, index: int, rgb: np.ndarray) -> Detections:
        return self._detectors[index].detect(rgb)

    def _publish(self, source: Image, found: Detections) -> None:
        result = DetectionArray(
            header=source.header, image_width=source.width, image_height=source.height
        )
        size = (source.width, source.height)
        places = locate_all(found, size, self._surroundings(source))
        for box, score, class_id, place in zip(
            found.boxes, found.scores, found.class_ids, places, strict=True
        ):
            detection = Detection(
                x_min=float(box[0]),
                y_min=float(box[1]),
                x_max=float(box[2]),
                y_max=float(box[3]),
                class_id=int(class_id),
                label=self._package.classes[class_id],
                score=float(score),
            )
            _fill_position(detection, place)
            result.detections.append(detection)
        self._publisher.publish(result)
        self._lod.published()

    def _surroundings(self, image: Image) -> Surroundings | None:
        """Return depth of the image's moment and its camera, where both are there."""
        try:
            return self._pairing.around(image, self.settings.depth_tolerance_ms)
        except (ImageError, DepthError) as error:
            self.warn_once(f'positions left out: {error}')
            return None


def _fill_position(detection: Detection, place: Position) -> None:
    detection.position_valid = place.valid
    detection.position.x, detection.position.y, detection.position.z = place.point
    detection.position_variance = np.asarray(place.variance, np.float64)


def make() -> ObjectDetector:
    """Return the node."""
    return ObjectDetector()

"""Subscribes to everything the demo shows, and keeps the newest matching pictures."""

import threading
import time
from collections import Counter
from collections import OrderedDict
from dataclasses import dataclass
from dataclasses import field
from functools import partial

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image

from muon_ad.images import to_rgb
from muon_ad_msgs.msg import DetectionArray
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.stamps import nanoseconds

# Frames kept until their results come in: two seconds at 30 frames a second.
KEPT_FRAMES = 60
# Statuses come every second; after two the last results of an input are in them.
FINISH_S = 2.0


@dataclass
class View:
    """The newest pictures of one camera. Frames are found again by their stamp (ns)."""

    frames: OrderedDict[int, Image] = field(default_factory=OrderedDict)
    stylised: Image | None = None
    detections: DetectionArray | None = None


@dataclass(frozen=True)
class Snapshot:
    """Three pictures of one camera: uint8 RGB [H, W, 3], or None where nothing came yet."""

    frame: np.ndarray | None
    stylised: np.ndarray | None
    searched: np.ndarray | None
    detections: DetectionArray | None


class Recorder(Node):
    """Listens to the cameras and tasks of the demo; safe to ask from another thread."""

    def __init__(self, image_topics: dict[str, str], tasks: tuple[str, ...]) -> None:
        super().__init__('demo')
        self._lock = threading.Lock()
        self._views = {camera: View() for camera in image_topics}
        self.statuses: dict[str, TaskStatus] = {}
        # How many statuses, one a second, had which variant in use.
        self.variants: dict[str, Counter[str]] = {task: Counter() for task in tasks}
        self.first_result: dict[str, float] = {}
        self._ended_at: float | None = None
        self._subscribed = []
        for camera, topic in image_topics.items():
            for kind, name, keep in (
                (Image, topic, self._keep_frame),
                (Image, f'/{camera}/style/image', self._keep_stylised),
                (DetectionArray, f'/{camera}/detections', self._keep_detections),
            ):
                self._subscribed.append(
                    self.create_subscription(kind, name, partial(keep, camera), qos.SENSOR)
                )
        for task in tasks:
            self._subscribed.append(
                self.create_subscription(
                    TaskStatus, f'{task}/status', partial(self._keep_status, task), qos.LATCHED
                )
            )

    def snapshot(self, camera: str) -> Snapshot:
        """Return the newest pictures of a camera that belong together."""
        with self._lock:
            view = self._views[camera]
            stylised, detections = view.stylised, view.detections
            newest = next(reversed(view.frames.values()), None)
            frame = self._frame_of(view, stylised) or newest
            searched = self._frame_of(view, detections)
        return Snapshot(
            *(None if image is None else to_rgb(image) for image in (frame, stylised, searched)),
            detections if searched is not None else None,
        )

    def input_ended(self) -> bool:
        """Whether a camera says that its file ended, and the tasks have had time to finish it."""
        ended = self._ended_at
        return ended is not None and time.monotonic() - ended > FINISH_S

    @staticmethod
    def _frame_of(view: View, result: Image | DetectionArray | None) -> Image | None:
        return view.frames.get(nanoseconds(result.header.stamp)) if result is not None else None

    def _keep_frame(self, camera: str, message: Image) -> None:
        with self._lock:
            frames = self._views[camera].frames
            frames[nanoseconds(message.header.stamp)] = message
            while len(frames) > KEPT_FRAMES:
                frames.popitem(last=False)

    def _keep_stylised(self, camera: str, message: Image) -> None:
        self._came(f'/{camera}/style_transfer')
        with self._lock:
            self._views[camera].stylised = message

    def _keep_detections(self, camera: str, message: DetectionArray) -> None:
        self._came(f'/{camera}/object_detector')
        with self._lock:
            self._views[camera].detections = message

    def _keep_status(self, task: str, status: TaskStatus) -> None:
        self.statuses[task] = status
        if status.variant and status.frames:
            self.variants[task][status.variant] += 1
        if self._ended_at is None and 'end of input' in status.message:
            self._ended_at = time.monotonic()
        if status.frames:
            self._came(task)

    def _came(self, task: str) -> None:
        self.first_result.setdefault(task, time.monotonic())

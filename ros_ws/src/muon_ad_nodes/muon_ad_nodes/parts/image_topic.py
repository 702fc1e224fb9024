"""An image topic and the camera_info beside it, as REP-104 wants them."""

from typing import Any
from typing import Protocol

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.images import to_message


class Tamper(Protocol):
    """What stands between a node and its publishers, to make messages go wrong on purpose."""

    def apply(self, stream: str, message: Any) -> list[Any]:
        """Return the messages to publish now in place of `message` of `stream`."""


class ImageTopic:
    """Publishes the images of `stream` on `topic`, and `camera_info` in the same namespace.

    A `tamper` sees every message before it leaves, camera_info as stream '<stream>_info'.
    """

    def __init__(
        self, node: Node, topic: str, stream: str, frame_id: str, tamper: Tamper | None = None
    ) -> None:
        namespace, _, _ = topic.rpartition('/')
        info = f'{namespace}/camera_info' if namespace else 'camera_info'
        self._node = node
        self._stream = stream
        self._frame_id = frame_id
        self._tamper = tamper
        # Filled anew for each frame; a tamper may hold messages back.
        self._reused = Image() if tamper is None else None
        self._images = node.create_publisher(Image, topic, qos.PUBLISH)
        self._infos = node.create_publisher(CameraInfo, info, qos.PUBLISH)

    @property
    def wanted(self) -> bool:
        """Whether anyone subscribes the images."""
        return self._images.get_subscription_count() > 0

    def publish(
        self, pixels: np.ndarray | None, encoding: str, calibration: Calibration, stamp: Time
    ) -> None:
        """Publish a frame; without `pixels`, its camera_info only.

        Raises ImageError, before anything is published, where `pixels` are not of `encoding`.
        """
        image = None
        if pixels is not None:
            image = to_message(pixels, encoding, stamp, self._frame_id, self._reused)
        info = calibration.message(stamp, self._frame_id)
        self._send(self._infos, f'{self._stream}_info', info)
        if image is not None:
            self._send(self._images, self._stream, image)

    def destroy(self) -> None:
        """Destroy the publishers."""
        self._node.destroy_publisher(self._images)
        self._node.destroy_publisher(self._infos)

    def _send(self, publisher: Publisher, stream: str, message: Any) -> None:
        for each in self._tamper.apply(stream, message) if self._tamper else (message,):
            publisher.publish(each)

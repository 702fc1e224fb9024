"""An image topic and the camera_info beside it, as REP-104 wants them."""

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.images import to_message


class ImageTopic:
    """Publishes images in `encoding` on `topic`, and `camera_info` in the same namespace."""

    def __init__(self, node: Node, topic: str, encoding: str, frame_id: str) -> None:
        namespace, _, _ = topic.rpartition('/')
        info = f'{namespace}/camera_info' if namespace else 'camera_info'
        self._node = node
        self._encoding = encoding
        self._frame_id = frame_id
        self._images = node.create_publisher(Image, topic, qos.PUBLISH)
        self._infos = node.create_publisher(CameraInfo, info, qos.PUBLISH)

    @property
    def wanted(self) -> bool:
        """Whether anyone subscribes the images."""
        return self._images.get_subscription_count() > 0

    def publish(self, pixels: np.ndarray | None, calibration: Calibration, stamp: Time) -> None:
        """Publish a frame; without `pixels`, its camera_info only."""
        self._infos.publish(calibration.message(stamp, self._frame_id))
        if pixels is not None:
            self._images.publish(to_message(pixels, self._encoding, stamp, self._frame_id))

    def destroy(self) -> None:
        """Destroy the publishers."""
        self._node.destroy_publisher(self._images)
        self._node.destroy_publisher(self._infos)

"""What a camera tells of each frame, on the topic and in the form of realsense-ros."""

import json

from builtin_interfaces.msg import Time
from rclpy.node import Node

from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import Metadata

try:
    from realsense2_camera_msgs.msg import Metadata as MetadataMessage
except ImportError:     # comes with realsense-ros
    from muon_ad_msgs.msg import Metadata as MetadataMessage


def metadata_of(frame: Frame, stream: str) -> Metadata:
    """Return what is known of one picture of the frame, under the names of realsense-ros.

    frame_number, clock_domain, frame_timestamp (ms in the clock of that domain), then what the
    camera tells.
    """
    taken_ns = frame.arrival_ns if frame.device_ns is None else frame.device_ns
    return {
        'frame_number': frame.number,
        'clock_domain': frame.domain,
        'frame_timestamp': taken_ns * 1e-6,
        **frame.pictures[stream].metadata(),
    }


class MetadataTopic:
    """Publishes the metadata of `stream` on `topic`, where anyone subscribes."""

    def __init__(self, node: Node, topic: str, stream: str, frame_id: str) -> None:
        self._node = node
        self._stream = stream
        self._frame_id = frame_id
        self._publisher = node.create_publisher(MetadataMessage, topic, qos.PUBLISH)

    def publish(self, frame: Frame, stamp: Time) -> None:
        """Publish what is known of the frame's picture."""
        if self._publisher.get_subscription_count() == 0 or self._stream not in frame.pictures:
            return
        message = MetadataMessage(json_data=json.dumps(metadata_of(frame, self._stream)))
        message.header.stamp = stamp
        message.header.frame_id = self._frame_id
        self._publisher.publish(message)

    def destroy(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)

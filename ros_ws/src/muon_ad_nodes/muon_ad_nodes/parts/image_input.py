"""Images as they come in: raw, or compressed as image_transport does."""

from collections.abc import Callable

from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

from muon_ad.pictures import COMPRESSED
from muon_ad.pictures import picture_of
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.images import to_message
from muon_ad_nodes.parts.parameters import Parameter

TRANSPORT = Parameter(
    'image_transport', 'raw',
    'How images come: raw on `image_raw`, or compressed (JPEG, PNG) on `image_raw/compressed`, '
    'beside the topic that `image_raw` is remapped to.',
    choices=('raw', 'compressed'),
)


def subscribe_images(
    node: Node, topic: str, transport: str, callback: Callable[[Image | CompressedImage], None]
) -> Subscription:
    """Subscribe the newest image of `topic` in one of TRANSPORT's choices."""
    if transport == 'raw':
        return node.create_subscription(Image, topic, callback, qos.SENSOR)
    # As image_transport: it is the raw topic that people remap.
    beside = f'{node.resolve_topic_name(topic)}/compressed'
    return node.create_subscription(CompressedImage, beside, callback, qos.SENSOR)


def as_image(message: Image | CompressedImage) -> Image:
    """Return an Image as it is, a CompressedImage decoded.

    Raises ImageError where that is no picture, or a damaged one.
    """
    if isinstance(message, Image):
        return message
    encoding, pixels = picture_of(message, COMPRESSED)
    return to_message(pixels, encoding, message.header.stamp, message.header.frame_id)

"""The publishers of what is played from a bag, and the way of a message through them."""

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy
from rclpy.qos import HistoryPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.serialization import deserialize_message

from muon_ad.bags import Message
from muon_ad.images import ImageError
from muon_ad_nodes.parts.bag_topics import Route
from muon_ad_nodes.parts.image_input import as_image
from muon_ad_nodes.parts.image_topic import Tamper
from muon_ad_nodes.parts.stamps import nanoseconds
from muon_ad_nodes.parts.stamps import to_stamp

# So many messages may be on their way to a reliable subscriber that is slower than the bag.
_DEPTH = 100
# A stamp that is further from the time of its recording is of another clock.
_SAME_CLOCK_NS = 3600 * 1_000_000_000


class BadMessage(ValueError):
    """A message of the bag cannot be published; says which and why."""


class BagSender:
    """Publishes messages of a bag by its `routes`, which are by topic of the bag.

    `new_time` turns times of the recording into new stamps; None leaves stamps alone. A `tamper`
    sees every message that leaves, under the name it is published as. Messages that nobody
    changes are passed on as they lie in the bag.
    """

    def __init__(
        self,
        node: Node,
        routes: dict[str, Route],
        counts: dict[str, int],
        new_time: Callable[[int], int] | None,
        tamper: Tamper | None,
    ) -> None:
        self._node = node
        self._routes = routes
        self._new_time = new_time
        self._tamper = tamper
        self._publishers = {
            topic: node.create_publisher(
                route.published_kind, route.name, _profile(route, counts[topic])
            )
            for topic, route in routes.items()
        }

    @property
    def subscribers(self) -> dict[str, int]:
        """Matched subscribers by published name."""
        return {
            self._routes[topic].name: publisher.get_subscription_count()
            for topic, publisher in self._publishers.items()
        }

    def prepare(self, message: Message) -> Any:
        """Return what to `send` for a serialized message of the bag. Raises BadMessage."""
        route = self._routes[message.topic]
        if not (route.unpack or self._new_time or self._tamper):
            return message.data
        try:
            ready = deserialize_message(message.data, route.kind)
            if route.unpack:
                ready = as_image(ready)
        except (ImageError, RuntimeError, ValueError) as error:
            raise BadMessage(f'{message.topic}: {error}') from error
        return ready

    def send(self, message: Message, ready: Any) -> int:
        """Publish what was prepared of `message`; return how many messages left."""
        route, publisher = self._routes[message.topic], self._publishers[message.topic]
        if self._new_time:
            self._restamp(ready, message.time_ns)
        return self._send(publisher, route.name, ready)

    def send_late(self, name: str, message: Any) -> None:
        """Publish under `name` what the `tamper` has held back."""
        topic = next(topic for topic, route in self._routes.items() if route.name == name)
        self._publishers[topic].publish(message)

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers.clear()

    def _send(self, publisher: Publisher, stream: str, message: Any) -> int:
        messages = self._tamper.apply(stream, message) if self._tamper else (message,)
        for each in messages:
            publisher.publish(each)
        return len(messages)

    def _restamp(self, ready: Any, recorded_ns: int) -> None:
        # A TFMessage has no header, its transforms have.
        for part in (ready, *getattr(ready, 'transforms', ())):
            header = getattr(part, 'header', None)
            if header is not None:
                stamp_ns = nanoseconds(header.stamp)
                if abs(stamp_ns - recorded_ns) > _SAME_CLOCK_NS:
                    stamp_ns = recorded_ns
                header.stamp = to_stamp(self._new_time(stamp_ns))


def _profile(route: Route, count: int) -> QoSProfile:
    durability = DurabilityPolicy.VOLATILE
    if route.latched:
        durability = DurabilityPolicy.TRANSIENT_LOCAL
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=max(1, min(count, _DEPTH)),
        reliability=ReliabilityPolicy.RELIABLE,
        durability=durability,
    )

"""Every topic of one type on the graph, subscribed as it appears."""

import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from rclpy.clock import Clock
from rclpy.clock import ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

LOOK_PERIOD_S = 0.25
_POLL_S = 0.05

# Settings, other than the domain, under which processes do not find each other.
_CONFINING = ('ROS_LOCALHOST_ONLY', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_STATIC_PEERS')


class Discovery:
    """Subscribes all topics of a message type for `node`, whoever publishes them.

    `type_name` is the type as the graph tells it, such as 'std_msgs/msg/String'. The node's
    executor looks for topics, and calls `receive` with each message.
    """

    def __init__(
        self,
        node: Node,
        kind: type,
        type_name: str,
        profile: QoSProfile,
        receive: Callable[[Any], None],
    ) -> None:
        self._node = node
        self._kind = kind
        self._type_name = type_name
        self._profile = profile
        self._receive = receive
        self._subscribed: dict[str, Subscription] = {}
        self._timer = node.create_timer(
            LOOK_PERIOD_S, self.look, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def look(self) -> None:
        """Subscribe what is new on the graph."""
        for topic, types in self._node.get_topic_names_and_types():
            if self._type_name in types and topic not in self._subscribed:
                self._subscribed[topic] = self._node.create_subscription(
                    self._kind, topic, self._receive, self._profile
                )

    def published(self) -> set[str]:
        """Return the topics found so far that have a publisher now."""
        return {
            topic for topic in list(self._subscribed) if self._node.count_publishers(topic) > 0
        }

    def settle(
        self,
        seconds: float,
        quiet_s: float,
        heard: Callable[[set[str]], bool] = lambda _topics: True,
    ) -> set[str]:
        """Wait until there are topics, none has appeared for `quiet_s`, and all are `heard`; but
        not longer than so many seconds after the last one appeared.

        Not from the executor's thread. Returns the topics that have a publisher.
        """
        changed = time.monotonic()
        found = set()
        while (now := time.monotonic()) - changed < seconds:
            if (topics := self.published()) != found:
                found, changed = topics, now
            if found and now - changed > quiet_s and heard(found):
                break
            time.sleep(_POLL_S)
        return found


def nothing_found(
    what: str, seconds: float, domain_id: int, environment: Mapping[str, str]
) -> str:
    """Say that nothing of a kind was found, where it was looked for, and what to do."""
    confined = ', '.join(
        f'{name}={environment[name]}' for name in _CONFINING if environment.get(name)
    )
    return (
        f'no {what} within {seconds:g} s in ROS domain {domain_id}'
        f'{f" ({confined})" if confined else ""}; start the suite there, as with `ros2 launch '
        'muon_ad_nodes multitask.launch.xml`, or set ROS_DOMAIN_ID to the domain that it runs in'
    )

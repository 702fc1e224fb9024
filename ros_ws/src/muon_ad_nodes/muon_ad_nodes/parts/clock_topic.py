"""The topic /clock, by which nodes with use_sim_time tell the time."""

import threading

from rclpy.node import Node
from rosgraph_msgs.msg import Clock

from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.stamps import to_stamp


class ClockTopic:
    """Publishes the time; never back, but after `restart`. Safe to use from several threads."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher = node.create_publisher(Clock, '/clock', qos.PUBLISH)
        self._lock = threading.Lock()
        self._last_ns = -1

    def publish(self, time_ns: int) -> None:
        """Publish the time, unless a later one was."""
        with self._lock:
            if time_ns >= self._last_ns:
                self._last_ns = time_ns
                self._publisher.publish(Clock(clock=to_stamp(time_ns)))

    def restart(self) -> None:
        """Let the time begin anew, at whatever comes next."""
        with self._lock:
            self._last_ns = -1

    def destroy(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)

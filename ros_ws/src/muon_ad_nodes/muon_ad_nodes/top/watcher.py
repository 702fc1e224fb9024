"""Listens to the status of every task in the domain."""

import os
import threading
import time

from rclpy.node import Node

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.discovery import Discovery
from muon_ad_nodes.parts.shared_memory import ports_of_the_dead_avoided
from muon_ad_nodes.top.rows import row_of
from muon_ad_nodes.top.rows import TaskRow

# Fast DDS announces a process anew every three seconds, where it was not heard before.
QUIET_S = 3.5


class Watcher(Node):
    """Keeps the last status of every task on the graph; safe to ask from another thread."""

    def __init__(self) -> None:
        super().__init__(
            f'muon_ad_top_{os.getpid()}', enable_rosout=False, start_parameter_services=False
        )
        self._lock = threading.Lock()
        # By task and host: the last status, and when it came in steady seconds.
        self._heard: dict[tuple[str, str], tuple[TaskStatus, float]] = {}
        self._discovery = Discovery(
            self, TaskStatus, 'muon_ad_msgs/msg/TaskStatus', qos.LATCHED, self._keep
        )

    @property
    def domain_id(self) -> int:
        """The ROS domain in which this node listens."""
        return self.context.get_domain_id()

    def rows(self) -> list[TaskRow]:
        """Return a row a task, by host and name."""
        published = self._discovery.published()
        now = time.monotonic()
        with self._lock:
            heard = sorted(self._heard.items(), key=lambda item: item[0][::-1])
        return [
            row_of(status, now - at, _topic(task) in published)
            for (task, _), (status, at) in heard
        ]

    def settle(self, seconds: float) -> list[TaskRow]:
        """Wait until all tasks are found and heard, or so many seconds; return the rows."""
        self._discovery.settle(seconds, QUIET_S, self._has_heard)
        return self.rows()

    def _has_heard(self, topics: set[str]) -> bool:
        with self._lock:
            return topics <= {_topic(task) for task, _ in self._heard}

    def _keep(self, status: TaskStatus) -> None:
        with self._lock:
            self._heard[status.task, status.host] = (status, time.monotonic())


def _topic(task: str) -> str:
    return f'{task}/status'


def make() -> Watcher:
    """Return the node, whatever killed processes have left behind."""
    with ports_of_the_dead_avoided():
        return Watcher()

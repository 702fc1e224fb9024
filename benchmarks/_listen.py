"""Hears of the suite's nodes, as a process: `_listen.py <task> ...` with fully qualified names.

Prints `listening`, then a JSON object a line: every status of every task, and of tasks that
stylise the first frame. Ends when its standard input does. It is a process of its own because Fast
DDS keeps the shared memory of everyone it heard mapped until its process ends: nobody could clean
up before.
"""

import json
import sys
import time

from _ros import FIRST_FRAME
from _ros import STYLE_TASK
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.executor import spinning

# Every status, not the newest only: states follow each other quickly.
EVERY = QoSProfile(depth=20, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Listener(Node):
    """Prints what it hears."""

    def __init__(self, tasks: list[str]) -> None:
        super().__init__('benchmark_listener')
        self._delivered: set[str] = set()
        for task in tasks:
            self.create_subscription(TaskStatus, f'{task}/status', self._on_status, EVERY)
            namespace, _, name = task.rpartition('/')
            if name == STYLE_TASK:
                self.create_subscription(
                    Image, f'{namespace}/style/image',
                    lambda _, task=task: self._on_frame(task), qos.SENSOR,
                )

    def _on_status(self, status: TaskStatus) -> None:
        _tell(status.task, status.state, status.pid)

    def _on_frame(self, task: str) -> None:
        if task not in self._delivered:
            self._delivered.add(task)
            _tell(task, FIRST_FRAME, 0)


def _tell(task: str, state: str, pid: int) -> None:
    print(json.dumps({'task': task, 'state': state, 'pid': pid, 'at': time.time()}), flush=True)


if __name__ == '__main__':
    with spinning(lambda: Listener(sys.argv[1:])):
        print('listening', flush=True)
        sys.stdin.read()

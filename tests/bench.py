"""Nodes in this process: spun in a thread, driven through their transitions, listened to."""

import threading
import time
from collections.abc import Callable

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from support import release_participants


class Bench:
    """Spins nodes in a thread; `listen` collects messages, `wait` waits for a condition.

    `arguments` are those of a ROS program, such as '--ros-args', '-r', 'a:=b'.
    """

    def __init__(self, *arguments: str) -> None:
        rclpy.init(args=[*arguments])
        self.executor = SingleThreadedExecutor()
        self._nodes: list[Node] = []
        self.probe = rclpy.create_node('probe')
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._adopt(self.probe)
        self._thread.start()

    def run(self, make: Callable[[], Node], **parameters) -> Node:
        """Make a node, set parameters (`a__b` stands for `a.b`), and spin it."""
        node = make()
        for name, value in parameters.items():
            parameter = rclpy.Parameter(name.replace('__', '.'), value=value)
            result, = node.set_parameters([parameter])
            assert result.successful, result.reason
        self._adopt(node)
        return node

    def listen(self, kind: type, topic: str, qos: QoSProfile | int = 10) -> list:
        """Return a list to which every message received on `topic` is appended."""
        messages = []
        self.probe.create_subscription(kind, topic, messages.append, qos)
        return messages

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
        """Wait for a condition, or fail naming `what`."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f'waited {seconds} s in vain for {what}')
            time.sleep(0.005)

    def close(self) -> None:
        """End every node, then ROS."""
        self._stopping.set()
        self.executor.wake()
        self._thread.join()
        for node in reversed(self._nodes):
            if hasattr(node, 'close'):
                node.close()
            self.executor.remove_node(node)
            node.destroy_node()
        self.executor.shutdown()
        rclpy.shutdown()
        self._nodes.clear()
        release_participants()

    def _adopt(self, node: Node) -> None:
        self._nodes.append(node)
        self.executor.add_node(node)

    def _spin(self) -> None:
        while not self._stopping.is_set():
            self.executor.spin_once(timeout_sec=0.1)

"""A launch file as processes of its own, and a node that listens to them."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import qos

NODES = (
    '/camera/camera', '/camera/style_transfer', '/camera/object_detector',
    '/csi/csi_camera', '/csi/style_transfer', '/csi/object_detector', '/supervisor',
)


class Graph:
    """A running launch file, and what it publishes; `statuses` are the newest by node."""

    def __init__(
        self, log: Path, *arguments: str, nodes: tuple[str, ...] = NODES,
        file: str = 'multitask.launch.xml',
    ) -> None:
        self.log = log
        self._stream = log.open('w')
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'muon_ad_nodes.bringup', file, *arguments],
            stdout=self._stream, stderr=subprocess.STDOUT, start_new_session=True,
        )
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('probe', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.nodes = len(nodes)
        self.statuses: dict[str, TaskStatus] = {}
        for name in nodes:
            self.node.create_subscription(
                TaskStatus, f'{name}/status',
                lambda status, name=name: self.statuses.__setitem__(name, status), qos.LATCHED,
            )

    def listen(self, kind: type, topic: str) -> list:
        messages = []
        self.node.create_subscription(kind, topic, messages.append, qos.SENSOR)
        return messages

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        clock = self.node.get_clock()
        deadline = clock.now().nanoseconds + seconds * 1e9
        while not condition():
            if clock.now().nanoseconds > deadline or self.process.poll() is not None:
                tail = self.log.read_text()[-6000:]
                pytest.fail(f'{what}: not within {seconds} s; log:\n{tail}')
            self.executor.spin_once(timeout_sec=0.1)

    def interrupt(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def close(self) -> None:
        self.interrupt()
        if not self.context.ok():
            return
        self._stream.close()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def parameter_file(folder: Path, parameters: dict[str, dict]) -> str:
    """Return the argument that gives these parameters by node."""
    path = folder / 'params.yaml'
    # JSON is YAML without the aliases that rcl refuses.
    path.write_text(json.dumps(
        {name: {'ros__parameters': values} for name, values in parameters.items()}
    ))
    return f'params_file:={path}'

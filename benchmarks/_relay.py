"""A node without a network between a camera and a listener, as a process: `_relay.py <relay>`.

It takes `image_raw` and publishes every image it comes to as `result`. Prints a line when both its
topics are matched, and when its standard input ends, as JSON: `frames` has of every result its
number, when the work on it began, when its message was filled and when it was published (ns of the
monotonic clock); `waits` has of every image the time in DDS and that in the executor until its
callback (ns; none of `suite`, as the events executor cannot give a callback these times);
`dropped` counts images that the node did not come to.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np
from _link import fill_as_suite
from _link import Setup
from _link import SETUPS
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image

from muon_ad.images import to_rgb
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts.executor import spinning
from muon_ad_nodes.parts.frame_task import FrameTask
from muon_ad_nodes.parts.images import to_message
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.stamps import nanoseconds

INPUT, RESULT = 'image_raw', 'result'
POLL_S = 0.02


class SuiteRelay(SuiteNode):
    """A node of the suite whose network returns the image."""

    def __init__(self) -> None:
        super().__init__('relay', ())
        self.frames: list[tuple[int, int, int, int]] = []
        self.waits: list[tuple[int, int]] = []
        self.publisher: Publisher | None = None
        self._task: FrameTask | None = None
        self._result = Image()
        self._begun = 0

    def build(self) -> None:
        """Create the topics."""
        self.publisher = self.create_publisher(Image, RESULT, qos.PUBLISH)
        self._task = FrameTask(self, self._infer, self._publish)
        realtime.settle()

    def start(self) -> None:
        """Begin to relay."""
        self._task.start()

    def stop(self) -> None:
        """Cease to relay."""
        self._task.stop()

    def teardown(self) -> None:
        """Destroy the topics."""
        self._task.destroy()
        self.destroy_publisher(self.publisher)

    @property
    def dropped(self) -> int:
        """Images that a newer one replaced."""
        return self.monitor.dropped_newer_frames

    def _infer(self, rgb: np.ndarray, _age_ms: float) -> np.ndarray:
        self._begun = time.monotonic_ns()
        return rgb

    def _publish(self, source: Image, rgb: np.ndarray) -> None:
        header = source.header
        result = to_message(rgb, 'rgb8', header.stamp, header.frame_id, self._result)
        filled = time.monotonic_ns()
        self.publisher.publish(result)
        published = time.monotonic_ns()
        self.frames.append((int(header.frame_id), self._begun, filled, published))


class PlainRelay(Node):
    """A node as tutorials write it: all work in the callback."""

    def __init__(self, setup: Setup, read: Callable[[Image], np.ndarray]) -> None:
        super().__init__('relay')
        self.frames: list[tuple[int, int, int, int]] = []
        self.waits: list[tuple[int, int]] = []
        self.dropped = 0
        self._setup, self._read = setup, read
        self.publisher = self.create_publisher(Image, RESULT, setup.publish)
        self.create_subscription(Image, INPUT, self._on_image, setup.subscribe)

    def _on_image(self, message: Image, info: dict) -> None:
        received = info['received_timestamp']
        self.waits.append((received - info['source_timestamp'], time.time_ns() - received))
        begun, header = time.monotonic_ns(), message.header
        number = int(header.frame_id)
        result = self._setup.fill(self._read(message), nanoseconds(header.stamp), number)
        filled = time.monotonic_ns()
        self.publisher.publish(result)
        self.frames.append((number, begun, filled, time.monotonic_ns()))


def read_plainly(message: Image) -> np.ndarray:
    """Return the pixels as people do who know numpy; without a copy, as the suite."""
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)


def run_suite() -> SuiteRelay:
    """Run the relay until the standard input ends, with the memory settings of the nodes."""
    realtime.start('relay', 'relay')
    with spinning(SuiteRelay) as node:
        node.trigger_configure()
        node.trigger_activate()
        tell_when_matched(node)
        sys.stdin.read()
        node.close()
    return node


def run_plainly(setup: Setup, read: Callable[[Image], np.ndarray]) -> PlainRelay:
    """Run the relay until the standard input ends."""
    with spinning(lambda: PlainRelay(setup, read), setup.executor) as node:
        tell_when_matched(node)
        sys.stdin.read()
    return node


def tell_when_matched(node: SuiteRelay | PlainRelay) -> None:
    """Print a line once there is a camera, and a listener."""
    while not (node.count_publishers(INPUT) and node.publisher.get_subscription_count()):
        time.sleep(POLL_S)
    print('matched', flush=True)


RELAYS = {
    'suite': run_suite,
    # The suite's transport and conversions, without its executor, mailbox and lifecycle.
    'standard': lambda: run_plainly(
        Setup(qos.PUBLISH, qos.SENSOR, fill_as_suite, SingleThreadedExecutor), to_rgb
    ),
    'reliable': lambda: run_plainly(SETUPS['reliable'], read_plainly),
    'best_effort': lambda: run_plainly(SETUPS['best_effort'], read_plainly),
}


if __name__ == '__main__':
    relay = RELAYS[sys.argv[1]]()
    print(json.dumps({'frames': relay.frames, 'waits': relay.waits, 'dropped': relay.dropped}))

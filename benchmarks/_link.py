"""One end of an image link, as a process: `_link.py publish|subscribe <setup> <topic> <size> <n>`.

The publisher prints a line when it is matched, waits for a line on its standard input, sends n
numbered frames, prints what it sent, and stays until its standard input ends, since a reliable
link may have to repeat some. The subscriber prints what it received when its input ends. Times
are in ns of the monotonic clock, which all processes of a machine share.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rclpy.executors import Executor
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.executor import make_executor
from muon_ad_nodes.parts.executor import spinning
from muon_ad_nodes.parts.images import to_message
from muon_ad_nodes.parts.pacing import Pacer
from muon_ad_nodes.parts.stamps import nanoseconds
from muon_ad_nodes.parts.stamps import to_stamp

FPS = 30.0
MATCH_S = 20.0
WARM_UP = 15    # frames sent first, with negative numbers


def fill_plainly(pixels: np.ndarray, stamp_ns: int, number: int) -> Image:
    """Return a message made as tutorials make it."""
    message = Image()
    message.header.stamp = to_stamp(stamp_ns)
    message.header.frame_id = str(number)
    message.height, message.width = pixels.shape[:2]
    message.encoding = 'rgb8'
    message.step = 3 * pixels.shape[1]
    message.data = pixels.tobytes()
    return message


def fill_as_suite(pixels: np.ndarray, stamp_ns: int, number: int) -> Image:
    """Return a message made as the suite's cameras make it."""
    return to_message(pixels, 'rgb8', to_stamp(stamp_ns), str(number))


@dataclass(frozen=True)
class Setup:
    """How a link is set up in Python; its environment is set up by who starts it."""

    publish: QoSProfile | int
    subscribe: QoSProfile | int
    fill: Callable[[np.ndarray, int, int], Image]
    executor: Callable[[], Executor]


SETUPS = {
    'suite': Setup(qos.PUBLISH, qos.SENSOR, fill_as_suite, make_executor),
    # rclpy's own default, and what its documentation recommends for sensors.
    'reliable': Setup(10, 10, fill_plainly, SingleThreadedExecutor),
    'best_effort': Setup(
        qos_profile_sensor_data, qos_profile_sensor_data, fill_plainly, SingleThreadedExecutor
    ),
}


def publish(setup: Setup, topic: str, size: tuple[int, int], count: int) -> None:
    """Send `count` frames of `size` (width, height), after the warm-up."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    sent = []
    with spinning(lambda: Node('link_publisher'), setup.executor) as node:
        publisher = node.create_publisher(Image, topic, setup.publish)
        _wait_until(lambda: publisher.get_subscription_count() > 0, f'a subscriber of {topic}')
        print('matched', flush=True)
        sys.stdin.readline()
        pacer, never = Pacer(FPS, skip=False), threading.Event()
        for number in range(-WARM_UP, count):
            pacer.wait(never)
            begun = time.monotonic_ns()
            message = setup.fill(pixels, begun, number)
            filled = time.monotonic_ns()
            publisher.publish(message)
            if number >= 0:
                sent.append((begun, filled - begun))
        print(json.dumps(sent), flush=True)
        sys.stdin.read()


def subscribe(setup: Setup, topic: str) -> None:
    """Collect (stamp, time of receipt) of every frame after the warm-up."""
    received = []

    def receive(message: Image) -> None:
        now = time.monotonic_ns()
        if int(message.header.frame_id) >= 0:
            received.append((nanoseconds(message.header.stamp), now))

    with spinning(lambda: Node('link_subscriber'), setup.executor) as node:
        node.create_subscription(Image, topic, receive, setup.subscribe)
        sys.stdin.read()
    print(json.dumps(received))


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + MATCH_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f'waited {MATCH_S:g} s in vain for {what}')
        time.sleep(0.01)


if __name__ == '__main__':
    end, name, link_topic, link_size, frames = sys.argv[1:]
    if end == 'publish':
        width, height = map(int, link_size.split('x'))
        publish(SETUPS[name], link_topic, (width, height), int(frames))
    else:
        subscribe(SETUPS[name], link_topic)

"""A camera of known timing, as a process: `_camera.py <topic> <width>x<height>`.

Each line on its standard input is a rate in frames a second, 0 for none, taken at once. It answers
with a line of JSON: the frames sent so far, and when the first frame at this rate is due (ns since
the epoch). Stamps are the moments at which frames are due, not those at which they were sent, so
that a camera that comes late shows in the age of the results. Like a live camera, one that is late
by more than a frame loses what it missed. Ends with its standard input.
"""

import json
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image

from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.executor import spinning
from muon_ad_nodes.parts.images import to_message
from muon_ad_nodes.parts.stamps import to_stamp

IDLE_S = 0.01
FRAMES = 8      # different ones, in turn


@dataclass
class Schedule:
    """Which frame is due when: number n at `first_ns` + n / `fps`; none where `fps` is 0."""

    fps: float = 0.0
    first_ns: int = 0
    number: int = 0

    def due_ns(self) -> int:
        """Return when the next frame is due."""
        return self.first_ns + round(self.number * 1e9 / self.fps)

    def advance(self, now_ns: int) -> None:
        """Go on to the next frame, or to the newest that is due where more than one is."""
        newest = int((now_ns - self.first_ns) * self.fps / 1e9)
        self.number = max(self.number + 1, newest)


def send(publisher: Publisher, size: tuple[int, int], lines: 'Lines') -> None:
    """Send frames until there are no more lines."""
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES, size[1], size[0], 3), np.uint8)
    schedule, sent = Schedule(), 0
    while not lines.ended:
        rate = lines.take()
        if rate is not None:
            schedule = Schedule(rate, time.time_ns())
            print(json.dumps({'sent': sent, 'first_ns': schedule.first_ns}), flush=True)
        if not schedule.fps:
            time.sleep(IDLE_S)
            continue
        due = schedule.due_ns()
        time.sleep(min(max(due - time.time_ns(), 0) * 1e-9, IDLE_S))
        if time.time_ns() >= due:
            pixels = noise[sent % FRAMES]
            publisher.publish(to_message(pixels, 'rgb8', to_stamp(due), 'camera'))
            sent += 1
            schedule.advance(time.time_ns())


class Lines:
    """The newest rate on standard input, read in a thread of its own."""

    def __init__(self) -> None:
        self.ended = False
        self._rate: float | None = None
        threading.Thread(target=self._read, daemon=True).start()

    def take(self) -> float | None:
        """Return the newest rate, once."""
        rate, self._rate = self._rate, None
        return rate

    def _read(self) -> None:
        for line in sys.stdin:
            self._rate = float(line)
        self.ended = True


if __name__ == '__main__':
    topic, (width, height) = sys.argv[1], map(int, sys.argv[2].split('x'))
    with spinning(lambda: Node('benchmark_camera')) as node:
        send(node.create_publisher(Image, topic, qos.PUBLISH), (width, height), Lines())

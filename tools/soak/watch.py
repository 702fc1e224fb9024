"""Listens to a running suite: which results flow, what the nodes count, who was given up."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import partial

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import Image

from muon_ad_msgs.msg import DetectionArray
from muon_ad_msgs.msg import SyncStatus
from muon_ad_msgs.msg import TaskStatus
from muon_ad_msgs.srv import InjectFault
from muon_ad_nodes.parts import qos

# A frame that waits for its task and one in work are neither results nor dropped yet.
UNDER_WAY = 2
TASKS = ('style_transfer', 'object_detector')


@dataclass
class Results:
    """When the results of one topic came, in steady seconds."""

    count: int = 0
    last: float = 0.0
    gaps: list[tuple[float, float]] = field(default_factory=list)   # begin and end of long ones


class Watch(Node):
    """Results, statuses and diagnostics of a suite; safe to ask from another thread.

    A pause of more than `gap_s` between two results of a topic is kept as a gap.
    """

    def __init__(
        self, nodes: Sequence[str], topics: dict[str, type], cameras: Sequence[str], gap_s: float
    ) -> None:
        super().__init__('soak')
        self._lock = threading.Lock()
        self._gap_s = gap_s
        self.results = {topic: Results() for topic in topics}
        self.statuses: dict[str, TaskStatus] = {}
        self.wrong: list[str] = []          # counters that do not add up
        self.given_up: set[str] = set()
        self._listening = [
            # Unpacking images would cost a tenth of a core.
            self.create_subscription(kind, topic, partial(self._on_result, topic), qos.SENSOR,
                                     raw=True)
            for topic, kind in topics.items()
        ]
        self._listening += [
            self.create_subscription(
                TaskStatus, f'{name}/status', partial(self._on_status, name), qos.LATCHED
            )
            for name in nodes
        ]
        self._listening += [
            self.create_subscription(
                SyncStatus, '/frame_sync/sync_status', self._on_sync_status, qos.LATCHED
            ),
            self.create_subscription(
                DiagnosticArray, '/diagnostics', self._on_diagnostics, qos.PUBLISH
            ),
        ]
        self._injectors: dict[str, Client] = {
            name: self.create_client(InjectFault, f'{name}/inject_fault') for name in cameras
        }

    def pids(self) -> dict[str, int]:
        """Return the process of each node that has said something."""
        with self._lock:
            return {name: status.pid for name, status in self.statuses.items()}

    def counts(self) -> dict[str, int]:
        """Return how many results came of each topic."""
        with self._lock:
            return {topic: each.count for topic, each in self.results.items()}

    def inject(self, camera: str, text: str, wait_s: float) -> str:
        """Have a camera misbehave; return '' or why it would not."""
        client = self._injectors[camera]
        if not client.wait_for_service(wait_s):
            return 'no such service'
        answered = threading.Event()
        reply: Future = client.call_async(InjectFault.Request(fault=text))
        reply.add_done_callback(lambda _reply: answered.set())
        if not answered.wait(wait_s):
            return f'no answer within {wait_s:g} s'
        return '' if reply.result().success else reply.result().message

    def finish(self) -> None:
        """Close the gap of every topic that is silent now."""
        now = time.monotonic()
        with self._lock:
            for each in self.results.values():
                if each.last and now - each.last > self._gap_s:
                    each.gaps.append((each.last, now))

    def _on_result(self, topic: str, _data: bytes) -> None:
        now = time.monotonic()
        with self._lock:
            each = self.results[topic]
            if each.last and now - each.last > self._gap_s:
                each.gaps.append((each.last, now))
            each.count += 1
            each.last = now

    def _on_status(self, name: str, status: TaskStatus) -> None:
        with self._lock:
            self.wrong += contradictions(name, self.statuses.get(name), status)
            self.statuses[name] = status

    def _on_sync_status(self, status: SyncStatus) -> None:
        with self._lock:
            self.wrong += sync_contradictions(status)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        with self._lock:
            self.given_up |= {
                each.name for each in array.status if each.message.startswith('given up')
            }


def contradictions(name: str, before: TaskStatus | None, status: TaskStatus) -> list[str]:
    """Return which counters of a status contradict each other, or the one before."""
    found = []
    counters = ('received', 'frames', 'dropped_newer', 'dropped_invalid')
    values = {each: getattr(status, each) for each in counters}
    same = before is not None and before.pid == status.pid
    if same and before.state == status.state == 'active':
        found += [
            f'{name}: {each} went from {getattr(before, each)} to {value}'
            for each, value in values.items() if value < getattr(before, each)
        ]
    accounted = values['frames'] + values['dropped_newer'] + values['dropped_invalid']
    under_way = values['received'] - accounted
    if name.rpartition('/')[2] in TASKS and not 0 <= under_way <= UNDER_WAY:
        found.append(f'{name}: {under_way} frames are neither results nor dropped: {values}')
    return found


def sync_contradictions(status: SyncStatus) -> list[str]:
    """Return the streams whose messages are not all accounted for."""
    found = []
    for each in status.streams:
        reasons = (
            each.unmatched_no_partner, each.unmatched_silent, each.unmatched_queue_full,
            each.unmatched_late, each.unmatched_invalid,
        )
        accounted = each.matched + sum(reasons) + each.waiting
        if each.received != accounted:
            found.append(f'frame_sync: {each.name} received {each.received}, knows {accounted}')
    return found


# What a multitask launch with frame_sync delivers.
TOPICS = {
    '/camera/style/image': Image,
    '/csi/style/image': Image,
    '/camera/detections': DetectionArray,
    '/csi/detections': DetectionArray,
    '/synced/color/image_raw': Image,
}

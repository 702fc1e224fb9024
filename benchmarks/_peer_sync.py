"""The peer of benchmarks/sync.py: ApproximateTimeSynchronizer of message_filters (Python).

Imported where ROS brings it. Elsewhere its algorithm written anew, from reading it: a message that
comes looks in each other queue for stamps within the slop, nearest first, and the first
combination that spans less than the slop is a set. It neither waits nor takes anything back.
"""

import itertools
from collections.abc import Callable
from types import SimpleNamespace

Found = Callable[[tuple[int, ...]], None]


class Rewritten:
    """The algorithm alone, on stamps in nanoseconds."""

    def __init__(self, streams: int, queue_size: int, slop: int, found: Found) -> None:
        self._queues: list[set[int]] = [set() for _ in range(streams)]
        self._queue_size = queue_size
        self._slop = slop
        self._found = found

    def add(self, stream: int, stamp: int) -> None:
        """Take a message in; `found` is called with the stamps of a set."""
        own = self._queues[stream]
        own.add(stamp)
        while len(own) > self._queue_size:
            own.remove(min(own))
        near = [
            [stamp] if queue is own else sorted(
                (other for other in queue if abs(other - stamp) <= self._slop),
                key=lambda other: abs(other - stamp),
            )
            for queue in self._queues
        ]
        for stamps in itertools.product(*near):
            complete = all(at in queue for at, queue in zip(stamps, self._queues, strict=True))
            if complete and max(stamps) - min(stamps) < self._slop:
                for at, queue in zip(stamps, self._queues, strict=True):
                    queue.remove(at)
                self._found(stamps)
                return


class Imported:
    """The same through message_filters, whose messages need no more than a header."""

    def __init__(self, streams: int, queue_size: int, slop: int, found: Found) -> None:
        from message_filters import ApproximateTimeSynchronizer
        from message_filters import SimpleFilter
        from rclpy.time import Time

        self._time = Time
        self._inputs = [SimpleFilter() for _ in range(streams)]
        self._synchronizer = ApproximateTimeSynchronizer(self._inputs, queue_size, slop * 1e-9)
        self._synchronizer.registerCallback(
            lambda *messages: found(tuple(message.nanoseconds for message in messages))
        )

    def add(self, stream: int, stamp: int) -> None:
        """Take a message in; `found` is called with the stamps of a set."""
        header = SimpleNamespace(stamp=self._time(nanoseconds=stamp))
        self._inputs[stream].signalMessage(SimpleNamespace(header=header, nanoseconds=stamp))


def peer() -> tuple[str, type]:
    """Return how the peer was got, and its class."""
    try:
        import message_filters  # noqa: F401
    except ImportError:
        return 'written anew', Rewritten
    return 'imported', Imported

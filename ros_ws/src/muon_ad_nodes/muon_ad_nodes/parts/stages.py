"""What a task measures of itself: stage latencies, rate, drops, and its process."""

import threading
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from muon_ad_msgs.msg import DropReason
from muon_ad_msgs.msg import StageLatency
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts.drop_reasons import DropReasons
from muon_ad_nodes.parts.frame_times import FrameTimes
from muon_ad_nodes.parts.percentiles import LatencyWindow

# Long enough for a 99th percentile to mean something at 30 frames a second.
WINDOW_FRAMES = 512
RATE_WINDOW_S = 3.0


class TaskMonitor:
    """Counters and latency windows of one task, safe to use from several threads.

    `now_ns` gives the node's clock, in which stamps are made; rates and stages use steady time.
    `tell` is given the way of every frame that the task is done with, and why it was dropped.
    """

    def __init__(
        self,
        now_ns: Callable[[], int],
        tell: Callable[[FrameTimes, str], None] = lambda _times, _dropped: None,
    ) -> None:
        self._now_ns = now_ns
        self._tell = tell
        self._lock = threading.Lock()
        self._process = psutil.Process()
        self._process.cpu_percent()
        self.deadline_ms = 0.0
        self._busy_since: float | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        with self._lock:
            self.frames = 0
            self.received_frames = 0
            self.dropped_newer_frames = 0
            self.dropped_invalid_frames = 0
            self.deadline_misses = 0
            self._drops = DropReasons()
            self._stages: dict[str, LatencyWindow] = {}
            self._moments: deque[float] = deque(maxlen=WINDOW_FRAMES)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Mark the block as work on one frame: by it a supervisor tells a task that hangs."""
        self._busy_since = time.monotonic()
        try:
            yield
        finally:
            self._busy_since = None

    @property
    def busy_s(self) -> float:
        """Seconds that the work on a frame has taken so far; 0 while there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def received(self) -> None:
        """Count a frame that came in."""
        with self._lock:
            self.received_frames += 1

    def begin(
        self,
        stamp_ns: int,
        frame_ids: tuple[str, ...] = (),
        captured: bool = False,
        at_ns: int | None = None,
    ) -> FrameTimes:
        """Return the way of a frame that the task has got now, or at a moment of the steady clock.

        Its stage `capture` is over.
        """
        now_ns = time.monotonic_ns()
        begun_ns = now_ns - (self._now_ns() - stamp_ns)
        times = FrameTimes(stamp_ns, begun_ns, frame_ids, captured)
        times.mark('capture', now_ns if at_ns is None else at_ns)
        return times

    def dropped_newer(self, reason: str, times: FrameTimes) -> None:
        """Count a frame that was not worked on, for a newer one came or the task stopped."""
        with self._lock:
            self.dropped_newer_frames += 1
            self._drops.add(reason)
        self._tell(times, reason)

    def dropped_invalid(self, reason: str, times: FrameTimes | None = None) -> None:
        """Count a frame that was refused; of some there are no times."""
        with self._lock:
            self.dropped_invalid_frames += 1
            self._drops.add(reason)
        if times is not None:
            self._tell(times, reason)

    def published(self, times: FrameTimes) -> None:
        """Count a result, the stages of whose source frame are all over."""
        stages_ms = times.stages_ms()
        with self._lock:
            self.frames += 1
            self._moments.append(time.monotonic())
            if self.deadline_ms and stages_ms['total'] > self.deadline_ms:
                self.deadline_misses += 1
            for name, value in stages_ms.items():
                if name not in self._stages:
                    self._stages[name] = LatencyWindow(WINDOW_FRAMES)
                self._stages[name].add(value)
        self._tell(times, '')

    def fill(self, status: TaskStatus) -> None:
        """Write everything measured into `status`."""
        with self._lock:
            status.frames = self.frames
            status.received = self.received_frames
            status.dropped_newer = self.dropped_newer_frames
            status.dropped_invalid = self.dropped_invalid_frames
            status.deadline_misses = self.deadline_misses
            status.deadline_ms = float(self.deadline_ms)
            status.fps = self._rate()
            status.busy_s = self.busy_s
            drops = self._drops.counts()
            windows = {name: window.copy() for name, window in self._stages.items()}
        # Not under the lock, which a frame may wait for.
        status.drops = [DropReason(reason=reason, frames=n) for reason, n in drops.items()]
        status.stages = [_latency(name, window) for name, window in windows.items()]
        status.cpu_percent = float(self._process.cpu_percent())
        status.rss_mb = self._process.memory_info().rss / 1e6

    def _rate(self) -> float:
        recent = time.monotonic() - RATE_WINDOW_S
        while self._moments and self._moments[0] < recent:
            self._moments.popleft()
        if len(self._moments) < 2:
            return 0.0
        span = self._moments[-1] - self._moments[0]
        return (len(self._moments) - 1) / span if span > 0 else 0.0


def _latency(name: str, window: LatencyWindow) -> StageLatency:
    p50, p95, p99 = window.percentiles(50, 95, 99)
    return StageLatency(name=name, p50_ms=p50, p95_ms=p95, p99_ms=p99, max_ms=window.maximum)

"""What a task measures of itself: stage latencies, rate, drops, and its process."""

import threading
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil

from muon_ad_msgs.msg import StageLatency
from muon_ad_msgs.msg import TaskStatus

# Long enough for a 99th percentile to mean something at 30 frames a second.
WINDOW_FRAMES = 512
RATE_WINDOW_S = 3.0


class TaskMonitor:
    """Counters and latency windows of one task, safe to use from several threads.

    `now_ns` gives the node's clock, in which stamps are made; rates use steady time.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
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
            self._stages: dict[str, deque[float]] = {}
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

    def dropped_newer(self, frames: int = 1) -> None:
        """Count frames that a newer one replaced before work on them began."""
        with self._lock:
            self.dropped_newer_frames += frames

    def dropped_invalid(self) -> None:
        """Count a frame that was refused."""
        with self._lock:
            self.dropped_invalid_frames += 1

    def published(self, stamp_ns: int, **stages_ms: float) -> None:
        """Count a result whose source frame has stamp `stamp_ns`, with its stage times."""
        age_ms = (self._now_ns() - stamp_ns) * 1e-6
        with self._lock:
            self.frames += 1
            self._moments.append(time.monotonic())
            if self.deadline_ms and age_ms > self.deadline_ms:
                self.deadline_misses += 1
            for name, value in {**stages_ms, 'total': age_ms}.items():
                self._stages.setdefault(name, deque(maxlen=WINDOW_FRAMES)).append(value)

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
            status.stages = [_latency(name, window) for name, window in self._stages.items()]
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


def _latency(name: str, window: deque[float]) -> StageLatency:
    p50, p95, p99 = np.percentile(np.fromiter(window, np.float64), (50, 95, 99))
    return StageLatency(
        name=name,
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        max_ms=float(max(window)),
    )

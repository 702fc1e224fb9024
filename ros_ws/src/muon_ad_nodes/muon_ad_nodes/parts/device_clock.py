"""Maps the time stamps of a device to the clock of the node that receives its frames.

A device counts in a clock of its own, which drifts against the node's, may wrap around (32 bits of
microseconds: 71 min) and may jump, as the node's clock may. Each frame tells the device's time and
when it arrived, late by a latency that nobody can know and by jitter. What is fitted is the
offset between the clocks as a line over the device's time.

The reference is the earliest arrivals: the line that leaves EARLIEST of the frames of the last
WINDOW_S below it (quantile regression; Koenker and Bassett, Econometrica 46, 1978). A busy host
delays frames, by any amount, but hurries none, so this edge stays where it is under load, where an
average would move. So a mapped time is when the frame would have come in with the shortest
latency seen; where the jitter is symmetric, it is early by a constant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

WRAP_32_BIT_US_NS = (1 << 32) * 1000
EARLIEST = 0.08         # low for a sharp edge, yet high enough for a steady one
FIRST = 0.01
MAX_DRIFT = 1e-3        # more than any quartz; more than NTP slews a clock (5e-4)
WINDOW_S = 600.0
RECENT_S = 10.0         # what must agree with the line
REFIT_S = 5.0
# A frame that is early by more than this, or by 4 times the usual scatter, is off.
MIN_TOLERANCE_S = 0.005
UNSETTLED_TOLERANCE_S = 0.02
MAX_DELAY_S = 1.0       # no frame is on its way for longer
SETTLED = 30            # frames until the fit is trusted to tell a jump
OFF_FRAMES = 4          # that many in a row are a jump
LATE_S = 1.0            # for that long, even the earliest frame is late: a jump
BISECTIONS = 22         # of twice MAX_DRIFT: below a microsecond over the whole window
_S = 1_000_000_000


@dataclass(frozen=True)
class Line:
    """Offset of the node's clock over the device's: `offset` ns at device time `origin`, and
    `slope` per ns of it. `scatter` is by how much the median frame lies above, in ns."""

    origin: int
    offset: int
    slope: float = 0.0
    scatter: float = 0.0

    def at(self, device_ns: int) -> int:
        """Return the offset at a time of the device."""
        return self.offset + round(self.slope * (device_ns - self.origin))


class DeviceClock:
    """The clock of one device, learnt frame by frame.

    A clock that starts over after `wrap_ns` is unwrapped by the arrivals, one that does not is
    not harmed; None for one that cannot. Times are nanoseconds. After a jump of either clock the
    fit starts anew.
    """

    def __init__(self, wrap_ns: int | None = WRAP_32_BIT_US_NS) -> None:
        self._wrap_ns = wrap_ns
        self._device: deque[int] = deque()
        self._offset: deque[int] = deque()
        self._line: Line | None = None
        self._fitted = 0        # frames in the last fit
        self._fitted_at = 0
        # Device and arrival of frames in a row that are off the line, or late.
        self._off: deque[tuple[int, int]] = deque(maxlen=OFF_FRAMES)
        self._late: deque[tuple[int, int]] = deque()
        self._last = (0, 0)     # device and arrival of the last frame
        self._stamp = 0
        self.jumps = 0

    @property
    def residual_ms(self) -> float:
        """By how much the median frame came in later than its mapped time, in milliseconds."""
        return self._line.scatter * 1e-6 if self._line else 0.0

    @property
    def error_ms(self) -> float:
        """Standard error of a mapped time against the reference, in milliseconds.

        That of the newest end of a line (twice that of its middle), for normal jitter.
        """
        return 2 * 1.3 * self.residual_ms / max(len(self._device), 1) ** 0.5

    @property
    def drift_ppm(self) -> float:
        """By how much the device's clock is faster than the node's, in parts per million."""
        slope = self._line.slope if self._line else 0.0
        return -slope / (1 + slope) * 1e6

    def to_node(self, device_ns: int, arrival_ns: int) -> int:
        """Return the node's time of a frame taken at `device_ns` that came in at `arrival_ns`.

        Rises from call to call, unless the node's clock was set back. A frame that is late by more
        than MAX_DELAY_S, so that either clock must have jumped, gets its arrival; none gets much
        more than that.
        """
        device_ns = self._unwrapped(device_ns, arrival_ns)
        gap = arrival_ns - self._last[1]
        if self._line is None or gap > WINDOW_S * _S:
            apart = abs(gap - (device_ns - self._last[0]))
            self.jumps += self._line is not None and apart > MAX_DELAY_S * _S + MAX_DRIFT * gap
            self._restart([(device_ns, arrival_ns)])
        delay = arrival_ns - device_ns - self._line.at(device_ns)
        if -self._tolerance <= delay <= MAX_DELAY_S * _S:
            self._off.clear()
            self._learn(device_ns, arrival_ns, delay)
        else:
            self._off.append((device_ns, arrival_ns))
            if len(self._off) == OFF_FRAMES and self._agree(self._off):
                self._jumped(self._off)
        stamp = min(device_ns + self._line.at(device_ns), arrival_ns + round(self._tolerance))
        if arrival_ns - stamp > MAX_DELAY_S * _S:
            stamp = arrival_ns
        if arrival_ns >= self._last[1]:
            stamp = max(stamp, self._stamp + 1)
        self._last = device_ns, arrival_ns
        self._stamp = stamp
        return stamp

    @property
    def _tolerance(self) -> float:
        least = UNSETTLED_TOLERANCE_S if len(self._device) < SETTLED else MIN_TOLERANCE_S
        return max(least * _S, 4 * self._line.scatter)

    def _unwrapped(self, device_ns: int, arrival_ns: int) -> int:
        """Add the wraps that make the device's time go on from the last frame."""
        if self._wrap_ns is None or self._line is None:
            return device_ns
        expected = self._last[0] + arrival_ns - self._last[1]
        return device_ns + round((expected - device_ns) / self._wrap_ns) * self._wrap_ns

    def _learn(self, device_ns: int, arrival_ns: int, delay: int) -> None:
        self._device.append(device_ns)
        self._offset.append(arrival_ns - device_ns)
        while device_ns - self._device[0] > WINDOW_S * _S:
            self._device.popleft()
            self._offset.popleft()
        if delay <= self._tolerance:
            self._late.clear()
        else:
            self._late.append((device_ns, arrival_ns))
            if arrival_ns - self._late[0][1] > LATE_S * _S:
                if self._agree(self._late):
                    self._jumped(self._late)
                    return
                self._late.popleft()
        due = device_ns - self._fitted_at > REFIT_S * _S
        if due or len(self._device) > 1.05 * self._fitted:
            self._refit()

    def _agree(self, pairs: Iterable[tuple[int, int]]) -> bool:
        """Whether these frames are off by the same, as after a jump, but not after a stall."""
        offsets = [arrival - device for device, arrival in pairs]
        return np.median(offsets) - min(offsets) < self._tolerance

    def _jumped(self, pairs: Iterable[tuple[int, int]]) -> None:
        self.jumps += len(self._device) >= SETTLED
        self._restart(pairs)

    def _restart(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Forget everything but these frames (device, arrival)."""
        pairs = list(pairs)
        self._device = deque(device for device, _ in pairs)
        self._offset = deque(arrival - device for device, arrival in pairs)
        self._off.clear()
        self._late.clear()
        self._refit()

    def _refit(self) -> None:
        device, offset = np.array(self._device), np.array(self._offset)
        line = fit_line(device, offset)
        recent = device >= device[-1] - RECENT_S * _S
        if _disagree(line, device, offset, recent):
            # The clocks went apart by less than a jump: what was before misleads.
            pairs = zip(device[recent].tolist(), offset[recent].tolist(), strict=True)
            self._restart([(device, device + offset) for device, offset in pairs])
            return
        self._line = line
        self._fitted, self._fitted_at = len(device), device[-1]


def _disagree(line: Line, device: np.ndarray, offset: np.ndarray, recent: np.ndarray) -> bool:
    """Whether the `recent` points show another edge than all of them do."""
    count = recent.sum()
    if count < SETTLED or recent.all():
        return False
    above = offset - line.offset - line.slope * (device - line.origin)
    # Six times the standard error of the quantile, for normal jitter.
    allowed = max(1e-3 * _S, 8 * line.scatter / count ** 0.5)
    early = -np.quantile(above[recent], EARLIEST)
    # Load delays most of the frames, but not the very first.
    late = np.quantile(above[recent], FIRST) - np.quantile(above, FIRST)
    return early > allowed or late > 2 * allowed


def fit_line(device: np.ndarray, offset: np.ndarray) -> Line:
    """Return the line with EARLIEST of the points below it; both int64 [N], in ns.

    The loss of quantile regression is convex in the slope, so its minimum is found by bisection
    on its derivative, the best offset for each slope being a quantile.
    """
    origin, base = int(device[-1]), int(offset[-1])
    x, y = (device - origin).astype(float), (offset - base).astype(float)
    middle = x.mean()
    rank = int(EARLIEST * (len(x) - 1))
    low, high = -MAX_DRIFT, MAX_DRIFT
    for _ in range(BISECTIONS):
        slope = (low + high) / 2
        above = y - slope * x
        rises = (EARLIEST - (above < np.partition(above, rank)[rank])) @ (x - middle) > 0
        low, high = (slope, high) if rises else (low, slope)
    slope = (low + high) / 2
    above = np.sort(y - slope * x)
    start = above[rank]
    return Line(origin, base + round(start), slope, float(np.median(above) - start))

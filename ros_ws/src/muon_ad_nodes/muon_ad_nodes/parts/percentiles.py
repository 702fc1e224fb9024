"""Percentiles of a stream of latencies: bounded memory, a window that slides, 1 % of error."""

import math

import numpy as np

# Of a percentile, relative to the value it stands for. Buckets grow by a constant factor, and each
# is answered for by the value between its ends whose relative error is the same at both.
ACCURACY = 0.01
_GROWTH = (1 + ACCURACY) / (1 - ACCURACY)
_SCALE = 1 / math.log(_GROWTH)
# What is shorter counts as 0, as do stamps from the future; what is longer counts as this long.
_SHORTEST_MS, _LONGEST_MS = 1e-3, 1e6
_BUCKETS = math.ceil(math.log(_LONGEST_MS / _SHORTEST_MS) * _SCALE) + 1
_ANSWERS = _SHORTEST_MS * _GROWTH ** np.arange(_BUCKETS) * 2 / (1 + _GROWTH)
_ANSWERS[0] = 0.0


class _Half:
    """A histogram, and the largest value in it."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BUCKETS, np.uint32)
        self.clear()

    def clear(self) -> None:
        self.counts[:] = 0
        self.values = 0
        self.maximum = -math.inf

    def add(self, value_ms: float) -> None:
        value_ms = max(value_ms, 0.0)
        self.counts[_bucket(value_ms)] += 1
        self.values += 1
        self.maximum = max(self.maximum, value_ms)

    def copy(self) -> '_Half':
        twin = _Half()
        twin.counts[:] = self.counts
        twin.values, twin.maximum = self.values, self.maximum
        return twin


class LatencyWindow:
    """The newest latencies of a stage, in milliseconds: between `half` and twice as many.

    Values fill one of two histograms; when it has `half` of them the older one is emptied and
    takes its turn. So adding costs the same whatever the window, and nothing is sorted. Not safe
    for several threads: take a `copy` under a lock, and ask that.
    """

    def __init__(self, half: int) -> None:
        self._half = half
        self._newer, self._older = _Half(), _Half()

    def __len__(self) -> int:
        return self._newer.values + self._older.values

    def add(self, value_ms: float) -> None:
        """Take in a value."""
        if self._newer.values == self._half:
            self._newer, self._older = self._older, self._newer
            self._newer.clear()
        self._newer.add(value_ms)

    def copy(self) -> 'LatencyWindow':
        """Return the window as it is now."""
        twin = LatencyWindow(self._half)
        twin._newer, twin._older = self._newer.copy(), self._older.copy()
        return twin

    @property
    def maximum(self) -> float:
        """The largest value, exactly; there must be one."""
        return max(self._newer.maximum, self._older.maximum)

    def percentiles(self, *percents: float) -> list[float]:
        """Return the least values that so many percent do not exceed; there must be values.

        Each is within ACCURACY of a value that was added, or within a microsecond.
        """
        reached = np.cumsum(self._newer.counts + self._older.counts)
        ranks = [max(1, math.ceil(percent * len(self) / 100)) for percent in percents]
        answers = _ANSWERS[np.searchsorted(reached, ranks)]
        return [min(float(answer), self.maximum) for answer in answers]


def _bucket(value_ms: float) -> int:
    if value_ms <= _SHORTEST_MS:
        return 0
    value_ms = min(value_ms, _LONGEST_MS)
    return min(math.ceil(math.log(value_ms / _SHORTEST_MS) * _SCALE), _BUCKETS - 1)

"""The time of a recording while it is played: at a rate, with pauses and single steps."""

import threading
import time
from collections.abc import Callable
from collections.abc import Iterable

_SECOND = 1_000_000_000
# Between two rounds of a loop, where a bag has no step or an odd one.
_SHORTEST_STEP_S, _LONGEST_STEP_S = 0.01, 1.0


def between_rounds_s(counts: Iterable[int], duration_s: float, rate: float) -> float:
    """Return how long the last messages of a loop stand, in seconds of this world.

    As long as those of the busiest of the topics, which have `counts` messages in `duration_s`.
    """
    steps = max(counts) - 1
    step_s = duration_s / steps if steps > 0 else _LONGEST_STEP_S
    return min(max(step_s, _SHORTEST_STEP_S), _LONGEST_STEP_S) / rate


class Timeline:
    """Gives every message its turn in steady time, so that nothing drifts.

    `wall_ns` is the clock in which new stamps are made (`wall_time`). Safe to use from several
    threads; one of them waits.
    """

    def __init__(self, rate: float, paused: bool, wall_ns: Callable[[], int]) -> None:
        self._condition = threading.Condition()
        self._rate = rate
        self._paused = paused
        self._wall_ns = wall_ns
        self._steps = 0
        self._stopped = False
        self._due_ns = 0
        self._anchor(0)

    @property
    def paused(self) -> bool:
        """Whether time stands still."""
        return self._paused

    def begin(self, time_ns: int) -> None:
        """Let it be `time_ns` in the recording now."""
        with self._condition:
            self._due_ns = time_ns
            self._anchor(time_ns)

    def wait(self, time_ns: int, within_s: float | None = None) -> bool:
        """Wait for the turn of the message of `time_ns`.

        False where `stop` came before it, or `within_s` seconds were over; these end no pause.
        """
        end_ns = None if within_s is None else time.monotonic_ns() + int(within_s * _SECOND)
        with self._condition:
            self._due_ns = time_ns
            while not self._stopped:
                if self._paused and self._steps:
                    self._steps -= 1
                    self._anchor(time_ns)
                    return True
                left_s = None
                if not self._paused:
                    left_s = (time_ns - self._now_ns()) / (self._rate * _SECOND)
                    if left_s <= 0.0:
                        return True
                    if end_ns is not None:
                        rest_ns = end_ns - time.monotonic_ns()
                        if rest_ns <= 0:
                            return False
                        left_s = min(left_s, rest_ns / _SECOND)
                self._condition.wait(left_s)
            return False

    def late_s(self, time_ns: int) -> float:
        """Return how long ago, in seconds of this world, the turn of `time_ns` was."""
        with self._condition:
            return max(0.0, (self._now_ns() - time_ns) / (self._rate * _SECOND))

    def clock_ns(self) -> int:
        """Return the time in the recording; it never passes a message that was not sent yet."""
        with self._condition:
            return min(self._now_ns(), self._due_ns)

    def wall_time(self, time_ns: int) -> int:
        """Return when `time_ns` of the recording is, in the clock of stamps.

        Times that are equal stay so, but across a pause or a change of the rate.
        """
        with self._condition:
            return self._anchor_wall_ns + round((time_ns - self._anchor_ns) / self._rate)

    def set_rate(self, rate: float) -> None:
        """Play `rate` times as fast as recorded from now on."""
        with self._condition:
            self._anchor(self._now_ns())
            self._rate = rate
            self._condition.notify_all()

    def set_paused(self, paused: bool) -> None:
        """Stop time, or let it go on."""
        with self._condition:
            self._anchor(self._now_ns())
            self._paused = paused
            self._steps = 0
            self._condition.notify_all()

    def step(self) -> bool:
        """Let the next message pass; False, and nothing, where time does not stand still."""
        with self._condition:
            self._steps += self._paused
            self._condition.notify_all()
            return self._paused

    def stop(self) -> None:
        """End every wait, now and from now on."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def _now_ns(self) -> int:
        if self._paused:
            return self._anchor_ns
        passed = time.monotonic_ns() - self._anchor_steady_ns
        return self._anchor_ns + int(passed * self._rate)

    def _anchor(self, time_ns: int) -> None:
        self._anchor_ns = time_ns
        self._anchor_steady_ns = time.monotonic_ns()
        self._anchor_wall_ns = self._wall_ns()

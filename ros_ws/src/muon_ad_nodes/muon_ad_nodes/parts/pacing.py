"""Waiting for the next frame's turn, in steady time."""

import threading
import time


class Pacer:
    """Gives turns at `fps`, never faster.

    With `skip`, a consumer that is late loses the turns it missed, as with a live camera;
    without, it gets every turn, later. The first turn is at once.
    """

    def __init__(self, fps: float, skip: bool) -> None:
        self._period = 1.0 / fps
        self._skip = skip
        self._due = time.monotonic()

    def wait(self, stopping: threading.Event, deadline: float | None = None) -> bool:
        """Wait for the next turn; False where `stopping` was set, or `deadline` came, before it.

        `deadline` is in the time of `time.monotonic`.
        """
        end = self._due if deadline is None else min(self._due, deadline)
        if stopping.wait(max(end - time.monotonic(), 0.0)) or end < self._due:
            return False
        self._due = self._next(time.monotonic())
        return True

    def _next(self, now: float) -> float:
        following = self._due + self._period
        if now < following:
            return following
        if self._skip:
            return following + (now - following) // self._period * self._period + self._period
        return now + self._period

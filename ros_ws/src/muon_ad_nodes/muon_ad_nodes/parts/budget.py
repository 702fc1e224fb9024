"""The CPU time that a task may spend on its frames, as long as it wants a real-time class."""


class Budget:
    """Decides when a task loses its class, and when it gets it back.

    It loses it after `over` frames in a row that took more than `limit_ms` each, or within one
    frame that takes as much as they would; it gets it back after `within` frames in a row that did
    not. `kept` tells how things stand.
    """

    def __init__(self, limit_ms: float, over: int, within: int) -> None:
        self.limit_ms = limit_ms
        self.over = over
        self.within = within
        self.kept = True
        self._streak = 0

    @property
    def patience_ms(self) -> float:
        """What one frame alone may take before the class is lost."""
        return self.limit_ms * self.over

    def finished(self, spent_ms: float) -> bool:
        """Judge a frame that is done; return whether `kept` has changed."""
        speaks_against = (spent_ms > self.limit_ms) == self.kept
        self._streak = self._streak + 1 if speaks_against else 0
        return self._streak == (self.over if self.kept else self.within) and self._change()

    def under_way(self, spent_ms: float) -> bool:
        """Judge a frame in work by what it took so far; return whether `kept` has changed."""
        return self.kept and spent_ms > self.patience_ms and self._change()

    def _change(self) -> bool:
        self._streak = 0
        self.kept = not self.kept
        return True

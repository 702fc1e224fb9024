"""The way of one frame through a task: when each stage of it ended."""

import time
from dataclasses import dataclass
from dataclasses import field

# The stages in which a frame waits, many at a time; in the others a thread works on one frame.
WAITING = ('capture', 'wait', 'decide')


@dataclass
class FrameTimes:
    """The stages of a frame, which follow each other without gaps.

    `begun_ns` is its nominal capture, which `stamp_ns` tells in the node's clock; it and `ends_ns`
    are of the steady clock that all processes of a machine share (time.monotonic_ns).
    `frame_ids` are those of its images. `captured` tells the task that made the frame from those
    that received it.
    """

    stamp_ns: int
    begun_ns: int
    frame_ids: tuple[str, ...] = ()
    captured: bool = False
    ends_ns: list[tuple[str, int]] = field(default_factory=list)

    def mark(self, stage: str, at_ns: int | None = None) -> None:
        """End the stage under way, now or at a moment of the steady clock."""
        self.ends_ns.append((stage, time.monotonic_ns() if at_ns is None else at_ns))

    def stages_ms(self) -> dict[str, float]:
        """Return how long each stage took, and `total` for all of them."""
        spans = {}
        before_ns = self.begun_ns
        for stage, end_ns in self.ends_ns:
            spans[stage] = (end_ns - before_ns) * 1e-6
            before_ns = end_ns
        return {**spans, 'total': (before_ns - self.begun_ns) * 1e-6}

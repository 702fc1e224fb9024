"""Items on their way from one end to the other: held back, doubled or swapped by faults."""

from collections import deque
from collections.abc import Callable
from collections.abc import Iterable
from typing import Generic
from typing import TypeVar

from muon_ad.faults.fault import Fault

T = TypeVar('T')


class Line(Generic[T]):
    """One stream's items. They keep their order, but where a fault swaps two.

    `count` is told of each fault that touches an item.
    """

    def __init__(self, count: Callable[[Fault], None]) -> None:
        self._count = count
        self._number = 0
        self._due: deque[tuple[float, T]] = deque()
        self._behind: T | None = None

    def __len__(self) -> int:
        return len(self._due) + (self._behind is not None)

    @property
    def next_s(self) -> float | None:
        """When the next item is due; None where none waits for its time."""
        return self._due[0][0] if self._due else None

    def put(self, item: T, faults: Iterable[Fault], now_s: float) -> None:
        """Add an item, which `faults` (those on now) delay, double or swap with the next."""
        self._number += 1
        doubled = swapped = False
        for fault in faults:
            hit = fault.kind in ('duplicate', 'reorder') and (
                self._number % int(fault.amounts['every']) == 0
            )
            doubled |= hit and fault.kind == 'duplicate'
            swapped |= hit and fault.kind == 'reorder' and self._behind is None
            if fault.kind in ('slow', 'late_info'):
                now_s += fault.amounts['ms'] * 1e-3
                hit = True
            if hit:
                self._count(fault)
        if swapped:
            self._behind = item
            return
        after, self._behind = self._behind, None
        for one in (item, *((item,) if doubled else ()), *((after,) if after is not None else ())):
            # No item overtakes one that is held back, even where the fault has ended meanwhile.
            due = max(now_s, self._due[-1][0]) if self._due else now_s
            self._due.append((due, one))

    def take(self, now_s: float) -> T | None:
        """Return the next item that is due, or None."""
        return self._due.popleft()[1] if self._due and self._due[0][0] <= now_s else None

    def rest(self) -> list[T]:
        """Return and forget everything that is held back, in order."""
        left = [item for _, item in self._due]
        if self._behind is not None:
            left.append(self._behind)
        self._due.clear()
        self._behind = None
        return left

"""A source of frames that fails on purpose: gone, silent, slow, out of order, its clock wrong."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from muon_ad.faults import Fault
from muon_ad.faults import FaultPlan
from muon_ad.faults.fault import WRAP_NS
from muon_ad.faults.line import Line
from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import Source
from muon_ad_nodes.parts.source import SourceError

_CLOCK_FAULTS = ('jump', 'drift', 'wrap')


def refuse_unplugged(plan: FaultPlan, now_s: float) -> None:
    """Raise SourceError while the plan has the camera unplugged."""
    for fault in plan.active(now_s):
        if fault.of_source and fault.kind == 'unplug':
            plan.count(fault)
            raise SourceError(f'the camera is unplugged (injected fault: {fault})')


class FaultySource:
    """Wraps a source; `clock` gives the plan's time. A source itself.

    Frames that come during a stall are read and thrown away, counted, so that a camera's queue
    does not deliver them later. A source without a device clock is given one, of microseconds.
    """

    def __init__(self, source: Source, plan: FaultPlan, clock: Callable[[], float]) -> None:
        self._source = source
        self._plan = plan
        self._clock = clock
        self._line: Line[tuple[Frame, float]] = Line(plan.count)
        self._origin_ns = time.monotonic_ns()

    def read(self, stopping: threading.Event, timeout_s: float) -> Frame | None:
        """Return the next frame, or None where none came in time; raises as the source does."""
        deadline = time.monotonic() + timeout_s
        while not stopping.is_set():
            ready = self._line.take(self._clock())
            if ready is not None:
                return self._arrived(*ready)
            refuse_unplugged(self._plan, self._clock())
            left_s = max(deadline - time.monotonic(), 0.0)
            if self._line.next_s is not None:
                # Nothing is read meanwhile: a slow camera gives fewer frames as well.
                stopping.wait(min(self._line.next_s - self._clock(), left_s))
            else:
                self._fetch(stopping, left_s)
            if time.monotonic() >= deadline and not self._due:
                return None
        return None

    def calibration(self, stream: str) -> Calibration | None:
        """Return what the source knows of the camera behind a stream."""
        return self._source.calibration(stream)

    def close(self) -> None:
        """Close the source; frames that are held back are counted as cut off."""
        self._plan.cut_off(len(self._line.rest()))
        self._source.close()

    @property
    def _due(self) -> bool:
        return self._line.next_s is not None and self._line.next_s <= self._clock()

    def _fetch(self, stopping: threading.Event, timeout_s: float) -> None:
        frame = self._source.read(stopping, timeout_s)
        if frame is None:
            return
        now_s = self._clock()
        faults = [fault for fault in self._plan.active(now_s) if fault.of_source]
        stalled = [fault for fault in faults if fault.kind == 'stall']
        if stalled:
            self._plan.count(stalled[0])
            return
        self._line.put((self._stamped(frame, faults, now_s), now_s), faults, now_s)

    def _stamped(self, frame: Frame, faults: list[Fault], now_s: float) -> Frame:
        """Return the frame with the time of a device clock that suffers the faults."""
        for fault in faults:
            if fault.kind in _CLOCK_FAULTS:
                self._plan.count(fault)
        offset_ns = self._plan.offset_ns(now_s)
        if frame.device_ns is not None:
            return replace(frame, device_ns=frame.device_ns + offset_ns)
        # One wrap ahead of zero, so that it can lose one.
        ticks = (time.monotonic_ns() - self._origin_ns + WRAP_NS + offset_ns) // 1000
        return replace(frame, domain='hardware_clock', device_ns=ticks * 1000)

    def _arrived(self, frame: Frame, read_s: float) -> Frame:
        """Return the frame as it comes in now."""
        held_ns = round((self._clock() - read_s) * 1e9)
        return replace(frame, arrival_ns=frame.arrival_ns + held_ns)

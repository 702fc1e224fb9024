"""Which faults are on at a moment, and how much each kind has done."""

import threading
from collections import Counter
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace

from muon_ad.faults.fault import DEPTH
from muon_ad.faults.fault import Fault
from muon_ad.faults.fault import FaultError
from muon_ad.faults.fault import IMAGE
from muon_ad.faults.fault import INFO
from muon_ad.faults.fault import KINDS
from muon_ad.faults.fault import parse
from muon_ad.faults.fault import WRAP_NS

CLEAR = 'clear'


@dataclass(eq=False)
class _Entry:
    fault: Fault
    begun: bool = False
    touched: int = 0


class FaultPlan:
    """Faults on a time line of seconds that the caller chooses: steady time, or a bag's.

    Times are given with each call and go back only with `restart`. `announce` gets a line when a
    fault begins and ends. `counts` has, by kind, the frames or messages that were touched, and
    under 'cut off' those that a fault held back until it was too late. Safe to use from several
    threads.
    """

    def __init__(
        self,
        schedule: Iterable[str | Fault] = (),
        seed: int = 0,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        """Raises FaultError for a text in `schedule` that cannot be understood."""
        self.seed = seed
        self.counts: Counter[str] = Counter()
        self._announce = announce or (lambda _line: None)
        self._lock = threading.RLock()
        self._schedule = [
            parse(entry) if isinstance(entry, str) else entry for entry in schedule
        ]
        self._streams: Mapping[str, Collection[str]] | None = None
        self.restart()

    def expect_streams(self, streams: Iterable[str] | Mapping[str, Collection[str]]) -> None:
        """Raise FaultError for a scheduled fault that can touch none of `streams`; from now on,
        `inject` does so, too.

        A mapping tells by name what a stream may carry (IMAGE, DEPTH, INFO); of mere names it may
        be anything.
        """
        anything = IMAGE, DEPTH, INFO
        known = streams if isinstance(streams, Mapping) else dict.fromkeys(streams, anything)
        self._streams = known
        for fault in self._schedule:
            self._expect(fault)

    def _expect(self, fault: Fault) -> None:
        if self._streams is None:
            return
        needs = KINDS[fault.kind].needs
        fit = [name for name, carries in self._streams.items() if not needs or needs in carries]
        if not any(map(fault.concerns, fit)):
            asked = f'stream is {fault.stream!r}; ' if fault.stream else ''
            that = f' with {needs}' if len(fit) < len(self._streams) else ''
            raise FaultError(
                f'fault {str(fault)!r}: {asked}the streams here{that} are '
                f'{", ".join(sorted(fit)) or "none"}'
            )

    def idle(self, end_s: float) -> list[str]:
        """Say which scheduled faults have touched nothing since `restart`, by `end_s`, the end
        of the input.
        """
        with self._lock:
            left = [fault for fault in self._schedule if id(fault) not in self._touching]
        return [
            f'fault {str(fault)!r} touched nothing' + (
                f': it begins after the end, at {end_s:.3f} s' if fault.at_s > end_s else ''
            )
            for fault in left
        ]

    def restart(self) -> None:
        """Begin the schedule anew at time 0, without what was injected; counts go on."""
        with self._lock:
            self._entries = [_Entry(fault) for fault in self._schedule]
            self._touching: set[int] = set()    # of faults, by identity
            self._drifts: list[Fault] = []      # that are over: what the clock gained stays

    def inject(self, text: str, now_s: float) -> str:
        """Add a fault, its `at` counted from now; `clear` ends all. Returns what was done.

        Raises FaultError for a text that cannot be understood, and for a fault that can touch
        nothing here.
        """
        if text.strip() == CLEAR:
            return f'{self.clear(now_s)} faults ended'
        try:
            fault = parse(text)
        except FaultError as error:
            raise FaultError(f'{error}; or {CLEAR}') from error
        self._expect(fault)
        with self._lock:
            self._entries.append(_Entry(replace(fault, at_s=now_s + fault.at_s)))
        return f'fault accepted: {fault}'

    def clear(self, now_s: float) -> int:
        """End the faults that are on and forget those to come; return how many."""
        with self._lock:
            self.advance(now_s)
            entries, self._entries = self._entries, []
            for entry in entries:
                if entry.begun:
                    entry.fault = replace(entry.fault, for_s=now_s - entry.fault.at_s)
                    self._end(entry)
            return len(entries)

    def advance(self, now_s: float) -> None:
        """Announce what has begun or ended by now."""
        with self._lock:
            for entry in self._entries:
                if not entry.begun and entry.fault.at_s <= now_s:
                    entry.begun = True
                    self._announce(f'fault begins: {entry.fault}')
            over = [entry for entry in self._entries if entry.fault.end_s <= now_s]
            self._entries = [entry for entry in self._entries if entry not in over]
            for entry in over:
                self._end(entry)

    def active(self, now_s: float) -> list[Fault]:
        """Return the faults that are on."""
        with self._lock:
            self.advance(now_s)
            return [entry.fault for entry in self._entries if entry.begun]

    def pending(self) -> list[Fault]:
        """Return the faults that are on or still to come."""
        with self._lock:
            return [entry.fault for entry in self._entries]

    def count(self, fault: Fault, touched: int = 1) -> None:
        """Count frames or messages that `fault` touched."""
        with self._lock:
            self.counts[fault.kind] += touched
            self._touching.add(id(fault))
            for entry in self._entries:
                if entry.fault is fault:
                    entry.touched += touched

    def cut_off(self, items: int) -> None:
        """Count frames or messages that were held back and will not come any more."""
        if items:
            with self._lock:
                self.counts['cut off'] += items

    def offset_ns(
        self, now_s: float, stream: str | None = None, beside_source: bool = False
    ) -> int:
        """Return how far the clock that stamps `stream` is ahead; None: the camera's own.

        `beside_source` leaves out what is done to the camera's clock.
        """
        with self._lock:
            faults = [*self.active(now_s), *self._drifts]
        return sum(
            _ahead_ns(fault, now_s) for fault in faults
            if fault.concerns(stream) and not (beside_source and fault.of_source)
        )

    def _end(self, entry: _Entry) -> None:
        fault = entry.fault
        if fault.kind == 'drift':
            self._drifts.append(fault)
        self._announce(f'fault ends: {fault}, touched {entry.touched}')


def _ahead_ns(fault: Fault, now_s: float) -> int:
    if fault.kind == 'jump':
        return round(fault.amounts['ms'] * 1e6)
    if fault.kind == 'drift':
        return round(min(now_s - fault.at_s, fault.for_s) * fault.amounts['ppm'] * 1e3)
    return -WRAP_NS if fault.kind == 'wrap' else 0

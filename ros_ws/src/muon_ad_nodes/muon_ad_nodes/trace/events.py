"""From the ways of frames to events of the Trace Event Format, which Perfetto and Chrome open.

Stages in which a thread works on a frame become slices on the track of that thread; those in which
frames wait become slices of their own, as many may wait at once. Arrows (flows) lead from the task
that made a frame to the tasks that received it: stamp and frame_id tell that it is the same.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import TYPE_CHECKING

from muon_ad_nodes.parts.frame_times import WAITING
from muon_ad_nodes.parts.stamps import nanoseconds

if TYPE_CHECKING:
    from muon_ad_msgs.msg import FrameTrace

Event = dict[str, Any]
CATEGORY = 'frame'
# A stamp further than this from when the frame was received is of another clock; as a slice it
# would push everything else out of sight.
_LONGEST_CAPTURE_NS = 60 * 1_000_000_000


def trace_document(traces: list['FrameTrace']) -> dict:
    """Return the JSON document of these ways, in any order; times begin with the first event."""
    numbers = _Numbers(traces)
    events = [*_slices(traces, numbers), *_flows(traces, numbers)]
    start_ns = min((event['ts'] for event in events), default=0)
    for event in events:
        event['ts'] = (event['ts'] - start_ns) / 1e3
    # Stable: a slice stays in front of the arrow that begins with it.
    events.sort(key=lambda event: event['ts'])
    return {'traceEvents': [*_names(traces, numbers), *events], 'displayTimeUnit': 'ms'}


class _Numbers:
    """Process and thread numbers: the real ones, unless two machines use the same one."""

    def __init__(self, traces: Iterable['FrameTrace']) -> None:
        self._taken: dict[int, tuple[str, int]] = {}
        self._given: dict[tuple[str, int], int] = {}
        for trace in traces:
            self._give(trace.host, trace.pid)
            self._give(trace.host, trace.thread)

    def of(self, trace: 'FrameTrace') -> Event:
        """Return pid and tid of an event."""
        return {
            'pid': self._given[trace.host, trace.pid],
            'tid': self._given[trace.host, trace.thread],
        }

    def _give(self, host: str, number: int) -> None:
        if (host, number) not in self._given:
            free = next(n for n in itertools.count(number) if n not in self._taken)
            self._taken[free] = host, number
            self._given[host, number] = free


def _names(traces: Iterable['FrameTrace'], numbers: _Numbers) -> Iterator[Event]:
    """Yield what names processes and threads after their nodes."""
    processes, threads = defaultdict(dict), {}
    for trace in traces:
        place = numbers.of(trace)
        processes[place['pid']][f'{trace.task} ({trace.host})'] = None
        key, name = (place['pid'], place['tid']), trace.task.rpartition('/')[2]
        if _work(trace):
            threads[key] = name
        else:
            threads.setdefault(key, f'{name}: drops')
    for pid, names in processes.items():
        yield _metadata('process_name', pid, pid, ', '.join(names))
    for (pid, tid), name in threads.items():
        yield _metadata('thread_name', pid, tid, name)


def _metadata(name: str, pid: int, tid: int, text: str) -> Event:
    return {'ph': 'M', 'ts': 0, 'pid': pid, 'tid': tid, 'name': name, 'args': {'name': text}}


def _slices(traces: Iterable['FrameTrace'], numbers: _Numbers) -> Iterator[Event]:
    waits = itertools.count(1)
    for trace in traces:
        place = numbers.of(trace)
        for stage, begin_ns, end_ns in _waiting(trace):
            shared = {**place, 'cat': CATEGORY, 'name': stage, 'id': next(waits)}
            yield {**shared, 'ph': 'b', 'ts': begin_ns, 'args': _about(trace)}
            yield {**shared, 'ph': 'e', 'ts': end_ns}
        work = _work(trace)
        if work:
            begin_ns, end_ns = work[0][1], work[-1][2]
            yield _slice('frame', begin_ns, end_ns, place, _about(trace))
            for stage, begin_ns, end_ns in work:
                yield _slice(stage, begin_ns, end_ns, place, {})
        if trace.dropped:
            yield {
                **place, 'ph': 'i', 's': 't', 'ts': trace.ends_ns[-1], 'cat': CATEGORY,
                'name': 'dropped', 'args': _about(trace),
            }


def _slice(name: str, begin_ns: int, end_ns: int, place: Event, args: Event) -> Event:
    return {
        **place, 'ph': 'X', 'ts': begin_ns, 'dur': (end_ns - begin_ns) / 1e3, 'cat': CATEGORY,
        'name': name, 'args': args,
    }


def _flows(traces: Iterable['FrameTrace'], numbers: _Numbers) -> Iterator[Event]:
    """Yield an arrow from the slice in which a frame was published to each that took it."""
    sources, takers = {}, []
    for trace in traces:
        for frame in ((nanoseconds(trace.stamp), frame_id) for frame_id in trace.frame_ids):
            if trace.captured:
                sources[frame] = trace
            elif _work(trace):
                takers.append((frame, trace))
    arrows = itertools.count(1)
    for frame, taker in takers:
        source = sources.get(frame)
        if source is None:
            continue
        left_ns, came_ns = _work(source)[-1][1], _work(taker)[0][1]
        # The other way round where the clocks of two machines differ.
        if left_ns <= came_ns:
            shared = {'cat': CATEGORY, 'name': 'image', 'id': next(arrows)}
            yield {**shared, **numbers.of(source), 'ph': 's', 'ts': left_ns}
            yield {**shared, **numbers.of(taker), 'ph': 'f', 'bp': 'e', 'ts': came_ns}


def _spans(trace: 'FrameTrace') -> list[tuple[str, int, int]]:
    """Return name, begin and end of each stage, in ns of the system clock."""
    begins = [trace.begin_ns, *trace.ends_ns[:-1]]
    return list(zip(trace.stages, begins, trace.ends_ns, strict=True))


def _waiting(trace: 'FrameTrace') -> list[tuple[str, int, int]]:
    return [
        span for span in _spans(trace)
        if span[0] in WAITING and 0 <= span[2] - span[1] <= _LONGEST_CAPTURE_NS
    ]


def _work(trace: 'FrameTrace') -> list[tuple[str, int, int]]:
    return [span for span in _spans(trace) if span[0] not in WAITING]


def _about(trace: 'FrameTrace') -> Event:
    age_ms = (trace.ends_ns[-1] - trace.begin_ns) * 1e-6
    return {
        'stamp_ns': str(nanoseconds(trace.stamp)),
        'frame_ids': ', '.join(trace.frame_ids),
        'age_ms': round(age_ms, 3),
        **({'dropped': trace.dropped} if trace.dropped else {}),
    }

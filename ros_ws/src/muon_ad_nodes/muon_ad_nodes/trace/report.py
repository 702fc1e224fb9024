"""What a trace holds, in a table for the terminal."""

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from muon_ad_msgs.msg import FrameTrace


def stages_table(traces: list['FrameTrace']) -> Table:
    """Return a table with a row a task: frames, drops, and median and p99 of each stage in ms."""
    by_task = defaultdict(list)
    for trace in traces:
        by_task[trace.task].append(trace)
    # The longest way has the order of most.
    ways = sorted((list(t.stages) for t in traces if not t.dropped), key=len, reverse=True)
    stages = list(dict.fromkeys(stage for way in ways for stage in way))
    table = Table(box=box.SIMPLE_HEAD, caption='median (p99) in ms', caption_justify='left')
    table.add_column('task', overflow='fold')
    for column in ('frames', 'dropped', *stages, 'total'):
        table.add_column(column, justify='right')
    for task, found in sorted(by_task.items()):
        done = [trace for trace in found if not trace.dropped]
        spans = _spans_ms(done)
        cells = [_median_and_p99(spans[stage]) for stage in (*stages, 'total')]
        table.add_row(task, str(len(done)), str(len(found) - len(done)), *cells)
    return table


def _spans_ms(traces: list['FrameTrace']) -> dict[str, list[float]]:
    spans = defaultdict(list)
    for trace in traces:
        edges = np.array([trace.begin_ns, *trace.ends_ns])
        for stage, span_ns in zip(trace.stages, np.diff(edges), strict=True):
            spans[stage].append(span_ns * 1e-6)
        spans['total'].append((edges[-1] - edges[0]) * 1e-6)
    return spans


def _median_and_p99(spans_ms: list[float]) -> str:
    if not spans_ms:
        return ''
    p50, p99 = np.percentile(spans_ms, (50, 99))
    return f'{p50:.1f} ({p99:.1f})'

"""What a replay found, and how it compares: tables for the terminal."""

from collections import Counter
from collections import defaultdict
from dataclasses import dataclass
from dataclasses import field

import numpy as np
from rich import box
from rich.table import Table

from muon_ad.replay.compare import Comparison
from muon_ad.replay.pipeline import Frame
from muon_ad.replay.topics import Stream

SHOWN_REASONS = 5


@dataclass
class Summary:
    """Counts and times of one stream."""

    frames: int = 0
    found: Counter[str] = field(default_factory=Counter)
    located: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    stages_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, frame: Frame) -> None:
        """Count one image."""
        self.frames += 1
        if frame.dropped:
            self.dropped[frame.dropped] += 1
            return
        for detection in frame.detections.detections if frame.detections is not None else ():
            self.found[detection.label] += 1
            self.located += detection.position_valid
        for stage, spent in frame.stages_ms.items():
            self.stages_ms[stage].append(spent)


def summary_table(summaries: dict[Stream, Summary], wall_s: float) -> Table:
    """Return a table with a row a stream."""
    total = sum(summary.frames for summary in summaries.values())
    rate = f'{total / wall_s:.1f} a second' if wall_s > 0 else ''
    images = 'image' if total == 1 else 'images'
    caption = f'{total} {images} in {wall_s:.1f} s: {rate}; times: median (worst)'
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify='left')
    table.add_column('images of', overflow='fold')
    stages = list(dict.fromkeys(name for one in summaries.values() for name in one.stages_ms))
    for column in ('images', 'dropped', 'detections', 'with position', *(
        f'{stage} ms' for stage in stages
    )):
        table.add_column(column, justify='right')
    for stream, summary in summaries.items():
        found = ', '.join(f'{n} {label}' for label, n in summary.found.most_common()) or '0'
        table.add_row(
            stream.image, str(summary.frames), str(summary.dropped.total()), found,
            str(summary.located), *(_times(summary.stages_ms.get(stage)) for stage in stages),
        )
    return table


def _times(spent_ms: list[float] | None) -> str:
    return f'{np.median(spent_ms):.1f} ({max(spent_ms):.1f})' if spent_ms else ''


def drop_lines(summaries: dict[Stream, Summary]) -> list[str]:
    """Say why images were dropped, the most frequent reasons first."""
    lines = []
    for stream, summary in summaries.items():
        for reason, count in summary.dropped.most_common(SHOWN_REASONS):
            lines.append(f'{stream.image}: {count} dropped: {reason}')
        rest = len(summary.dropped) - SHOWN_REASONS
        if rest > 0:
            lines.append(f'{stream.image}: dropped for {rest} more reasons')
    return lines


def comparison_table(comparison: Comparison) -> Table:
    """Return a table with a row a topic of results: counts, and the worst of each measure."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column('topic', overflow='fold')
    for column in ('stored', 'came', 'missing', 'extra', 'differing'):
        table.add_column(column, justify='right')
    table.add_column('worst of each (limit)')
    table.add_column('')
    for topic, report in sorted(comparison.topics.items()):
        measures = ', '.join(
            f'{measure.name} {measure.value:.4g} ({measure.limit:g})'
            for measure in report.worst.values() if measure.name != 'stamp ms' or measure.value
        )
        verdict = 'same' if comparison.accepts(report) else 'differs'
        table.add_row(
            topic, *map(str, (report.expected, report.got, report.missing, report.extra,
                              report.differing)), measures, verdict,
        )
    return table


def comparison_lines(comparison: Comparison) -> list[str]:
    """Say what differs, where worst, and what may be the cause."""
    lines = []
    for topic, report in sorted(comparison.topics.items()):
        if report.unmatched:
            stamps = ', '.join(f'{ns * 1e-9:.3f}' for ns in report.unmatched[:3])
            lines.append(
                f'{topic}: {report.missing} missing, {report.extra} extra; first at stamps '
                f'{stamps} s'
            )
    worst = comparison.worst
    if worst is not None and worst.worse > 1:
        lines.append(
            f'worst frame: number {worst.number} of {worst.topic}, stamp '
            f'{worst.stamp_ns * 1e-9:.3f} s: {worst}'
        )
    return lines + [f'changed: {line}' for line in comparison.changed]

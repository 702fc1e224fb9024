"""What a soak run concludes: growth of each process life, time without results, failures."""

import statistics
from collections import Counter
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field

import numpy as np

from muon_ad.chart import line_chart
from tools.soak.processes import FIGURES
from tools.soak.processes import Sample
from tools.soak.trend import trend

# Growth within a life of a process that is no concern. RSS and PSS are kept and not judged: they
# contain pages of shared memory, which come and go with other processes.
TOLERATED = {'heap': 5.0, 'handles': 4, 'threads': 3, 'segments': 4}
TOLERATED_LEFT = 8
# Until allocators, caches and the windows of statistics are filled.
WARM_UP_S = 30.0
# Shorter ones would be judged by the first time that each buffer is filled.
JUDGED_S = 90.0
DRAWN = {'heap': 'heap (MB)', 'handles': 'handles', 'threads': 'threads'}

Span = tuple[float, float]


@dataclass
class Done:
    """A fault that was done, at steady seconds; `recovered` None: not within the deadline."""

    what: str
    kind: str
    begun: float
    ended: float
    recovered: float | None = None
    refused: str = ''


@dataclass
class Record:
    """Everything that was measured. Times are steady seconds."""

    begun: float
    ended: float = 0.0
    samples: dict[tuple[str, int], list[tuple[float, Sample]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    segments: list[tuple[float, int]] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    gaps: dict[str, list[Span]] = field(default_factory=dict)
    results: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long the suite was watched."""
        return self.ended - self.begun


def growth(record: Record) -> list[dict]:
    """Return the judged trend of each figure of each process life that was long enough.

    A life is no concern that ends below where a longer one of the same node stood still: its
    queues and heap were filling up to the bound that the other shows.
    """
    found = []
    for (node, pid), samples in record.samples.items():
        settled = [each for each in samples if each[0] >= samples[0][0] + WARM_UP_S]
        if not settled or settled[-1][0] - settled[0][0] < JUDGED_S:
            continue
        for figure, tolerated in TOLERATED.items():
            judged = trend(
                [at for at, _ in settled], [getattr(each, figure) for _, each in settled],
                tolerated,
            )
            if judged is not None:
                seconds = round(settled[-1][0] - settled[0][0])
                found.append({'node': node, 'pid': pid, 'figure': figure, 'seconds': seconds,
                              'last': getattr(settled[-1][1], figure), **asdict(judged)})
    for each in found:
        each['grows'] = each['grows'] and not any(_shows_bound(other, each) for other in found)
    left = trend(*zip(*record.segments, strict=True), TOLERATED_LEFT) if record.segments else None
    if left is not None:
        found.append({'node': 'all', 'pid': 0, 'figure': 'segments in /dev/shm',
                      'seconds': round(record.seconds), **asdict(left)})
    return found


def _shows_bound(other: dict, life: dict) -> bool:
    """Whether a life shows that another, shorter one grew towards a bound and not past it."""
    same = (other['node'], other['figure']) == (life['node'], life['figure'])
    return same and not other['grows'] and other['seconds'] > life['seconds'] \
        and other['last'] >= life['last']


def without(spans: Sequence[Span], explained: Sequence[Span]) -> float:
    """Return the seconds of `spans` that lie outside of `explained`; each may overlap itself."""
    borders = sorted({border for span in (*spans, *explained) for border in span})
    total = 0.0
    for low, high in zip(borders, borders[1:], strict=False):
        middle = (low + high) / 2
        inside = any(begin <= middle <= end for begin, end in spans)
        if inside and not any(begin <= middle <= end for begin, end in explained):
            total += high - low
    return total


def shares(record: Record, slack_s: float) -> dict[str, float]:
    """Return the time without results, in percent of all topics' time: all, and unexplained.

    Explained is what lies between the begin of a fault and `slack_s` after the recovery from it.
    """
    explained = [
        (each.begun - slack_s, (each.recovered or record.ended) + slack_s) for each in record.done
    ]
    whole = record.seconds * max(len(record.gaps), 1)
    return {
        name: 100 * sum(without(gaps, spans) for gaps in record.gaps.values()) / whole
        for name, spans in (('without_results_percent', []), ('unexplained_percent', explained))
    }


def recoveries(done: Sequence[Done]) -> dict[str, dict[str, float | None]]:
    """Return by kind of fault how often it was done, and seconds from its end to results."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    times = Counter(each.kind for each in done)
    for each in done:
        if each.recovered is not None:
            by_kind[each.kind].append(each.recovered - each.ended)
    return {
        kind: {
            'times': times[kind],
            'median_s': statistics.median(by_kind[kind]) if by_kind[kind] else None,
            'max_s': max(by_kind[kind], default=None),
        }
        for kind in sorted(times)
    }


def longest(record: Record) -> dict[str, dict]:
    """Return of each node how many lives its process had; of the longest, both ends' figures."""
    lives: dict[str, list[list[tuple[float, Sample]]]] = defaultdict(list)
    for (node, _), samples in record.samples.items():
        lives[node].append(samples)
    found = {}
    for node, all_lives in sorted(lives.items()):
        samples = max(all_lives, key=lambda life: life[-1][0] - life[0][0])
        first = next((s for at, s in samples if at >= samples[0][0] + WARM_UP_S), samples[-1][1])
        found[node] = {
            'lives': len(all_lives),
            'seconds': round(samples[-1][0] - samples[0][0]),
            **{name: [getattr(first, name), getattr(samples[-1][1], name)] for name in FIGURES},
        }
    return found


def picture(record: Record) -> np.ndarray:
    """Draw what each node held over time; an rgb8 image. ValueError: nothing was sampled."""
    charts = []
    for figure, label in DRAWN.items():
        points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for (node, _), samples in sorted(record.samples.items()):
            points[node] += [
                ((at - record.begun) / 60, getattr(sample, figure)) for at, sample in samples
            ]
        lines = {node: tuple(zip(*sorted(each), strict=True)) for node, each in points.items()}
        charts.append(line_chart(f'Soak run: {label} of each node', 'minutes', '', lines))
    return np.vstack(charts)

"""Claim: under any overload results stay fresh, every frame is accounted for, memory stays.

Style transfer (320x240, one thread) as a node of the suite, in the suite's classes where these are
permitted, so that nothing but the load overloads it. First it is offered far more than it can do:
what it achieves is its capacity. Then a camera offers 1, 2, 4 and 8 times as much, in phases in
random order; in a pause after each the node finishes and publishes its counts.

Ages are from the moment at which a frame was due to the arrival of its result. Received frames
must be as many as results and drops together; what was sent and not received was lost on the way.

How to read it: `age_p50_8x_over_1x` and `age_p99_8x_over_1x` near 1 mean that age stays flat,
`fps_8x_over_1x` that overload costs no results, `unaccounted_frames` must be 0, and
`memory_growth` is the node's memory at the end over that after the first round.
"""

import random
import time
from dataclasses import dataclass

import psutil
from _ages import ages_ms
from _ages import draw
from _ages import figures
from _common import console
from _common import finish
from _common import parser
from _common import ratio
from _common import run
from _common import shown
from _common import spread
from _common import table
from _graph import Camera
from _graph import Graph
from _graph import graph
from _graph import permitted
from _graph import UP

from muon_ad.chart import line_chart
from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts.realtime import ROLES

SIZE = (320, 240)
STYLE = '/bench/style_transfer'
FACTORS = (1, 2, 4, 8)
PROBE_FPS = 200.0       # more than one thread can do
SETTLE_S = 0.5
DRAIN_S = 0.5
FIGURES = (
    'offered_fps', 'fps', 'p50_ms', 'p99_ms', 'dropped_percent', 'lost_percent', 'memory_mb',
)


@dataclass(frozen=True)
class Counts:
    """What camera and node have counted so far."""

    sent: int
    received: int
    frames: int
    dropped: int


class Load:
    """The camera, the node, and what they count."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.camera: Camera = graph.camera('/bench', SIZE)
        task = graph.task('style_transfer', STYLE, variant='dense_320x240', threads=1)
        self._process = psutil.Process(task.pid)
        graph.take(STYLE, UP)
        if permitted():
            for pid, executable in ((self.camera.pid, 'csi_camera'), (task.pid, 'style_transfer')):
                realtime.set_class('fifo', ROLES[executable].priority, pid)
        else:
            console.print('no permission for real-time classes: measured without')
        self._before = self._counts()

    def phase(self, fps: float, seconds: float) -> dict:
        """Offer frames at a rate; return the figures once all is quiet again."""
        first_ns = self.camera.run(fps)['first_ns']
        time.sleep(seconds)
        counts = self._counts()
        begin, span = first_ns + round(SETTLE_S * 1e9), seconds - SETTLE_S
        ages = ages_ms(self._graph.results[STYLE], begin, begin + round(span * 1e9))
        before, self._before = self._before, counts
        sent, received = counts.sent - before.sent, counts.received - before.received
        dropped = counts.dropped - before.dropped
        return {
            **figures(ages, span, fps, float('inf')),
            'offered_fps': sent / seconds,
            'dropped_percent': 100.0 * dropped / max(received, 1),
            'lost_percent': 100.0 * (sent - received) / max(sent, 1),
            'memory_mb': self._process.memory_info().rss / 1e6,
            'unaccounted': received - (counts.frames - before.frames) - dropped,
        }

    def _counts(self) -> Counts:
        sent = self.camera.run(0.0)['sent']
        time.sleep(DRAIN_S)     # what is on its way or in work
        status, = self._graph.fresh_statuses([STYLE])
        dropped = status.dropped_newer + status.dropped_invalid
        return Counts(sent, status.received, status.frames, dropped)


def measure(load: Load, rounds: int, seconds: float) -> tuple[float, dict[int, list[dict]]]:
    """Return the capacity in frames a second, and the figures of each factor and round."""
    load.phase(PROBE_FPS, seconds)      # not counted
    capacity = load.phase(PROBE_FPS, seconds)['fps']
    console.print(f'capacity: {capacity:.1f} FPS')
    measured = {factor: [] for factor in FACTORS}
    for number in range(rounds):
        for factor in random.sample(FACTORS, len(FACTORS)):
            found = load.phase(capacity * factor, seconds)
            measured[factor].append(found)
            console.print(
                f'round {number + 1}/{rounds}, {factor}x: {found["fps"]:.1f} FPS, '
                f'p99 {found["p99_ms"] or 0:.0f} ms'
            )
    return capacity, measured


def compare(measured: dict[int, list[dict]]) -> dict[str, dict]:
    """Return the named ratios."""
    def all_of(factor: int, figure: str) -> list[float | None]:
        return [found[figure] for found in measured[factor]]

    least, most = FACTORS[0], FACTORS[-1]
    found = {
        f'{name}_{most}x_over_{least}x': ratio(all_of(most, figure), all_of(least, figure))
        for name, figure in (('age_p50', 'p50_ms'), ('age_p99', 'p99_ms'), ('fps', 'fps'))
    }
    rounds = [
        max(each['memory_mb'] for each in phases)
        for phases in zip(*measured.values(), strict=True)
    ]
    unaccounted = [abs(each['unaccounted']) for phases in measured.values() for each in phases]
    return {
        **found,
        'unaccounted_frames': spread([float(sum(unaccounted))]),
        'memory_growth': spread([rounds[-1] / rounds[0]]),
    }


def main() -> None:
    """Measure, show and write."""
    chosen = parser(__doc__).parse_args()
    rounds, seconds = (1, 2.0) if chosen.quick else (5, 4.0)
    with graph() as made:
        capacity, measured = measure(Load(made), rounds, seconds)
    summary = {
        factor: {figure: spread([each[figure] for each in found]) for figure in FIGURES}
        for factor, found in measured.items()
    }
    filled = table('Style transfer at 320x240, offered more than it can do', 'load', *FIGURES)
    for factor, found in summary.items():
        filled.add_row(f'{factor}x', *(shown(found[figure], 0) for figure in FIGURES))
    lines = {
        figure: (FACTORS, [summary[factor][figure]['median'] for factor in FACTORS])
        for figure in ('p50_ms', 'p99_ms')
    }
    draw('overload', line_chart(
        'Age of stylised frames under overload', 'offered over capacity', 'age (ms)', lines,
        (960, 460),
    ))
    settings = {
        'rounds': rounds, 'seconds': seconds, 'capacity_fps': capacity, 'quick': chosen.quick,
    }
    finish('overload', filled, compare(measured), summary, settings=settings)


if __name__ == '__main__':
    run(main)

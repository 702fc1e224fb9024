"""Claim: a camera more costs as much CPU as the first one.

Eight pairs of a camera (640x480, 15 Hz) and a style transfer node whose network hands the image on
as it is: what is measured is all that is not network, from the message to the published result.
All processes run from the start; 1, 2, 4 or 8 of the cameras send at a time, in phases in random
order, other ones each time. CPU time is that of the pairs at work, as the kernel counts it; the
status that every node publishes each second is in it, and the discovery among all 16 of them.

How to read it: `cost_8_over_line` is the CPU time of 8 cameras over 8 times that of one: 1 is the
line, below it is better. `delivered_8` is the share of sent frames that became results.
"""

import random
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from _ages import draw
from _common import console
from _common import finish
from _common import parser
from _common import ratio
from _common import run
from _common import shown
from _common import spread
from _common import table
from _graph import Graph
from _graph import graph
from _graph import UP
from _identity_package import write_identity_package

from muon_ad.chart import line_chart

SIZE, FPS = (640, 480), 15.0
COUNTS = (1, 2, 4, 8)
SETTLE_S = 0.5
DRAIN_S = 0.3


class Pair:
    """A camera and the node that works on its images."""

    def __init__(self, graph: Graph, number: int, model: Path) -> None:
        self.name = f'/bench{number}/style_transfer'
        self.camera = graph.camera(f'/bench{number}', SIZE)
        # Nobody listens to the results: what that costs is not the pair's.
        task = graph.task('style_transfer', self.name, listen=False, model=str(model))
        self._processes = psutil.Process(self.camera.pid), psutil.Process(task.pid)

    def cpu_s(self) -> float:
        """Return the CPU time of both processes so far, in seconds."""
        times = [process.cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in times)


class Cameras:
    """All pairs, up and idle, and what they have sent and delivered so far."""

    def __init__(self, graph: Graph, model: Path) -> None:
        self._graph = graph
        self._pairs = [Pair(graph, number, model) for number in range(COUNTS[-1])]
        for pair in self._pairs:
            graph.take(pair.name, UP)
        self._sent, self._results = self._rest()

    def phase(self, count: int, seconds: float) -> dict[str, float]:
        """Let so many pairs work; return the CPU of each, 1 for a core, and what was delivered."""
        pairs = random.sample(self._pairs, count)
        for pair in pairs:
            pair.camera.run(FPS)
        time.sleep(SETTLE_S)
        begun, before_s = time.perf_counter(), sum(pair.cpu_s() for pair in pairs)
        time.sleep(seconds)
        spent_s = sum(pair.cpu_s() for pair in pairs) - before_s
        elapsed = time.perf_counter() - begun
        before = self._sent, self._results
        self._sent, self._results = self._rest()
        delivered = (self._results - before[1]) / max(self._sent - before[0], 1)
        return {'cpu_percent': 100.0 * spent_s / elapsed / count, 'delivered': delivered}

    def _rest(self) -> tuple[int, int]:
        """Stop all cameras; return the frames sent and the results so far, of all together."""
        sent = sum(pair.camera.run(0.0)['sent'] for pair in self._pairs)
        time.sleep(DRAIN_S)
        statuses = self._graph.fresh_statuses([pair.name for pair in self._pairs])
        return sent, sum(status.frames for status in statuses)


def measure(cameras: Cameras, rounds: int, seconds: float) -> dict[int, list[dict]]:
    """Return what each phase gave, by the number of cameras."""
    measured = {count: [] for count in COUNTS}
    for number in range(rounds):
        for count in random.sample(COUNTS, len(COUNTS)):
            measured[count].append(cameras.phase(count, seconds))
        said = ', '.join(f'{n}: {found[-1]["cpu_percent"]:.1f}' for n, found in measured.items())
        console.print(f'round {number + 1}/{rounds}, percent of a core a camera: {said}')
    return measured


def compare(measured: dict[int, list[dict]]) -> dict[str, dict]:
    """Return the named ratios: CPU a camera over that of one camera, and what was delivered."""
    costs = {count: [each['cpu_percent'] for each in found] for count, found in measured.items()}
    found = {f'cost_{count}_over_line': ratio(costs[count], costs[1]) for count in COUNTS[1:]}
    most = COUNTS[-1]
    return {**found, f'delivered_{most}': spread([each['delivered'] for each in measured[most]])}


def main() -> None:
    """Measure, show and write."""
    chosen = parser(__doc__).parse_args()
    rounds, seconds = (1, 2.0) if chosen.quick else (6, 4.0)
    with TemporaryDirectory() as folder, graph() as made:
        model = write_identity_package(Path(folder), SIZE)
        measured = measure(Cameras(made, model), rounds, seconds)
    summary = {
        count: {figure: spread([each[figure] for each in found]) for figure in found[0]}
        for count, found in measured.items()
    }
    filled = table('Cameras of 640x480 at 15 Hz', 'cameras', '% of a core each', 'delivered')
    for count, found in summary.items():
        filled.add_row(
            str(count), shown(found['cpu_percent']), shown(found['delivered'], 3)
        )
    costs = [count * summary[count]['cpu_percent']['median'] for count in COUNTS]
    line = [count * costs[0] for count in COUNTS]
    draw('scale', line_chart(
        'CPU of cameras of 640x480 at 15 Hz, without networks', 'cameras', 'percent of a core',
        {'measured': (COUNTS, costs), 'line through one camera': (COUNTS, line)}, (960, 460),
    ))
    settings = {'rounds': rounds, 'seconds': seconds, 'quick': chosen.quick}
    finish('scale', filled, compare(measured), summary, settings=settings)


if __name__ == '__main__':
    run(main)

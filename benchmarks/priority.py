"""Claim: in its real-time class, style transfer is on time whatever else the machine does.

A camera (640x480 at 30 Hz), style transfer (320x240, two threads) and the detector (one thread) as
nodes of the suite, beside two processes a core (`--burners`) that do nothing but burn it. One
set of processes lives through all of it; from outside they are switched between

  other     everything SCHED_OTHER, as without the suite's classes
  control   the same once more: what the ratios are where there is no difference
  classes   camera FIFO 90 > style FIFO 80 > detector FIFO 40, threads of all of them
  alone     the same classes, the detector deactivated and the burners stopped

in phases of 3 s in random order, of which the first half second does not count. Ages are from the
moment at which a frame was due to the arrival of its result at a listener that stands above all
others in every phase. A frame is missed unless its result is there after 66 ms, two frame times.

How to read it: `p99_other_over_classes` above 6 and `missed_percent_classes` below 1 are the aims;
`p99_other_over_control` tells how far figures can be trusted; `p99_joint_over_alone` is wanted to
be below 1.05; `detector_fps_classes` shows that the detector is not starved.

Without the right to use real-time classes (CAP_SYS_NICE) it says so and measures nothing.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from _ages import ages_ms
from _ages import distribution
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
from _graph import Graph
from _graph import graph
from _graph import permitted
from _graph import UP
from lifecycle_msgs.msg import Transition

from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts.realtime import ROLES

SIZE, FPS = (640, 480), 30.0
DEADLINE_MS = 66.0
PHASE_S, SETTLE_S = 3.0, 0.5
STYLE, DETECTOR = '/bench/style_transfer', '/bench/object_detector'
OTHER, CONTROL, CLASSES, ALONE = 'other', 'control', 'classes', 'alone'
SET_UPS = (OTHER, CONTROL, CLASSES, ALONE)
FIGURES = ('fps', 'p50_ms', 'p99_ms', 'missed_percent', 'detector_fps')


class Scene:
    """The processes of the benchmark, and what switches them."""

    def __init__(self, graph: Graph, burners: list[subprocess.Popen]) -> None:
        self.graph = graph
        self.camera = graph.camera('/bench', SIZE)
        self._style = graph.task(
            'style_transfer', STYLE, variant='dense_320x240', threads=2, deadline_ms=DEADLINE_MS
        )
        self._detector = graph.task('object_detector', DETECTOR)
        self._burners = burners
        for name in (STYLE, DETECTOR):
            graph.take(name, UP)
        self._detecting = True

    def switch(self, set_up: str) -> None:
        """Give every process its class, and stop or continue what runs beside style transfer."""
        real_time, joint = set_up in (CLASSES, ALONE), set_up != ALONE
        if joint and not self._detecting:
            self.graph.take(DETECTOR, (Transition.TRANSITION_ACTIVATE,))
        for pid, executable in (
            (self.camera.pid, 'csi_camera'), (self._style.pid, 'style_transfer'),
            (self._detector.pid, 'object_detector'),
        ):
            realtime.set_class(
                'fifo' if real_time else 'other', ROLES[executable].priority * real_time, pid
            )
        for burner in self._burners:
            burner.send_signal(signal.SIGCONT if joint else signal.SIGSTOP)
        if self._detecting and not joint:
            self.graph.take(DETECTOR, (Transition.TRANSITION_DEACTIVATE,))
        self._detecting = joint

    def phase(self, seconds: float) -> tuple[np.ndarray, dict]:
        """Let a phase pass; return the ages of style transfer's results, and the figures."""
        begin = time.time_ns() + round(SETTLE_S * 1e9)
        time.sleep(seconds)
        # Those of the last frames come in the next phase, where they would be late.
        span = seconds - SETTLE_S - DEADLINE_MS * 1e-3
        end = begin + round(span * 1e9)
        ages = ages_ms(self.graph.results[STYLE], begin, end)
        found = figures(ages, span, FPS, DEADLINE_MS)
        found['detector_fps'] = len(ages_ms(self.graph.results[DETECTOR], begin, end)) / span
        return ages, found


@contextmanager
def burning(count: int) -> Iterator[list[subprocess.Popen]]:
    """Yield processes that each burn a core."""
    made = [
        subprocess.Popen([sys.executable, '-c', 'while True: pass'], start_new_session=True)
        for _ in range(count)
    ]
    try:
        yield made
    finally:
        for process in made:
            process.kill()
            process.wait()


def measure(scene: Scene, rounds: int, phases: int) -> dict[str, list[list[tuple]]]:
    """Return what each phase gave, by set-up and round."""
    measured = {set_up: [[] for _ in range(rounds)] for set_up in SET_UPS}
    scene.camera.run(FPS)
    for number in range(rounds):
        order = [set_up for set_up in SET_UPS for _ in range(phases)]
        random.shuffle(order)
        for set_up in order:
            scene.switch(set_up)
            measured[set_up][number].append(scene.phase(PHASE_S))
        p99 = {each: summed(measured[each][number])['p99_ms'] for each in SET_UPS}
        said = ', '.join(f'{each} {value or 0:.0f}' for each, value in p99.items())
        console.print(f'round {number + 1}/{rounds}, p99 in ms: {said}')
    return measured


def summed(phases: list[tuple[np.ndarray, dict]]) -> dict:
    """Return the figures of several phases of a set-up: percentiles of all results together."""
    ages = np.concatenate([ages for ages, _ in phases])
    found = {
        figure: float(np.mean([each[figure] for _, each in phases]))
        for figure in ('fps', 'missed_percent', 'detector_fps')
    }
    p50, p99 = np.percentile(ages, (50, 99)) if len(ages) else (None, None)
    return {**found, 'p50_ms': p50, 'p99_ms': p99}


def compare(rounds: dict[str, list[dict]]) -> dict[str, dict]:
    """Return the named ratios, from set-up -> figures of each round."""
    def all_of(set_up: str, figure: str) -> list[float | None]:
        return [each[figure] for each in rounds[set_up]]

    p99 = {set_up: all_of(set_up, 'p99_ms') for set_up in SET_UPS}
    return {
        'p99_other_over_classes': ratio(p99[OTHER], p99[CLASSES]),
        'p99_other_over_control': ratio(p99[OTHER], p99[CONTROL]),
        'p99_joint_over_alone': ratio(p99[CLASSES], p99[ALONE]),
        'missed_percent_classes': spread(all_of(CLASSES, 'missed_percent')),
        'missed_percent_other': spread(all_of(OTHER, 'missed_percent')),
        'detector_fps_classes': spread(all_of(CLASSES, 'detector_fps')),
    }


def main() -> None:
    """Measure, show and write."""
    options = parser(__doc__)
    options.add_argument(
        '--burners', type=int, default=2, metavar='N',
        help='processes a core that burn it (default: %(default)d)',
    )
    chosen = options.parse_args()
    rounds, phases = (1, 1) if chosen.quick else (5, 2)
    count = chosen.burners * len(os.sched_getaffinity(0))
    with burning(count) as burners, graph() as made:
        scene = Scene(made, burners)
        if not permitted():
            console.print('no permission for real-time classes: nothing to compare')
            return
        measured = measure(scene, rounds, phases)
    by_round = {set_up: [summed(each) for each in found] for set_up, found in measured.items()}
    summary = {
        set_up: {figure: spread([each[figure] for each in found]) for figure in FIGURES}
        for set_up, found in by_round.items()
    }
    filled = table('Style transfer beside a detector and burning cores', 'set-up', *FIGURES)
    for set_up, found in summary.items():
        filled.add_row(set_up, *(shown(found[figure]) for figure in FIGURES))
    pooled = {
        set_up: np.concatenate([ages for phases in found for ages, _ in phases])
        for set_up, found in measured.items()
    }
    draw('priority', distribution('Age of stylised frames on arrival', pooled))
    settings = {
        'rounds': rounds, 'phases': phases, 'phase_s': PHASE_S, 'quick': chosen.quick,
        'deadline_ms': DEADLINE_MS, 'burners': count,
    }
    finish('priority', filled, compare(by_round), summary, settings=settings)


if __name__ == '__main__':
    run(main)

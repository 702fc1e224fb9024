"""Claim: 24 stylised frames a second at 640x480 on two cores, no older than two frame times.

A camera (640x480 at 30 Hz), style transfer (two threads) and the detector (one thread), as nodes
of the suite on two cores. Style transfer takes two variants of its model in turn: one that works
at 640x480, and one that works at 320x240 and so publishes a quarter of the pixels. Each runs with
camera and style SCHED_OTHER and, where that is permitted, with the suite's classes (camera FIFO 90
> style FIFO 80); the detector is under SCHED_BATCH, as launch/params/x86.yaml has it. The classes
are switched from outside, in random order.

Ages are from the moment at which a frame was due to the arrival of its result. A frame is missed
unless its result is there within two frame times, 66 ms; one that is skipped is missed.

How to read it: `fps_..._over_aim` is the rate over 24: above 1 is good. `p99_..._over_aim` is the
age over 66 ms: below 1 is good. What the detector achieves meanwhile stands beside it.
"""

import os
import random
import time
from dataclasses import dataclass

import numpy as np
from _ages import ages_ms
from _ages import distribution
from _ages import draw
from _ages import figures
from _common import console
from _common import finish
from _common import parser
from _common import run
from _common import shown
from _common import spread
from _common import table
from _graph import DOWN
from _graph import Graph
from _graph import graph
from _graph import permitted
from _graph import UP

from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts.realtime import ROLES

SIZE, FPS = (640, 480), 30.0
AIM_FPS, AIM_MS = 24.0, 66.0
PHASE_S, SETTLE_S = 5.0, 0.5
VARIANTS = ('dense_640x480', 'dense_320x240')
STYLE, DETECTOR = '/bench/style_transfer', '/bench/object_detector'
FIGURES = ('fps', 'p50_ms', 'p99_ms', 'missed_percent', 'detector_fps')
CORES = 2


@dataclass(frozen=True)
class Case:
    """A variant of the style model, with or without the suite's classes."""

    variant: str
    classes: bool

    def __str__(self) -> str:
        return f'{self.variant} {"classes" if self.classes else "other"}'


class Stream:
    """The processes; style transfer has one for each variant, of which one is configured."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.camera = graph.camera('/bench', SIZE)
        # One name and topic: only one of them has its topics at a time.
        self._styles = {
            variant: graph.task(
                'style_transfer', f'{STYLE}_{variant}', variant=variant, threads=CORES
            )
            for variant in VARIANTS
        }
        self._detector = graph.task('object_detector', DETECTOR)
        graph.take(DETECTOR, UP)
        realtime.set_class('batch', 0, self._detector.pid)

    def phase(self, classes: bool, variant: str) -> tuple[np.ndarray, dict]:
        """Let a phase pass; return the ages of the results, and the figures."""
        policy = 'fifo' if classes else 'other'
        for pid, executable in (
            (self.camera.pid, 'csi_camera'), (self._styles[variant].pid, 'style_transfer'),
        ):
            realtime.set_class(policy, ROLES[executable].priority * classes, pid)
        begin = time.time_ns() + round(SETTLE_S * 1e9)
        time.sleep(PHASE_S)
        span = PHASE_S - SETTLE_S - AIM_MS * 1e-3
        end = begin + round(span * 1e9)
        ages = ages_ms(self._graph.results[f'{STYLE}_{variant}'], begin, end)
        found = figures(ages, span, FPS, AIM_MS)
        found['detector_fps'] = len(ages_ms(self._graph.results[DETECTOR], begin, end)) / span
        return ages, found

    def use(self, variant: str) -> None:
        """Let one variant work, no other."""
        self._graph.take(f'{STYLE}_{variant}', UP)

    def leave(self, variant: str) -> None:
        """Let a variant cease, and give its topics back."""
        self._graph.take(f'{STYLE}_{variant}', DOWN)


def measure(stream: Stream, rounds: int, policies: tuple[bool, ...]) -> dict[Case, list[tuple]]:
    """Return what each phase gave, a phase of each case a round."""
    measured = {Case(variant, classes): [] for variant in VARIANTS for classes in policies}
    stream.camera.run(FPS)
    for number in range(rounds):
        for variant in random.sample(VARIANTS, len(VARIANTS)):
            stream.use(variant)
            for classes in random.sample(policies, len(policies)):
                case = Case(variant, classes)
                measured[case].append(stream.phase(classes, variant))
                _, found = measured[case][-1]
                console.print(
                    f'round {number + 1}/{rounds}, {case}: {found["fps"]:.1f} FPS, '
                    f'p99 {found["p99_ms"] or 0:.0f} ms'
                )
            stream.leave(variant)
    return measured


def compare(summary: dict[Case, dict]) -> dict[str, dict]:
    """Return the figures over their aims, by name."""
    found = {}
    for case, figures_of in summary.items():
        name = str(case).replace(' ', '_')
        for figure, aim in (('fps', AIM_FPS), ('p99_ms', AIM_MS)):
            over = [
                None if value is None else value / aim for value in figures_of[figure]['rounds']
            ]
            found[f'{figure.removesuffix("_ms")}_{name}_over_aim'] = spread(over)
        found[f'detector_fps_{name}'] = figures_of['detector_fps']
    return found


def main() -> None:
    """Measure, show and write."""
    chosen = parser(__doc__).parse_args()
    rounds = 1 if chosen.quick else 5
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)      # of all that is started from here
    with graph() as made:
        stream = Stream(made)
        policies = (False, True) if permitted() else (False,)
        if len(policies) == 1:
            console.print('no permission for real-time classes: measured without')
        measured = measure(stream, rounds, policies)
    summary = {
        case: {figure: spread([each[figure] for _, each in found]) for figure in FIGURES}
        for case, found in measured.items()
    }
    filled = table('Stylised frames of 640x480 at 30 Hz beside a detector', 'case', *FIGURES)
    for case, found in summary.items():
        filled.add_row(
            str(case), *(shown(found[figure], int('fps' in figure)) for figure in FIGURES)
        )
    pooled = {
        str(case): np.concatenate([ages for ages, _ in found])
        for case, found in measured.items()
    }
    draw('stream', distribution('Age of stylised frames on arrival', pooled))
    settings = {'rounds': rounds, 'phase_s': PHASE_S, 'cores': cores, 'quick': chosen.quick}
    by_name = {str(case): found for case, found in summary.items()}
    finish('stream', filled, compare(summary), by_name, settings=settings)


if __name__ == '__main__':
    run(main)

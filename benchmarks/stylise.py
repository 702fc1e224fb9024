"""Claim: the streaming student stylises several times as many frames a second as MicroAST.

models/style_default through muon_ad.runtime against MicroAST's published weights (472 k
parameters) in the same ONNX Runtime engine: same frames, sizes and thread counts, uint8 pixels in
and out, the style encoded beforehand in both. Both run alone and beside the suite's detector,
which searches 640x480 frames at 30 Hz with one thread in another process, as in the multitask
launch file. The two take turns within each round.

How to read it: `..._vs_microast` is our frames a second over MicroAST's (above 1 is better);
`..._kept_beside_detector` is the share of our own rate that is left with the detector running.

Without ../shared/data/weights or torch there is no peer, without the detector package no detector:
both are said, and what is left is measured. `--detector <folder>` takes another package.
"""

import itertools
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from _common import console
from _common import finish
from _common import parser
from _common import ratio
from _common import ROOT
from _common import run
from _common import shown
from _common import spread
from _common import table
from _detector_load import DetectorLoad
from _detector_load import render
from _stylers import named
from _stylers import peers
from _stylers import SIZES
from _stylers import students
from _stylers import STYLE
from _stylers import Stylise
from _stylers import thread_counts

LEAST = 3       # frames a measurement, however slow they are


@dataclass(frozen=True)
class Case:
    """What is measured: who stylises, at which size, with how many threads, beside a detector?"""

    who: str
    size: tuple[int, int]
    threads: int
    beside_detector: bool

    def __str__(self) -> str:
        beside = ' beside detector' if self.beside_detector else ''
        return f'{self.who} {named(self.size)} {self.threads}t{beside}'


@dataclass(frozen=True)
class Rates:
    """Frames a second in one round, of who stylises and of the detector (None: not running)."""

    fps: float
    detector_fps: float | None


Measured = dict[Case, list[Rates]]


def rate(stylise: Stylise, frames: list[np.ndarray], seconds: float) -> float:
    """Return frames a second over about `seconds`, after one frame that is not counted."""
    stylise(frames[-1])
    begun, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begun) < seconds or count < LEAST:
        stylise(frames[count % len(frames)])
        count += 1
    return count / elapsed


def measure(
    runners: dict[tuple, Stylise], load: DetectorLoad | None, rounds: int, seconds: float
) -> Measured:
    """Measure every case once a round; those that are compared stand next to each other."""
    frames = {size: render(size) for size in SIZES}
    names = dict.fromkeys(who for who, _, _ in runners)
    cases = [
        Case(who, size, threads, beside)
        for size, threads in itertools.product(SIZES, thread_counts())
        for beside in ((False, True) if load else (False,))
        for who in names
    ]
    measured: Measured = {case: [] for case in cases}
    for number, case in itertools.product(range(1, rounds + 1), cases):
        stylise = runners[case.who, case.size, case.threads]
        with load.working() if case.beside_detector else nullcontext() as searched:
            fps = rate(stylise, frames[case.size], seconds)
            measured[case].append(Rates(fps, searched() if searched else None))
        console.print(f'round {number}/{rounds}, {case}: {fps:.1f} FPS')
    return measured


def compare(measured: Measured) -> dict[str, dict]:
    """Return the named ratios."""
    fps = {case: [rates.fps for rates in rounds] for case, rounds in measured.items()}
    found = {}
    for case in fps:
        if case.who != 'suite':
            continue
        name = f'fps_{named(case.size)}_{case.threads}t'
        peer = Case('microast', case.size, case.threads, case.beside_detector)
        if peer in fps:
            beside = '_beside_detector' if case.beside_detector else ''
            found[f'{name}{beside}_vs_microast'] = ratio(fps[case], fps[peer])
        if case.beside_detector:
            alone = Case('suite', case.size, case.threads, False)
            found[f'{name}_kept_beside_detector'] = ratio(fps[case], fps[alone])
    return found


def detector_at_work(package: Path) -> DetectorLoad | None:
    """Return the detector in a process of its own, or None where there is no such package."""
    if (package / 'model.yaml').is_file():
        return DetectorLoad(package)
    console.print(f'no detector: {package} is not there')
    return None


def main() -> None:
    """Measure, show and write."""
    options = parser(__doc__)
    options.add_argument('--detector', type=Path, default=ROOT / 'models' / 'detector_default')
    chosen = options.parse_args()
    rounds, seconds = (1, 1.0) if chosen.quick else (5, 2.0)
    with TemporaryDirectory() as folder:
        runners = students() | peers(Path(folder))
    measured = measure(runners, detector_at_work(chosen.detector), rounds, seconds)
    summary = {
        str(case): {
            'fps': spread([rates.fps for rates in found]),
            'detector_fps': spread([rates.detector_fps for rates in found]),
        }
        for case, found in measured.items()
    }
    filled = table('Frames a second', 'who, size, threads', 'FPS', "detector's FPS")
    for name, figures in summary.items():
        filled.add_row(name, shown(figures['fps']), shown(figures['detector_fps']))
    settings = {'rounds': rounds, 'seconds': seconds, 'quick': chosen.quick, 'style': STYLE}
    finish('stylise', filled, compare(measured), summary, settings=settings)


if __name__ == '__main__':
    run(main)

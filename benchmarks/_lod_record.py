"""Writes benchmarks/lod_traces.json: what each variant takes while the load changes.

    .venv/bin/python benchmarks/_lod_record.py

Eight times a second every variant of models/style_default stylises the same frame, one after the
other, so that they are measured under one load. Meanwhile loads come and go: processes that only
count, and the suite's detector at camera rate. Each trace has them in an order of its own.
"""

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextlib import contextmanager
from contextlib import nullcontext

import numpy as np
from _common import console
from _common import machine
from _common import ROOT
from _common import run
from _common import versions
from _detector_load import DetectorLoad
from _detector_load import render
from _detector_load import SIZE

from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.package import load_package
from muon_ad.runtime.style import StyleModel
from muon_ad_nodes.parts.pacing import Pacer

STYLE, DETECTOR = (ROOT / 'models' / name for name in ('style_default', 'detector_default'))
PATH = ROOT / 'benchmarks' / 'lod_traces.json'
THREADS = 2
TRACES = 3
RATE_HZ = 8.0
PHASE_S = 6.0
LOADS = ('one hog', 'two hogs', 'detector')
WARM_UP = 5
# Ends with its parent, however that ends.
HOG = 'import os; parent = os.getppid()\nwhile os.getppid() == parent: sum(range(100_000))'


@contextmanager
def hogs(number: int) -> Iterator[None]:
    """Let so many processes count during the block."""
    counting = [subprocess.Popen([sys.executable, '-c', HOG]) for _ in range(number)]
    try:
        yield
    finally:
        for each in counting:
            each.kill()
            each.wait()


def phases(number: int) -> list[str]:
    """Return the loads of a trace in their order, with nothing before, between and after."""
    order = (*LOADS[number:], *LOADS[:number])
    return ['nothing', *itertools.chain.from_iterable((load, 'nothing') for load in order)]


def record(
    number: int, runs: dict[str, Callable[[np.ndarray], object]],
    loads: dict[str, Callable[[], AbstractContextManager]],
) -> dict:
    """Return one trace: phases, moments in s, and for each of `runs` what it took in ms."""
    frames = itertools.cycle(render(SIZE))
    pacer, never = Pacer(RATE_HZ, skip=True), threading.Event()
    found: dict = {'phases': [], 'at_s': [], 'ms': {name: [] for name in runs}}
    begun = time.perf_counter()
    for load in phases(number):
        found['phases'].append([round(time.perf_counter() - begun, 2), load])
        with loads[load]():
            ends = time.perf_counter() + PHASE_S
            while time.perf_counter() < ends:
                pacer.wait(never)
                found['at_s'].append(round(time.perf_counter() - begun, 2))
                _measure(runs, next(frames), found['ms'])
        console.print(f'trace {number + 1}/{TRACES}: {load}')
    return found


def _measure(
    runs: dict[str, Callable[[np.ndarray], object]], frame: np.ndarray,
    times_ms: dict[str, list[float]],
) -> None:
    for name, stylise in runs.items():
        begun = time.perf_counter()
        stylise(frame)
        times_ms[name].append(round((time.perf_counter() - begun) * 1e3, 1))


def main() -> None:
    """Record and write."""
    package = load_package(STYLE)
    variants = sorted(package.variants.values(), key=lambda each: -each.gflops)
    options = EngineOptions(threads=THREADS)
    runs = {each.name: StyleModel(package, each.name, options).stylise for each in variants}
    for _ in range(WARM_UP):
        _measure(runs, render(SIZE)[0], {name: [] for name in runs})
    detector = DetectorLoad(DETECTOR)
    loads = {
        'nothing': nullcontext, 'one hog': lambda: hogs(1), 'two hogs': lambda: hogs(2),
        'detector': detector.working,
    }
    traces = [record(number, runs, loads) for number in range(TRACES)]
    about = {
        'made_by': '.venv/bin/python benchmarks/_lod_record.py', 'model': package.name,
        'gflops': {each.name: each.gflops for each in variants}, 'threads': THREADS,
        'machine': {key: machine()[key] for key in ('cpu', 'cores')}, 'versions': versions(),
    }
    PATH.write_text(_text(about, traces))
    console.print(f'{PATH.relative_to(ROOT)}: {PATH.stat().st_size} bytes')


def _text(about: dict, traces: list[dict]) -> str:
    """Return the file's JSON, a trace a line."""
    head = json.dumps(about, indent=1)[:-2]
    lines = ',\n'.join(json.dumps(trace, separators=(',', ':')) for trace in traces)
    return f'{head},\n "traces": [\n{lines}\n ]\n}}\n'


if __name__ == '__main__':
    run(main)

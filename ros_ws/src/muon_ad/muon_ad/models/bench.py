"""`muon-ad models bench`: latency of each variant of a package on this machine, and its memory."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import skimage.data
from rich.table import Table
from tqdm import tqdm

from muon_ad.models.run_variant import runner
from muon_ad.paths import write_whole
from muon_ad.runtime.installed import find_package
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.screen import screen

WARM_UP = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('package', metavar='NAME|FOLDER', help='model package')
    parser.add_argument('--variant', nargs='+', default=[], help='these alone (default: all)')
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2], metavar='N',
                        help='thread counts to measure with (default: 1 2)')
    parser.add_argument('--frames', type=int, default=100, metavar='N',
                        help='frames for each variant and thread count (default: 100)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there, too')


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit status."""
    if min(args.frames, *args.threads) < 1:
        raise ValueError(f'--frames is {args.frames} and --threads {args.threads}; expected 1 or '
                         'more')
    package = load_package(find_package(args.package))
    names = [package.variant(name).name for name in args.variant] or [*package.variants]
    rows = measure(package, names, args.threads, args.frames)
    _show(package.name, rows)
    if args.json:
        text = json.dumps({'package': package.name, 'frames': args.frames, 'rows': rows}, indent=2)
        write_whole(args.json, text.encode())
    return 0


def measure(
    package: ModelPackage, names: Sequence[str], threads: Sequence[int], frames: int,
) -> list[dict[str, object]]:
    """Return milliseconds a frame, from camera frame to result, and peak memory in MB.

    All take turns, frame by frame, so that what slows the machine for a while slows all alike.
    Memory is what a process of its own grows by, from before it loads the variant.
    """
    frame = np.ascontiguousarray(skimage.data.astronaut()[16:496, :, :])
    cases = [(name, count) for name in names for count in threads]
    ready = [runner(package, name, count) for name, count in cases]
    for infer in ready * WARM_UP:
        infer(frame)
    taken = np.empty((frames, len(cases)))
    for turn in tqdm(range(frames), desc='measuring', disable=None):
        for column, infer in enumerate(ready):
            start = time.perf_counter()
            infer(frame)
            taken[turn, column] = time.perf_counter() - start
    memory = {case: _memory(package.folder, *case) for case in cases}
    return [
        {'variant': name, 'threads': count, 'precision': package.variant(name).precision,
         'min_ms': round(times.min() * 1e3, 3), 'median_ms': round(np.median(times) * 1e3, 3),
         'p99_ms': round(np.percentile(times, 99) * 1e3, 3),
         'fps': round(1 / np.median(times), 1), 'memory_mb': memory[name, count]}
        for (name, count), times in zip(cases, taken.T, strict=True)
    ]


def _memory(folder: Path, name: str, threads: int) -> float:
    """Ask a fresh process, since memory that this one has once taken tells nothing."""
    code = 'import sys; from muon_ad.models.bench import print_memory; print_memory(*sys.argv[1:])'
    done = subprocess.run([sys.executable, '-c', code, str(folder), name, str(threads)],
                          capture_output=True, text=True, check=True)
    return round(float(done.stdout.split()[-1]), 1)


def print_memory(folder: str, name: str, threads: str) -> None:
    """Load and run a variant, and print by how many MB the process's peak has grown."""
    frame = np.ascontiguousarray(skimage.data.astronaut()[16:496, :, :])
    package = load_package(folder)
    before = _peak_mb()
    infer = runner(package, name, int(threads))
    for _ in range(WARM_UP):
        infer(frame)
    print(_peak_mb() - before)


def _peak_mb() -> float:
    """Return the greatest resident size so far, which a new program starts anew (VmHWM)."""
    status = Path('/proc/self/status').read_text(encoding='ascii')
    line = next(line for line in status.splitlines() if line.startswith('VmHWM'))
    return int(line.split()[1]) / 1024


def _show(name: str, rows: Sequence[dict[str, object]]) -> None:
    table = Table('variant', title=name, title_justify='left')
    for column in ('precision', 'threads', 'min ms', 'median ms', 'p99 ms', 'FPS', 'peak MB'):
        table.add_column(column, justify='right')
    for row in rows:
        table.add_row(row['variant'], row['precision'], str(row['threads']),
                      *(f'{row[key]:.2f}' for key in ('min_ms', 'median_ms', 'p99_ms')),
                      f'{row["fps"]:.1f}', f'{row["memory_mb"]:.1f}')
    screen(highlight=False).print(table)

"""Claim: INT8 makes the shipped student at least 1.8x faster than FP32 on a CPU, and looks alike.

Takes each network of the shipped packages that has an INT8 variant, and measures both, frame by
frame in turns, on frames of the project's own scene: with 1 and with 2 threads, students at
320x240 and 640x480 whatever the size of their variants, detectors at the size of their input. A
variant that is missing is made as `muon-ad quantize` makes it, and said to be. A round is so many
frames of each network; the time of a frame in it is the median.

How to read it: `int8_speedup_320x240` is milliseconds FP32 over milliseconds INT8 with one
thread: above 1.8 is good. Errors are those of the report of `muon-ad quantize`: mean grey levels
of a picture, change of an object's score. FP16 is for GPUs; a CPU computes it in FP32, so only
the size of its file and its error are shown.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from itertools import product
from pathlib import Path

from _common import console
from _common import finish
from _common import parser
from _common import ratio
from _common import ROOT
from _common import run
from _common import shown
from _common import spread
from _common import table

from muon_ad.precision.calibration import Feeds
from muon_ad.precision.convert import convert
from muon_ad.precision.convert import Settings
from muon_ad.precision.frames import read_frames
from muon_ad.precision.network import Network
from muon_ad.runtime.engine import Engine
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import Variant

PACKAGES = ('style_default', 'detector_default')
STUDENT_SIZES = ((320, 240), (640, 480))
THREADS = (1, 2)
AIM = 1.8
FRAMES = 16     # of the scene, of which a quarter measures


def pairs(package: ModelPackage, folder: Path) -> list[tuple[Network, Path, bool]]:
    """Return each fp32 network, its INT8 file, and whether that one is shipped."""
    found = {}
    frames = read_frames(None, FRAMES)
    by_size = sorted(package.variants.values(), key=lambda each: each.width * each.height)
    for variant in by_size:
        if variant.precision != 'fp32' or variant.file in found:
            continue
        network = Network(variant.file, frames, package, variant)
        twin = int8_of(package, variant)
        path = twin.file if twin else folder / f'{package.name}_{variant.name}_int8.onnx'
        if twin is None:
            console.print(f'{package.name}: {variant.name} has no INT8 variant; making one')
            convert(network, Settings(), path)
        found[variant.file] = network, path, twin is not None
    return list(found.values())


def int8_of(package: ModelPackage, variant: Variant) -> Variant | None:
    """Return the INT8 variant of the same level and size; None where there is none."""
    level, _, size = variant.name.rpartition('_')
    return package.variants.get(f'{level}_int8_{size}')


def measure(
    paths: dict[str, Path], feeds: Sequence[Feeds], threads: int, rounds: int, frames: int
) -> dict[str, list[float]]:
    """Return milliseconds a frame of each network in each round, the networks taking turns."""
    engines = {name: Engine(path, EngineOptions(threads=threads)) for name, path in paths.items()}
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        times: dict[str, list[float]] = {name: [] for name in engines}
        for index in range(frames + 1):
            for name, engine in engines.items():
                start = time.perf_counter()
                engine.run(feeds[index % len(feeds)])
                if index:       # the first one of a round finds cold caches
                    times[name].append(time.perf_counter() - start)
        for name, seconds in times.items():
            taken[name].append(1e3 * statistics.median(seconds))
    return taken


@dataclass(frozen=True)
class Case:
    """One network in both precisions at one size, with what its conversions cost."""

    network: Network
    int8: Path
    size: str
    error_int8: float
    error_fp16: float
    megabytes: tuple[float, float, float]       # fp32, fp16, int8
    shipped: bool

    @property
    def label(self) -> str:
        """Return the task and the level of the network, as `style dense`."""
        return f'{self.network.package.task} {self.network.variant.name.rpartition("_")[0]}'


def cases(network: Network, int8: Path, shipped: bool, folder: Path) -> list[Case]:
    """Return the cases of one network, its errors and file sizes measured once."""
    half = folder / 'half.onnx'
    fp16 = convert(network, Settings('fp16'), half).error
    error = network.judge.error(int8)
    megabytes = tuple(path.stat().st_size / 1e6 for path in (network.path, half, int8))
    return [Case(each, int8, f'{each.variant.width}x{each.variant.height}', error, fp16,
                 megabytes, shipped) for each in sized(network)]


def sized(network: Network) -> list[Network]:
    """Return the network with each of the sizes that it is measured at."""
    if network.package.task != 'style':
        return [network]
    return [replace(network, variant=replace(network.variant, width=width, height=height))
            for width, height in STUDENT_SIZES]


def key(case: Case, threads: int) -> str:
    """Return the name of a headline ratio."""
    task, level = case.label.split()
    parts = [*(['detector'] if task == 'detection' else []),
             *([] if level == 'dense' else [level]), 'int8_speedup', case.size,
             *([f'{threads}_threads'] if threads > 1 else [])]
    return '_'.join(parts)


def main() -> None:
    """Measure, show and write."""
    chosen = parser(__doc__).parse_args()
    rounds, frames = (2, 4) if chosen.quick else (8, 15)
    filled = table('FP32 and INT8 on this CPU', 'network', 'size', 'threads', 'fp32 ms', 'int8 ms',
                   'speed-up', 'error int8', 'error fp16', 'MB fp32 / fp16 / int8')
    measured, ratios = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for case, threads in product(every_case(Path(scratch)), THREADS):
            feeds = case.network.held_out
            paths = {'fp32': case.network.path, 'int8': case.int8}
            taken = measure(paths, feeds, threads, rounds, frames)
            gain = ratios[key(case, threads)] = ratio(taken['fp32'], taken['int8'])
            filled.add_row(
                case.label, case.size, str(threads), shown(spread(taken['fp32'])),
                shown(spread(taken['int8'])), shown(gain, 2),
                f'{case.error_int8:.3g} {case.network.judge.unit}', f'{case.error_fp16:.2g}',
                ' / '.join(f'{value:.2f}' for value in case.megabytes),
            )
            measured.append({
                'network': case.label, 'size': case.size, 'threads': threads, **taken,
                'error_int8': case.error_int8, 'error_fp16': case.error_fp16,
                'unit': case.network.judge.unit, 'mb': case.megabytes, 'shipped': case.shipped,
            })
    finish('precision', filled, ratios, measured, aim=AIM,
           settings={'rounds': rounds, 'frames': frames, 'quick': chosen.quick})


def every_case(folder: Path) -> list[Case]:
    """Return the cases of all packages; files that are made for them lie in `folder`."""
    return [case for name in PACKAGES
            for network, int8, shipped in pairs(load_package(ROOT / 'models' / name), folder)
            for case in cases(network, int8, shipped, folder)]


if __name__ == '__main__':
    run(main)

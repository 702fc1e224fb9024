"""Claim: pruned networks are faster than dense ones, by nearly what their size says, and as good.

Three parts, of which `--only` picks one:

- style, detector: the shipped dense network pruned by each method (ours by each score, static L1,
  LayerDrop, random, torch-pruning's default) to 40, 60 and 80 % fewer parameters, all with the
  same number of training steps (`--recover`), the same losses and the same pictures: parameters,
  operations, milliseconds a frame, and SSIM to the photograph and style distance (SqueezeNet, not
  trained on) or mAP on annotated images that were not learnt from.
- shipped: the variants of models/style_default and models/detector_default as they are.

What is pruned is physically smaller, exported to ONNX and timed in ONNX Runtime with one and two
threads, variants in turn within each round; a round's figure is the time that a tenth of the
frames beat. The paper's own tables of pruning were not at hand to be set beside these.

How to read it: `..._speedup` is dense milliseconds over those of the pruned or quantised variant
(above 1 is better), `..._loss` what is lost of SSIM or mAP (0 is none), `fps_...` frames a second
of the dense style variant of that size with as many threads as there are, up to two.
`score_batchnorm` needs normalisation, which the student has none of. A method that cannot reach a
ratio (LayerDrop in a network with few residual blocks) stands at what it reached.

Pruning and judging need ../shared/data (photographs, annotated images, SqueezeNet); without it the
shipped variants are timed alone. --quick shows that it works, with a few steps of two methods.
"""

from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import _pruned_detector
import _pruned_style
from _common import console
from _common import finish
from _common import parser
from _common import ratio
from _common import run
from _common import shown
from _common import spread
from _common import table
from _common import WEIGHTS
from _pruned import cases
from _pruned import latencies
from _pruned import METHODS
from _stylers import thread_counts
from rich.table import Table

from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage

PARTS = ('shipped', 'style', 'detector')
STEPS, QUICK_STEPS = 300, 4
SIZES = ('320x240', '640x480')

Row = dict[str, object]
Rows = dict[str, Row]       # by variant


def measure(
    package: ModelPackage, names: Sequence[str], quality: Callable[[str], dict[str, float]],
    quick: bool,
) -> Rows:
    """Return what is known of variants of a package: size, speed and quality."""
    rounds, seconds = (1, 0.1) if quick else (5, 1.0)
    times = latencies(package, names, _pruned_style.frame, rounds, seconds)
    found = {}
    for name in names:
        variant = package.variants[name]
        found[name] = {
            'parameters': variant.parameters, 'pruned': variant.pruned, 'gflops': variant.gflops,
            'ms': {threads: spread(times[name, threads]) for threads in thread_counts()},
            **quality(name),
        }
    return found


def style_quality(package: ModelPackage, photos: int) -> Callable[[str], dict[str, float]]:
    """Return what tells SSIM and style distance of a variant; those of the default size only."""
    looks = _pruned_style.looks(package, photos)
    return lambda name: {key: looks[name][key] for key in ('ssim', 'style_distance')
                         if name in looks}


def detector_quality(package: ModelPackage) -> Callable[[str], dict[str, float]]:
    """Return what tells the mAP of a variant."""
    return lambda name: {'mAP': _pruned_detector.precision(package, name)}


def pruned(part: str, steps: int, quick: bool) -> Rows:
    """Prune by all methods, and measure."""
    with TemporaryDirectory() as folder:
        if part == 'style':
            made = _pruned_style.pruned_package(
                cases(_pruned_style.METHODS, quick), steps, 32 if quick else 96, Path(folder))
            quality = style_quality(made, 1 if quick else 6)
        else:
            made = _pruned_detector.pruned_package(
                cases(METHODS, quick), steps, 16 if quick else 512, Path(folder))
            quality = detector_quality(made)
        width = made.variant().width
        names = [name for name, each in made.variants.items() if each.width == width]
        return measure(made, names, quality, quick)


def shipped(kind: str, quick: bool, data: bool) -> Rows:
    """Measure a shipped package."""
    package = load_package((_pruned_style if kind == 'style' else _pruned_detector).PACKAGE)
    if not data:
        def quality(_name: str) -> dict[str, float]:
            return {}
    elif kind == 'style':
        quality = style_quality(package, 1 if quick else 6)
    else:
        quality = detector_quality(package)
    return measure(package, [*package.variants], quality, quick)


def headline(measured: dict[str, Rows]) -> dict[str, dict]:
    """Return the ratios of the shipped variants, as far as they are there."""
    style, detector = measured.get('shipped style', {}), measured.get('shipped detector', {})
    most = thread_counts()[-1]
    found = {}

    def faster(key: str, slow: str, fast: str) -> None:
        if slow in style and fast in style:
            found[key] = ratio(*(style[name]['ms'][most]['rounds'] for name in (slow, fast)))

    def lost(key: str, rows: Rows, quality: str, dense: str, small: str) -> None:
        values = [rows.get(name, {}).get(quality) for name in (dense, small)]
        if None not in values:
            found[key] = spread([values[0] - values[1]])

    for level in ('p40', 'p60'):
        faster(f'{level}_speedup', 'dense_320x240', f'{level}_320x240')
        lost(f'{level}_ssim_loss', style, 'ssim', 'dense_320x240', f'{level}_320x240')
        lost(f'detector_{level}_map_loss', detector, 'mAP', 'dense_320x256', f'{level}_320x256')
    faster('int8_speedup', 'dense_320x240', 'dense_int8_320x240')
    lost('int8_ssim_loss', style, 'ssim', 'dense_320x240', 'dense_int8_320x240')
    for size in SIZES:
        if f'dense_{size}' in style:
            rounds = style[f'dense_{size}']['ms'][most]['rounds']
            found[f'fps_{size}'] = spread([1000 / value for value in rounds])
    return found


def filled(measured: dict[str, Rows]) -> Table:
    """Return the table of all that was measured."""
    made = table('Pruning', 'network', 'parameters', 'less', 'GFLOP',
                 *(f'ms, {threads} threads' for threads in thread_counts()),
                 'SSIM', 'style', 'mAP')
    for part, rows in measured.items():
        for name, row in rows.items():
            made.add_row(
                f'{part}: {name}', f'{row["parameters"]:,}', f'{row["pruned"]:.0%}',
                f'{row["gflops"]:.2f}', *(shown(value) for value in row['ms'].values()),
                *(f'{row[key]:.3f}' if key in row else '-'
                  for key in ('ssim', 'style_distance', 'mAP')))
    return made


def main() -> None:
    """Measure, show and write."""
    options = parser(__doc__)
    options.add_argument('--only', choices=PARTS, help='one part (default: all)')
    options.add_argument('--recover', type=int, default=STEPS, metavar='STEPS',
                         help='training steps of every method (default %(default)s)')
    chosen = options.parse_args()
    steps = QUICK_STEPS if chosen.quick else chosen.recover
    data = WEIGHTS.is_dir()
    if not data:
        console.print(f'{WEIGHTS.parent} is not here (photographs, annotated images, SqueezeNet): '
                      'only the speed of what is shipped is measured')
    measured: dict[str, Rows] = {}
    for part in PARTS if chosen.only is None else (chosen.only,):
        if part == 'shipped':
            for kind in ('style', 'detector'):
                measured[f'shipped {kind}'] = shipped(kind, chosen.quick, data)
        elif data:
            measured[part] = pruned(part, steps, chosen.quick)
    settings = {'steps': steps, 'quick': chosen.quick, 'only': chosen.only}
    finish('pruning', filled(measured), headline(measured), measured, settings=settings)


if __name__ == '__main__':
    run(main)

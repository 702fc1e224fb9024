"""`muon-ad quantize`: INT8 or FP16 variants of a model package, or of one ONNX file."""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from muon_ad.documents import read_document
from muon_ad.paths import expanded
from muon_ad.paths import write_whole
from muon_ad.precision.calibration import METHODS
from muon_ad.precision.calibration import PERCENTILE
from muon_ad.precision.convert import convert
from muon_ad.precision.convert import Settings
from muon_ad.precision.error import PrecisionError
from muon_ad.precision.frames import read_frames
from muon_ad.precision.network import Network
from muon_ad.precision.qdq import TARGETS
from muon_ad.precision.report import Report
from muon_ad.runtime.installed import find_package
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import sha256_of
from muon_ad.runtime.package import Variant
from muon_ad.screen import screen

FRAMES = 24
LARGEST = 2_000_000     # bytes of a file that is shipped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('model', help='model package (folder, or name of a shipped one), or a '
                        'file.onnx that takes one uint8 picture')
    parser.add_argument('-o', '--out', type=Path, required=True,
                        help='package to write (the same folder: adds to it), or file')
    parser.add_argument('--variants', nargs='+', metavar='NAME',
                        help='variants to convert (default: all fp32 ones)')
    parser.add_argument('--precision', choices=('int8', 'fp16'), default='int8')
    parser.add_argument('--target', choices=TARGETS, default='cpu',
                        help='cpu: ONNX Runtime on any CPU; tensorrt: symmetric, for Jetson')
    parser.add_argument('--frames', type=Path, metavar='FOLDER|VIDEO',
                        help="pictures to calibrate with (default: the project's own scene)")
    parser.add_argument('--count', type=int, default=FRAMES,
                        help=f'number of frames; every fourth measures (default: {FRAMES})')
    parser.add_argument('--calibration', choices=tuple(METHODS), default='percentile')
    parser.add_argument('--percentile', type=float, default=PERCENTILE)
    parser.add_argument('--keep', nargs='+', default=[], metavar='LAYER',
                        help='layers that stay in FP32, by name as in the report')
    parser.add_argument('--max-error', type=float, metavar='X',
                        help='keep the most sensitive layers in FP32 until the error is below: '
                        'mean grey levels (style), change of score 0..1 (detection)')
    parser.add_argument('--report', type=Path, default=Path('out/quantize'), metavar='FOLDER',
                        help='for the JSON and the picture (default: out/quantize)')


def run(args: argparse.Namespace) -> int:
    """Convert, print the report and write it; returns the exit status."""
    settings = Settings(args.precision, args.target, args.calibration, args.percentile,
                        tuple(args.keep), args.max_error)
    with tempfile.TemporaryDirectory() as folder:
        convert_all = _convert_file if _is_file(args.model) else _convert_package
        convert_all(args, settings, Path(folder))
    return 0


def _is_file(name: str) -> bool:
    return expanded(name).suffix == '.onnx'


def _convert_file(args: argparse.Namespace, settings: Settings, scratch: Path) -> None:
    if args.variants:
        raise PrecisionError(f'variants {args.variants}: {args.model} is a file, which has none; '
                             'expected a package')
    network = Network(expanded(args.model), read_frames(args.frames, args.count))
    made = scratch / args.out.name
    report = convert(network, settings, made)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(args.out, made.read_bytes())
    _tell(report, args.report)


def _convert_package(args: argparse.Namespace, settings: Settings, scratch: Path) -> None:
    """Convert first and write then, so that a failure leaves everything as it was."""
    package = load_package(find_package(args.model))
    chosen = _chosen(package, args.variants)
    if args.out.exists() and not args.out.samefile(package.folder):
        raise PrecisionError(f'{args.out}: exists; expected a new folder, or the package itself')
    frames = read_frames(args.frames, args.count)
    done = []
    for variants in _by_file(chosen):
        network = Network(variants[0].file, frames, package, variants[0])
        name = converted_name(network.path.stem, _suffix(settings))
        done.append((variants, convert(network, settings, scratch / f'{name}.onnx')))
    if not args.out.exists():
        shutil.copytree(package.folder, args.out)
    for variants, report in done:
        data = (scratch / f'{report.name}.onnx').read_bytes()
        write_whole(args.out / f'{report.name}.onnx', data)
        _record(args.out, variants, settings, report)
        _tell(report, args.report / package.name)


def _suffix(settings: Settings) -> str:
    return settings.precision + ('_tensorrt' if settings.target == 'tensorrt'
                                 and settings.precision == 'int8' else '')


def _chosen(package: ModelPackage, names: list[str] | None) -> list[Variant]:
    """Return the variants to convert. Raises PrecisionError where one is not in fp32."""
    variants = list(package.variants.values())
    if names is None:
        return [each for each in variants if each.precision == 'fp32']
    chosen = [package.variant(name) for name in names]
    wrong = {each.name: each.precision for each in chosen if each.precision != 'fp32'}
    if wrong:
        raise PrecisionError(f'variants {wrong}: expected fp32 ones, which the others come from')
    return chosen


def _by_file(variants: list[Variant]) -> list[list[Variant]]:
    """Group variants that share a file, the smallest size first: one calibration serves all."""
    files: dict[Path, list[Variant]] = {}
    for each in sorted(variants, key=lambda variant: variant.width * variant.height):
        files.setdefault(each.file, []).append(each)
    return list(files.values())


def _record(
    folder: Path, variants: list[Variant], settings: Settings, report: Report
) -> None:
    """Add the converted variants to `model.yaml`, each after the one it was made from."""
    file, path = folder / 'model.yaml', folder / f'{report.name}.onnx'
    data: dict[str, Any] = read_document(file)
    names = {each.name: converted_name(each.name, _suffix(settings)) for each in variants}
    entries = {}
    for name, entry in data['variants'].items():
        if name not in names.values():
            entries[name] = entry
        if name in names:
            entries[names[name]] = {**entry, 'file': path.name, 'sha256': sha256_of(path),
                                    'precision': settings.precision}
    data['variants'] = entries
    measured = {'error': round(report.error, 4), 'unit': report.unit,
                **{key: round(value, 4) for key, value in report.more.items()},
                'calibration': settings.calibration}
    quality = data.setdefault('quality', {}).setdefault('precision', {})
    quality |= dict.fromkeys(names.values(), measured)
    text = yaml.dump(data, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=99)
    write_whole(file, text.encode())
    load_package(folder)


class _Plain(yaml.SafeDumper):
    """YAML without anchors: one mapping for two variants is written twice."""

    def ignore_aliases(self, data: object) -> bool:
        """Write everything out."""
        return True


def converted_name(name: str, suffix: str) -> str:
    """Return a variant's name with its precision before the size: dense_int8_320x240."""
    level, _, size = name.rpartition('_')
    return f'{level}_{suffix}_{size}' if level and 'x' in size else f'{name}_{suffix}'


def _tell(report: Report, folder: Path) -> None:
    console = screen(highlight=False)
    report.show(console)
    if report.bytes_after > LARGEST:
        console.print(f'{report.bytes_after / 1e6:.1f} MB is more than the {LARGEST / 1e6:.0f} MB '
                      'of a shipped file')
    for path in report.write(folder):
        console.print(str(path), markup=False)

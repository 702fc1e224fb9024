"""Turns weights of the detector, dense or pruned, into variants of a model package.

`muon-ad export detector`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import yaml

from muon_ad.export import check_against_torch
from muon_ad.export import gflops
from muon_ad.export import parameters
from muon_ad.export import size
from muon_ad.export import to_onnx
from muon_ad.export import write_package
from muon_ad.networks.detector import DetectorNet
from muon_ad.networks.detector import Exported
from muon_ad.networks.detector import load_detector
from muon_ad.networks.detector import STRIDES
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import PackageError
from muon_ad.train.images import load_images

SIZES = ((320, 256), (416, 320))
DENSE = 'dense'
_CHECKED_SIDE = 480     # short side of the pictures that the export is checked on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `muon-ad export detector`."""
    parser.add_argument('weights', type=Path, metavar='WEIGHTS',
                        help='.safetensors of `muon-ad train detector` or `prune detector`')
    parser.add_argument('-o', '--out', type=Path, required=True, metavar='PACKAGE',
                        help='folder of the model package; its variants of the same name are '
                        'replaced, others stay')
    parser.add_argument('--level', metavar='NAME',
                        help='first part of the names of the variants (default: the name of the '
                        'weights, such as dense or p40)')
    parser.add_argument('--sizes', type=size, nargs='+', default=SIZES, metavar='WIDTHxHEIGHT',
                        help='a variant each (default: 320x256 416x320)')
    parser.add_argument('--images', type=Path, nargs='+', default=[], metavar='PATH',
                        help='pictures to compare the export with PyTorch on (default: three '
                        'photographs of scikit-image)')
    parser.add_argument('--licence', default='', help='licence, of a package that is new')


def run(args: argparse.Namespace) -> int:
    """Export and check as the options say; returns the exit status."""
    pictures = load_images(args.images, _CHECKED_SIDE) if args.images else photographs()
    net, classes = load_detector(args.weights)
    about = {'name': args.out.resolve().name, 'licence': args.licence,
             'summary': f'anchor-free detector of {len(classes)} classes'}
    level = args.level or args.weights.stem
    package = add_variants(net, classes, args.out, args.sizes, about, level)
    for width, height in args.sizes:
        name = f'{level}_{width}x{height}'
        worst = check_against_torch(package, name, Exported(net).eval(), pictures)
        variant = package.variant(name)
        print(f'{name}: {variant.parameters} parameters ({variant.pruned:.1%} pruned), '
              f'{variant.gflops:.3f} GFLOP; {worst:.1g} from PyTorch on {len(pictures)} pictures')
    return 0


def photographs() -> list[np.ndarray]:
    """Return the photographs that come with scikit-image, uint8 [H, W, 3] RGB."""
    return [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee()]


def add_variants(
    net: DetectorNet, classes: Sequence[str], folder: Path, sizes: Sequence[tuple[int, int]],
    about: dict[str, Any], level: str = DENSE,
) -> ModelPackage:
    """Write a detector as variants LEVEL_WIDTHxHEIGHT of the package in a folder.

    A package that is not there yet is made, its first variant the default; `about` holds its name,
    summary and licence. Raises PackageError where the package in the folder is broken or detects
    other classes.
    """
    path = folder / 'model.yaml'
    if not path.exists():
        return export_detector(net, classes, folder, sizes, about, level)
    package = load_package(folder)
    if package.task != 'detection' or package.classes != tuple(classes):
        raise PackageError(f'{path}: task {package.task} with classes {list(package.classes)}; '
                           f'expected a detector of {list(classes)}: give another folder')
    data = yaml.safe_load(path.read_text(encoding='utf-8'))
    data['variants'].update(_variants(net, folder, sizes, level))
    return write_package(folder, data)


def export_detector(
    net: DetectorNet, classes: Sequence[str], folder: Path, sizes: Sequence[tuple[int, int]],
    about: dict[str, Any], level: str = DENSE,
) -> ModelPackage:
    """Write a detector as a new package with one variant for each size, the first the default.

    `about` holds name, summary, licence, and what `model.yaml` says of training and quality.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return write_package(folder, {
        **about,
        'task': 'detection',
        'input': {'color': 'rgb', 'layout': 'nhwc', 'dtype': 'uint8', 'resize': 'letterbox'},
        'variants': _variants(net, folder, sizes, level),
        'decoder': {'name': 'yolox', 'strides': list(STRIDES)},
        'classes': list(classes),
    })


def _variants(
    net: DetectorNet, folder: Path, sizes: Sequence[tuple[int, int]], level: str,
) -> dict[str, dict[str, Any]]:
    """Write the ONNX files; return what `model.yaml` says of them."""
    wrapped = Exported(net).eval()
    pruned = 1 - parameters(net) / parameters(DetectorNet(net.classes))
    variants = {}
    for width, height in sizes:
        name = f'{level}_{width}x{height}'
        to_onnx(wrapped, folder / f'{name}.onnx', width, height, ['output'])
        variants[name] = {
            'file': f'{name}.onnx', 'width': width, 'height': height, 'precision': 'fp32',
            'pruned': round(pruned, 3), 'parameters': parameters(net),
            'gflops': gflops(wrapped, width, height),
        }
    return variants

"""The ONNX file that a command is about: a variant of a package, or a file by itself."""

import argparse
from pathlib import Path

from muon_ad.export import size
from muon_ad.paths import expanded
from muon_ad.runtime.installed import find_package
from muon_ad.runtime.package import load_package


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that name the file and its frames."""
    parser.add_argument('model', metavar='PACKAGE|FILE.onnx',
                        help='model package, by name or folder, or an ONNX file')
    parser.add_argument('--variant', default='', help="of the package (default: the package's)")
    parser.add_argument('--size', type=size, metavar='WIDTHxHEIGHT',
                        help='frames of an ONNX file that leaves them open')


def model_file(
    model: str, variant: str = '', frame: tuple[int, int] | None = None,
) -> tuple[Path, tuple[int, int] | None]:
    """Return the file and the size of its frames. Raises PackageError, ValueError."""
    path = expanded(model)
    if path.suffix == '.onnx':
        if variant:
            raise ValueError(f'--variant is {variant!r}, and {path} is a file; give a package')
        return path, frame
    if frame is not None:
        raise ValueError("--size is for an ONNX file; the size of a package is its variant's")
    chosen = load_package(find_package(model)).variant(variant)
    return chosen.file, (chosen.width, chosen.height)

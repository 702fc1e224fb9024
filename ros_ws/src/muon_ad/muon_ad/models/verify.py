"""`muon-ad models verify`: whether packages are whole, run, and are what their weights say."""

import argparse
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
from rich.table import Table

from muon_ad.models.run_variant import runner
from muon_ad.runtime.detection import Detections
from muon_ad.runtime.engine import EngineError
from muon_ad.runtime.installed import find_package
from muon_ad.runtime.installed import models_folder
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import PackageError
from muon_ad.runtime.package import sha256_of
from muon_ad.runtime.package import Variant
from muon_ad.runtime.style import fitting
from muon_ad.screen import screen

OK, FAILED, SKIPPED = 'ok', 'FAILED', 'not checked'
PHOTOGRAPHS = ('astronaut', 'coffee')      # of scikit-image


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: of which package and variant, with what result, and why."""

    package: str
    variant: str
    what: str
    result: str
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('packages', nargs='*', metavar='NAME|FOLDER',
                        help='model packages (default: all that are shipped)')
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')


def run(args: argparse.Namespace) -> int:
    """Check the packages; returns 1 where any check failed."""
    folder = models_folder()
    shipped = sorted(path.parent for path in folder.glob('*/model.yaml')) if folder else []
    folders = [find_package(name) for name in args.packages] or shipped
    if not folders:
        raise PackageError(f'there are no packages in {folder}; name one')
    checks = [check for path in folders for check in verify(path)]
    if args.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        table = Table('package', 'variant', 'check', 'result', 'detail')
        for check in checks:
            table.add_row(*asdict(check).values())
        screen(highlight=False).print(table)
    return int(any(check.result == FAILED for check in checks))


def verify(folder: Path) -> Iterator[Check]:
    """Check one package: hashes first, since nothing else is worth checking where they differ."""
    try:
        package = load_package(folder)
    except PackageError as error:
        yield Check(folder.name, '', 'files and hashes', FAILED, str(error))
        return
    files = {variant.file for variant in package.variants.values()}
    count = len(files) + len(package.styles) + bool(package.style_encoder)
    yield Check(package.name, '', 'files and hashes', OK, f'{count} files')
    for variant in package.variants.values():
        yield _runs(package, variant)
        yield _agrees(package, variant)


def photographs() -> list[np.ndarray]:
    """Return real photographs, uint8 [H, W, 3] RGB, of sizes that are no variant's."""
    return [getattr(skimage.data, name)() for name in PHOTOGRAPHS]


def _runs(package: ModelPackage, variant: Variant) -> Check:
    """Run a variant on photographs as a node does, and look at what comes out."""
    what = 'runs in ONNX Runtime'
    try:
        infer = runner(package, variant.name)
        for frame in photographs():
            result = infer(frame)
            if package.task == 'style':
                trouble = _wrong_picture(package, variant, frame, result)
            else:
                trouble = _wrong_boxes(frame, result, len(package.classes))
            if trouble:
                return Check(package.name, variant.name, what, FAILED, trouble)
    except (ValueError, EngineError) as error:
        return Check(package.name, variant.name, what, FAILED, str(error))
    return Check(package.name, variant.name, what, OK, f'{len(PHOTOGRAPHS)} photographs')


def _wrong_picture(
    package: ModelPackage, variant: Variant, frame: np.ndarray, result: np.ndarray,
) -> str:
    limit = (variant.width, variant.height)
    fits = package.input.resize == 'fit'
    width, height = fitting(frame.shape[1::-1], limit) if fits else limit
    if result.shape != (height, width, 3) or result.dtype != np.uint8:
        return f'output is {result.dtype} {result.shape}; expected uint8 {(height, width, 3)}'
    return '' if result.std() > 1 else f'output is even: {result.mean():.0f} everywhere'


def _wrong_boxes(frame: np.ndarray, found: Detections, classes: int) -> str:
    height, width = frame.shape[:2]
    inside = (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()
    if found.boxes.shape != (len(found), 4) or not inside:
        return f'boxes {found.boxes.shape} are not all inside the frame'
    fits = (found.class_ids < classes).all() and (found.scores <= 1).all()
    return '' if fits else 'classes or scores are out of range'


def _agrees(package: ModelPackage, variant: Variant) -> Check:
    """Compare a variant's file with the network of its weights, where both can be had."""
    what = 'agrees with its weights'
    path = weights_of(package, variant)
    if not path.is_file():
        return Check(package.name, variant.name, what, SKIPPED, f'there is no weights/{path.name}')
    if importlib.util.find_spec('torch') is None:
        return Check(package.name, variant.name, what, SKIPPED, 'torch is not installed')
    from muon_ad.deploy.agreement import DisagreementError
    from muon_ad.deploy.rebuilt import agreement

    try:
        said = agreement(package, variant, path, photographs())
    except (DisagreementError, EngineError, ValueError) as error:
        return Check(package.name, variant.name, what, FAILED, str(error))
    return Check(package.name, variant.name, what, OK, f'{said}; weights {sha256_of(path)[:12]}')


def weights_of(package: ModelPackage, variant: Variant) -> Path:
    """Return where the weights of a variant's level would be: dense_int8_320x240 is of dense."""
    level = variant.name.rsplit('_', 1)[0].replace('_int8', '').replace('_fp16', '')
    return package.folder / 'weights' / f'{level}.safetensors'

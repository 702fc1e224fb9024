"""`muon-ad models list`: the model packages in a folder, and whether they can be used."""

import argparse
import json
from pathlib import Path

from rich.table import Table

from muon_ad.runtime.installed import models_folder
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import PackageError
from muon_ad.screen import screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('folder', type=Path, nargs='?',
                        help='folder with model packages (default: those that are shipped)')
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')


def run(args: argparse.Namespace) -> int:
    """Print the packages; return 1 where one is broken or there is none."""
    folder = args.folder or models_folder()
    if folder is None or not folder.is_dir():
        print(f'{folder} is not a folder; expected one with model packages')
        return 1
    found, broken = _load_all(folder)
    if args.json:
        print(json.dumps({'packages': [listed(package) for package in found], 'broken': broken},
                         indent=2))
    else:
        _show(found)
        for line in broken:
            print(line)
    return 0 if found and not broken else 1


def _load_all(folder: Path) -> tuple[list[ModelPackage], list[str]]:
    found, broken = [], []
    for path in sorted(folder.glob('*/model.yaml')):
        try:
            found.append(load_package(path.parent))
        except PackageError as error:
            broken.append(str(error))
    return found, broken


def listed(package: ModelPackage) -> dict[str, object]:
    """Return what a list says of a package, as JSON takes it."""
    return {
        'name': package.name, 'task': package.task, 'folder': str(package.folder),
        'licence': package.licence,
        'variants': {name: {
            'width': variant.width, 'height': variant.height, 'precision': variant.precision,
            'pruned': variant.pruned, 'parameters': variant.parameters, 'gflops': variant.gflops,
            'bytes': variant.file.stat().st_size,
        } for name, variant in package.variants.items()},
    }


def _show(packages: list[ModelPackage]) -> None:
    table = Table(caption='* is the default', caption_justify='left')
    for name in ('package', 'task', 'variant'):
        table.add_column(name, no_wrap=True)
    for name in ('input', 'precision', 'pruned', 'parameters', 'GFLOPs', 'kB'):
        table.add_column(name, justify='right')
    table.add_column('licence')
    for package in packages:
        for variant in package.variants.values():
            default = '*' * (variant.name == package.default_variant)
            table.add_row(
                package.name, package.task, variant.name + default,
                f'{variant.width}x{variant.height}', variant.precision, f'{variant.pruned:.0%}',
                f'{variant.parameters:,}', f'{variant.gflops:.2f}',
                f'{variant.file.stat().st_size / 1000:.0f}', package.licence,
            )
    screen().print(table)

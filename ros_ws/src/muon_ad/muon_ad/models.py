"""`muon-ad models list`: the model packages in a folder, and whether they can be used."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import PackageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        'folder', type=Path, nargs='?', default=Path('models'),
        help='folder with model packages (default: models)',
    )


def run(args: argparse.Namespace) -> int:
    """Print a table; return 1 where a package is broken or there is none."""
    console = Console()
    if not args.folder.is_dir():
        console.print(f'{args.folder} is not a folder; expected one with model packages')
        return 1
    table = Table('package', 'task', 'variant', 'input', 'precision', 'parameters', 'GFLOPs')
    broken = []
    packages = sorted(path.parent for path in args.folder.glob('*/model.yaml'))
    for folder in packages:
        try:
            package = load_package(folder)
        except PackageError as error:
            broken.append(str(error))
            continue
        for variant in package.variants.values():
            table.add_row(
                package.name, package.task, variant.name, f'{variant.width}x{variant.height}',
                variant.precision, f'{variant.parameters:,}', f'{variant.gflops:.2f}',
            )
    console.print(table)
    for line in broken:
        console.print(line, markup=False)
    return 0 if packages and not broken else 1

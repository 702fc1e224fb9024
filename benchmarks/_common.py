"""What the benchmarks share: options, medians with spread, ratios, the table and the JSON file."""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / 'out' / 'bench'
# Beside the project, not part of it: figures against others are left out where it is absent.
WEIGHTS = ROOT.parent / 'shared' / 'data' / 'weights'
PACKAGES = (
    'ros-rclpy', 'ros-rmw-fastrtps-cpp', 'numpy', 'onnxruntime', 'opencv-python-headless', 'torch',
)
LOG_WIDTH = 120     # where the output goes to a file, whose width nobody can ask for

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=LOG_WIDTH)


def parser(description: str) -> argparse.ArgumentParser:
    """Return a command line with `--quick`, to which a benchmark may add."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        '--quick', action='store_true', help='half a minute, to see that it works: no figures'
    )
    return made


def spread(values: Sequence[float | None]) -> dict:
    """Return median, min and max of what was measured in each round, and the rounds themselves.

    None stands for a round in which there was nothing to measure; where all are, so is the median.
    """
    known = [value for value in values if value is not None]
    return {
        'median': statistics.median(known) if known else None,
        'min': min(known, default=None),
        'max': max(known, default=None),
        'rounds': list(values),
    }


def ratio(over: Sequence[float | None], under: Sequence[float | None]) -> dict:
    """Return the spread of `over` / `under`, round by round.

    The two of a round were measured one after the other, so that what slows the machine for a
    while slows both. Raises ValueError where the numbers of rounds differ.
    """
    return spread([
        a / b if a is not None and b else None for a, b in zip(over, under, strict=True)
    ])


def shown(value: dict, digits: int = 1) -> str:
    """Return `median (min-max)`, the median alone of one round, a dash where there is nothing."""
    if value['median'] is None:
        return '-'
    if len(value['rounds']) == 1:
        return f'{value["median"]:.{digits}f}'
    return '{median:.{d}f} ({min:.{d}f}-{max:.{d}f})'.format(**value, d=digits)


def table(title: str, *columns: str) -> Table:
    """Return an empty table; the first column holds names, the others figures."""
    made = Table(title=title, title_justify='left', caption_justify='left')
    for index, column in enumerate(columns):
        made.add_column(column, justify='right' if index else 'left', overflow='fold')
    return made


def finish(name: str, filled: Table, ratios: dict[str, dict], measured: object, **more: object) \
        -> None:
    """Show the table and the ratios; write all of it to out/bench/<name>.json."""
    headline = {key: rounded(value['median']) for key, value in ratios.items()}
    console.print(filled)
    for key, value in ratios.items():
        console.print(f'  {key}: {shown(value, 2)}')
    report = {
        'name': name,
        'headline': headline,
        'ratios': ratios,
        'measured': measured,
        **more,
        'machine': machine(),
        'versions': versions(),
    }
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f'{name}.json'
    path.write_text(json.dumps(report, indent=2, default=str) + '\n')
    console.print(f'median (min-max) over rounds; all figures: {path.relative_to(ROOT)}')


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call a benchmark's main function and end with its status; Ctrl-C needs no traceback."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        console.print('interrupted')
        sys.exit(130)


def rounded(value: float | None) -> float | None:
    """Return a number with three significant digits, which is more than a shared machine gives."""
    return None if value is None else float(f'{value:.3g}')


def machine() -> dict:
    """Return what ran the benchmark, with its load: a busy machine shows in the spread."""
    return {
        'cpu': _cpu_model(),
        'cores': len(os.sched_getaffinity(0)),
        'system': platform.platform(),
        'python': platform.python_version(),
        'load': [round(value, 2) for value in os.getloadavg()],
    }


def _cpu_model() -> str:
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    board = Path('/proc/device-tree/model')     # an ARM board has no model name
    return board.read_text().rstrip('\0') if board.is_file() else platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of what the figures depend on, as far as they are Python packages."""
    installed = {each.metadata['Name'].lower(): each.version for each in metadata.distributions()}
    found = {name: installed[name] for name in PACKAGES if name in installed}
    return found | {'ros': os.environ.get('ROS_DISTRO', 'wheels')}

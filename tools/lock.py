"""Chooses versions for everything the requirements pull in: `python -m tools.lock 3.11`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GROUPS = ('runtime', 'colcon', 'ros', 'learn', 'test', 'lint')
HEADER = '# All packages for Python {}, written by `make lock`: change the other files instead.\n'


def main(version: str) -> int:
    """Rewrite the lock file of one Python version with uv; return uv's exit status."""
    folder = ROOT / 'requirements'
    target = folder / f'lock-{version}.txt'
    answer = subprocess.run(
        [ROOT / '.venv/bin/uv', 'pip', 'compile', '--quiet', '--no-header', '--no-annotate',
         '--python-version', version, '--python-platform', 'x86_64-manylinux_2_28',
         *(folder / f'{group}.txt' for group in GROUPS)],
        stdout=subprocess.PIPE, text=True,
    )
    if answer.returncode == 0:
        target.write_text(HEADER.format(version) + answer.stdout)
        print(f'{target.relative_to(ROOT)}: {answer.stdout.count("==")} packages')
    return answer.returncode


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))

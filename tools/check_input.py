"""Checks INPUT, STYLE and DURATION of `make demo` before anything slow starts."""

import math
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def check_input(value: str) -> str | None:
    """Return what is wrong with INPUT: a video file, a folder of images or a camera number."""
    path = Path(value).expanduser()
    if path.is_dir():
        return None if any(path.iterdir()) else f'INPUT={value}: the folder is empty'
    if path.exists():
        return None if os.access(path, os.R_OK) else f'INPUT={value}: no permission to read it'
    if not value.isdecimal():
        return f'INPUT={value}: no such video file, folder of images or camera number'
    device = Path(f'/dev/video{int(value)}')
    if device.exists():
        return None
    present = sorted(path.name[5:] for path in Path('/dev').glob('video[0-9]*'))
    return f'INPUT={value}: no camera {device}; cameras here: {", ".join(present) or "none"}'


def check_style(value: str) -> str | None:
    """Return what is wrong with STYLE: an image file or the name of a built-in style."""
    path = Path(value).expanduser()
    if path.is_dir():
        return f'STYLE={value}: this is a folder; give an image file'
    if path.exists():
        return None if os.access(path, os.R_OK) else f'STYLE={value}: no permission to read it'
    names = sorted({image.stem for image in ROOT.glob('models/*/styles/*.png')})
    if value in names:
        return None
    return f'STYLE={value}: no such image file, nor a built-in style ({", ".join(names)})'


def check_duration(value: str) -> str | None:
    """Return what is wrong with DURATION: seconds, more than zero."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    return None if 0 < seconds < math.inf else f'DURATION={value}: give seconds, such as 30'


CHECKS = {'INPUT': check_input, 'STYLE': check_style, 'DURATION': check_duration}


def problems(environ: dict[str, str]) -> list[str]:
    """Return one line for each of the variables that is set to something unusable."""
    found = [check(environ[name]) for name, check in CHECKS.items() if environ.get(name)]
    return [problem for problem in found if problem]


if __name__ == '__main__':
    for problem in problems(dict(os.environ)):
        print(f'demo: {problem}', file=sys.stderr)
    sys.exit(1 if problems(dict(os.environ)) else 0)

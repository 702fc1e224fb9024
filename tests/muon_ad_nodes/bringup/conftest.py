"""A package of toy executables, and launch files written on the spot."""

import os
import sys
from pathlib import Path

import pytest

CHATTER = Path(__file__).resolve().parent.parent / 'chatter.py'
PYTHON = f'#!{sys.executable}\n'
TOYS = {
    # Says what it was given, then waits to be stopped.
    'talker': '#!/bin/sh\necho "arguments: $*"\necho "colour: $COLOUR"\nexec sleep 1000\n',
    'finisher': '#!/bin/sh\nprintf "first\\nlast without newline"\n',
    'failing': '#!/bin/sh\nexit 3\n',
    # Fails when it is started first, stays when it is started again.
    'flaky': '#!/bin/sh\nif mkdir "$MARK"; then exit 4; fi\necho second start\nexec sleep 1000\n',
    'stubborn': PYTHON + 'import signal\n'
    'signal.signal(signal.SIGINT, signal.SIG_IGN)\n'
    "print('ready', flush=True)\nsignal.pause()\n",
    # Takes its time after SIGINT, until it is allowed to end; has no time after SIGTERM.
    'slow': PYTHON + 'import os, pathlib, signal, sys, time\n'
    'signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\n'
    'def stop(*_):\n'
    "    while not pathlib.Path(os.environ['MARK']).exists():\n"
    "        print('tick', flush=True)\n        time.sleep(0.02)\n"
    '    sys.exit(0)\n'
    "signal.signal(signal.SIGINT, stop)\nprint('ready', flush=True)\nsignal.pause()\n",
    'deaf': PYTHON + 'import signal, time\n'
    'for number in (signal.SIGINT, signal.SIGTERM):\n'
    '    signal.signal(number, signal.SIG_IGN)\n'
    "print('ready', flush=True)\ntime.sleep(1000)\n",
    # Leaves a process of its own behind.
    'parent': '#!/bin/sh\nsleep 1000 &\necho "left behind: $!"\n',
    'chatter': PYTHON + CHATTER.read_text(),
    'shouter': PYTHON + "print('x' * 200000)\nprint('caf\\u00e9')\n",
}


@pytest.fixture
def toys(tmp_path: Path, monkeypatch) -> Path:
    """Install the package `toys` in a prefix of its own; return its share folder."""
    prefix = tmp_path / 'prefix'
    index = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
    programs = prefix / 'lib' / 'toys'
    share = prefix / 'share' / 'toys'
    for folder in (index, programs, share):
        folder.mkdir(parents=True)
    (index / 'toys').touch()
    for name, text in TOYS.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    others = os.environ.get('AMENT_PREFIX_PATH', '')
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{prefix}{os.pathsep}{others}')
    return share


@pytest.fixture
def write(tmp_path: Path):
    """Return a function that writes a launch file with the given body."""

    def write(body: str, name: str = 'test.launch.xml') -> Path:
        path = tmp_path / name
        path.write_text(f'<launch>\n{body}\n</launch>\n')
        return path

    return write

"""Plain functions that tests of several folders use."""

import gc
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition; fail naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f'waited {seconds} s in vain for {what}')
        time.sleep(0.01)


def file_entry(path: Path) -> dict[str, str]:
    """The mapping that names a file in model.yaml."""
    return {'file': path.name, 'sha256': hashlib.sha256(path.read_bytes()).hexdigest()}


def kill_once_there_is(path: Path, arguments: list[str]) -> None:
    """Run `muon-ad` with these arguments in a process, and kill it as soon as `path` is there."""
    code = 'import sys; from muon_ad.cli import main; sys.exit(main())'
    with subprocess.Popen(
        [sys.executable, '-c', code, *arguments], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    ) as process:
        while not path.exists():
            assert process.poll() is None, process.stdout.read().decode()
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL


def release_participants() -> None:
    """Collect the contexts of tests that are over: until then they map shared memory."""
    gc.unfreeze()
    gc.collect()

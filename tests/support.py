"""Plain functions that tests of several folders use."""

import gc
import hashlib
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


def release_participants() -> None:
    """Collect the contexts of tests that are over: until then they map shared memory."""
    gc.unfreeze()
    gc.collect()

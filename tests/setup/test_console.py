import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.setup import console

PARENT = """
import os, signal, sys
from tools.setup import console
signal.signal(signal.SIGTERM, signal.default_int_handler)
lock = os.open('.', os.O_RDONLY)
console.run(['sh', '-c', 'sleep 60 & echo $! ; wait'], dict(os.environ), lock)
"""


def test_a_failing_command_is_named():
    lock = os.open('.', os.O_RDONLY)
    try:
        with pytest.raises(console.SetupError, match='false failed with exit status 1'):
            console.run(['false'], dict(os.environ), lock)
    finally:
        os.close(lock)


@pytest.mark.parametrize('sign', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_grandchildren_too(sign):
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen(
        [sys.executable, '-c', PARENT], cwd=root, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    grandchild = int(parent.stdout.readline())
    parent.send_signal(sign)
    parent.wait(20)
    deadline = time.monotonic() + 10
    while _runs(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(grandchild)


def _runs(pid: int) -> bool:
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except FileNotFoundError:
        return False
    return state != 'Z'


def test_a_step_tells_its_title_and_time(capsys):
    with console.progress('[1/1] packages'):
        pass
    assert capsys.readouterr().out.splitlines()[0] == '[1/1] packages'


def test_a_failed_step_is_not_reported_as_done(capsys):
    with pytest.raises(console.SetupError), console.progress('[1/1] packages'):
        raise console.SetupError('no network')
    assert 'done' not in capsys.readouterr().out

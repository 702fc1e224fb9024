"""Runs the slow commands of the set-up with visible progress; interrupted, ends them all."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

HEARTBEAT_S = 10.0
GRACE_S = 5.0
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SetupError(Exception):
    """The set-up cannot go on; the message says in one line what to do."""


def say(text: str) -> None:
    """Print one line at once, also where the output is a file."""
    print(text, flush=True)


@contextmanager
def progress(title: str) -> Iterator[None]:
    """Announce a step, then its duration; in a log, also that it is still running."""
    say(title)
    start = time.monotonic()
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_S):
            say(f'      ... {time.monotonic() - start:.0f} s')

    if not sys.stdout.isatty():  # on a terminal uv and colcon draw their own progress
        threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        done.set()
    say(f'      done in {time.monotonic() - start:.1f} s')


def run(command: list[str], environment: dict[str, str], lock: int) -> None:
    """Run `command` in a session of its own, which dies with us; raise SetupError if it fails.

    The child inherits the descriptor `lock`: should we be killed without a chance to end it, the
    next set-up waits for it instead of working in the same folders.
    """
    child = None
    try:
        with _deferred_interrupts():
            child = subprocess.Popen(
                command, env=environment, start_new_session=True, pass_fds=(lock,),
                stdin=subprocess.DEVNULL,
            )
        status = child.wait()
    except BaseException:
        if child:
            _end(child)
        raise
    if status:
        name = os.path.basename(command[0])
        raise SetupError(f'{name} failed with exit status {status}; its message is above')


@contextmanager
def _deferred_interrupts() -> Iterator[None]:
    """Hold interrupts back for a moment: a child that is just being started cannot be ended."""
    caught = []
    handlers = {
        sign: signal.signal(sign, lambda number, _: caught.append(number)) for sign in INTERRUPTS
    }
    try:
        yield
    finally:
        for sign, handler in handlers.items():
            signal.signal(sign, handler)
    if caught:
        raise KeyboardInterrupt


def _end(child: subprocess.Popen) -> None:
    """Terminate the child's whole process group, then kill what is left of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C must not stop this
    for sign, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        try:
            os.killpg(child.pid, sign)
        except ProcessLookupError:
            break
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            continue

"""Processes that take part in a benchmark: told to end by their standard input, heard by lines."""

import subprocess
import sys
import threading
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muon_ad_nodes.parts.shared_memory import remove_stale


@contextmanager
def workers(limit_s: float) -> Iterator[Callable[..., subprocess.Popen]]:
    """Yield `start(words, environment)`, which runs a script of this folder with its arguments.

    What was started is ended with the block, or after `limit_s`.
    """
    started: list[subprocess.Popen] = []

    def start(words: tuple[str, ...], environment: dict[str, str]) -> subprocess.Popen:
        script, *arguments = words
        command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
        pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
        started.append(subprocess.Popen(command, env=environment, text=True, **pipes))
        return started[-1]

    def kill() -> None:
        for process in started:
            process.kill()

    watchdog = threading.Timer(limit_s, kill)
    watchdog.start()
    try:
        yield start
        for process in started:
            process.stdin.close()   # which is how they are told to end
            process.wait()
    finally:
        watchdog.cancel()
        kill()
        for process in started:
            process.wait()
            process.stdout.close()
        remove_stale()


def line(process: subprocess.Popen) -> str:
    """Return the next line a worker prints. Raises RuntimeError where it ended instead."""
    text = process.stdout.readline()
    if not text:
        raise RuntimeError(f'ended before it had delivered: {" ".join(process.args)}')
    return text

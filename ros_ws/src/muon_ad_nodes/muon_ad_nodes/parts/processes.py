"""Processes of other nodes: how they were started, whether they live, how to start them anew."""

import ctypes
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Loaded here: between fork and exec nothing should be.
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Recipe:
    """A running process and what it takes to start it again, read from /proc."""

    pid: int
    started: int
    command: tuple[str, ...]
    environment: dict[str, str]
    folder: str

    @classmethod
    def of(cls, pid: int) -> 'Recipe':
        """Read the recipe of a live process.

        Raises ProcessLookupError where it is gone, PermissionError where it is another user's.
        """
        proc = Path(f'/proc/{pid}')
        try:
            started = _start_time(pid)
            command = (proc / 'cmdline').read_bytes().rstrip(b'\0').split(b'\0')
            environment = (proc / 'environ').read_bytes().rstrip(b'\0').split(b'\0')
            folder = os.readlink(proc / 'cwd')
        except FileNotFoundError as error:
            raise ProcessLookupError(f'process {pid} is gone') from error
        return cls(
            pid,
            started,
            tuple(map(os.fsdecode, command)),
            dict(os.fsdecode(item).split('=', 1) for item in environment if b'=' in item),
            folder,
        )

    def alive(self) -> bool:
        """Whether this very process runs still (not a zombie, nor another with its number)."""
        try:
            return _start_time(self.pid) == self.started
        except (FileNotFoundError, ProcessLookupError):
            return False

    def start(self) -> subprocess.Popen:
        """Start the same command again, as a child that does not outlive this process.

        Raises OSError where the executable or the folder is gone.
        """
        return subprocess.Popen(
            self.command,
            env=self.environment,
            cwd=self.folder,
            preexec_fn=lambda: signal_when_parent_dies(signal.SIGTERM),
        )


def _start_time(pid: int) -> int:
    """Return the start time in clock ticks since boot; FileNotFoundError where there is none."""
    # The name in parentheses may hold spaces; what follows it is separated by single ones.
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    if fields[0] in 'ZX':
        raise FileNotFoundError(f'process {pid} has ended')
    return int(fields[19])


def signal_when_parent_dies(number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent ends, however it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, number)


def end(process: subprocess.Popen, seconds: float = 5.0) -> None:
    """End a child in order: SIGINT, after `seconds` SIGKILL; return when it is gone."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

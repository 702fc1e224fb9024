"""A job of muon_ad.distill in a process of its own, which is gone when the job is over."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pickle import UnpicklingError

from muon_ad.distill.jobs import Event
from muon_ad.distill.jobs import Failed
from muon_ad.distill.jobs import Job
from muon_ad.distill.jobs import Step
from muon_ad_nodes.parts import realtime

WORKER = 'muon_ad.distill.worker'


@dataclass(frozen=True)
class JobLimits:
    """How the process of a job is treated.

    It runs under SCHED_BATCH with this niceness. Without a sign of life for `silence_s`, or
    `grace_s` after it was to be cancelled, it is killed.
    """

    nice: int = 10
    silence_s: float = 300.0
    grace_s: float = 2.0


class JobProcess:
    """Runs a job; calls `tell` with each Step, and at last once with a Done or a Failed.

    `tell` is called in a thread of its own, and not any more once `close` has returned. A process
    that crashes or is killed comes out as a Failed that says so. All memory, that of a GPU too,
    goes with the process; torch is never loaded in this one. Raises OSError where it cannot be
    started.
    """

    def __init__(self, job: Job, tell: Callable[[Event], None], limits: JobLimits) -> None:
        self._job, self._tell, self._limits = job, tell, limits
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, '-m', WORKER, str(theirs.fileno())], stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
            )
        self._connection = Connection(ours.detach())
        self._step_aside()
        self._heard = time.monotonic()
        self._step = 0
        self._sent = threading.Event()
        self._closed = threading.Event()
        self._cancelled: float | None = None
        self._killed = ''
        self._thread = threading.Thread(target=self._run, name='job')
        self._thread.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def cancel(self) -> None:
        """Ask for the picture so far. The process ends soon, or is killed (see `look_after`)."""
        self._cancelled = time.monotonic()
        if not self._sent.is_set():
            self._kill('cancelled before its first step')
            return
        with suppress(OSError):     # it has ended
            self._connection.send('cancel')

    def look_after(self) -> None:
        """Kill the process if it is overdue; to be called every now and then."""
        now, limits = time.monotonic(), self._limits
        if self._cancelled is not None and now - self._cancelled > limits.grace_s:
            self._kill(f'cancelled after step {self._step}, before the next was done')
        elif now - self._heard > limits.silence_s:
            self._kill(f'killed: no sign of life for {limits.silence_s:g} s after step '
                       f'{self._step}')

    def close(self) -> None:
        """Kill the process if it still runs; return when it is gone."""
        self._closed.set()
        self._process.kill()
        self._thread.join()
        self._connection.close()

    def _step_aside(self) -> None:
        """Leave the CPU to those who stream, before the process makes threads that inherit it."""
        pid, nice = self._process.pid, self._limits.nice
        with suppress(PermissionError, ProcessLookupError):    # SCHED_IDLE is as humble
            realtime.set_class('batch', 0, pid)
        with suppress(ProcessLookupError):
            has = os.getpriority(os.PRIO_PROCESS, pid)
            os.setpriority(os.PRIO_PROCESS, pid, max(has, nice))

    def _kill(self, why: str) -> None:
        self._killed = self._killed or why
        self._process.kill()

    def _run(self) -> None:
        last = self._listen()
        # It has said all, or is dead; what it holds is of no value.
        self._process.kill()
        status = self._process.wait()
        if not self._closed.is_set():
            self._tell(last or Failed(self._killed or _how_it_ended(status, self._step)))

    def _listen(self) -> Event | None:
        """Pass on each step; return what is last, None where the process ended without it."""
        try:
            self._connection.send(self._job)
            self._sent.set()
            while isinstance(event := self._connection.recv(), Step):
                self._heard, self._step = time.monotonic(), event.step
                if not self._closed.is_set():
                    self._tell(event)
            return event
        except (EOFError, OSError, UnpicklingError):     # the last: cut off in the middle
            return None


def _how_it_ended(status: int, step: int) -> str:
    how = f'with exit status {status}'
    if status < 0:
        names = {number.value: number.name for number in signal.Signals}    # not all have one
        how = f'by {names.get(-status, f"signal {-status}")}'
    hint = ' (out of memory?)' if status == -signal.SIGKILL else ''
    return f'the process of the job ended {how}{hint} after step {step}; its log may say why'

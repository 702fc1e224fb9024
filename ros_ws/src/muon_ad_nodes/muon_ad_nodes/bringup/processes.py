"""Runs nodes as processes: forwards their output, starts them again, and ends them all."""

import ctypes
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import yaml

from muon_ad_nodes.bringup.launch import Launch
from muon_ad_nodes.bringup.launch import Node
from muon_ad_nodes.parts import registry
from muon_ad_nodes.parts.processes import identity
from muon_ad_nodes.parts.processes import Recipe
from muon_ad_nodes.parts.shared_memory import remove_stale

# How a stop escalates, and how long each signal may take: the times of ROS's launch.
GRACE_S = 5.0
# One Ctrl-C may come twice: from the terminal, and passed on by a parent.
SAME_REQUEST_S = 0.5
STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
# Exit statuses of a process that was asked to stop and did.
STOPPED = (0, -signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM)
STOP_REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PR_SET_PDEATHSIG = 1
# Shared memory younger than this may belong to a process beside ours that is just starting.
STARTING_S = 10.0
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Child:
    """A node and its process, if it runs. `due` is when to start it again (monotonic time)."""

    node: Node
    label: str
    command: list[str]
    process: subprocess.Popen | None = None
    partial: bytes = b''
    due: float | None = None
    failed: bool = False


@dataclass
class Bringup:
    """The state of a run.

    `requests` counts those to stop, `stage` the stop signals sent; `deadline` (monotonic time) is
    when the next of them is due.
    """

    children: list[Child] = field(default_factory=list)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    requests: int = 0
    requested: float = -math.inf
    stage: int = 0
    deadline: float | None = None


def run(launch: Launch) -> int:
    """Run the nodes of `launch` until they have ended or a signal asks to stop.

    SIGINT, SIGTERM and SIGHUP end all nodes: SIGINT to each, after 5 s SIGTERM, after 5 more
    SIGKILL; a second request hastens that. Shared memory that dead processes left is removed
    first and last. Returns 0, or 1 if a node failed and was not started again, or did not stop
    in order. Call it from the main thread: the nodes are killed when that thread ends.
    """
    bringup = Bringup()
    with bringup.selector, _signals(bringup):
        _remove_stale(STARTING_S)
        with tempfile.TemporaryDirectory(prefix='muon_ad_bringup_') as folder:
            for number, node in enumerate(launch.nodes, start=1):
                command = _command(node, number, Path(folder))
                bringup.children.append(Child(node, f'{node.executable.name}-{number}', command))
            for child in bringup.children:
                if not bringup.requests:
                    _start(bringup, child)
            while _pending(bringup):
                _step(bringup)
        _remove_stale()
        registry.forget(identity(os.getpid()))
    return int(any(child.failed for child in bringup.children))


def _command(node: Node, number: int, folder: Path) -> list[str]:
    files = []
    for index, entry in enumerate(node.parameters):
        if isinstance(entry, Path):
            files.append(str(entry))
            continue
        path = folder / f'{number}_{index}.yaml'
        path.write_text(yaml.safe_dump(node.parameter_document(entry)))
        files.append(str(path))
    return node.command(files)


@contextmanager
def _signals(bringup: Bringup) -> Iterator[None]:
    """Count stop requests, and let signals and ended children wake the selector."""
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)

    def request(number: int, _: object) -> None:
        now = time.monotonic()
        if now - bringup.requested > SAME_REQUEST_S:
            bringup.requests += 1
            bringup.requested = now

    def ended(number: int, _: object) -> None:
        """Do nothing: the wake-up is enough, but only a handled signal causes it."""

    previous = {number: signal.signal(number, request) for number in STOP_REQUESTS}
    previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, ended)
    old_descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    bringup.selector.register(reader, selectors.EVENT_READ)
    try:
        yield
    finally:
        signal.set_wakeup_fd(old_descriptor)
        for number, handler in previous.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()


def _start(bringup: Bringup, child: Child) -> None:
    parent = os.getpid()

    def tie_to_parent() -> None:
        # SIGKILL, as a node that hangs would outlive anything else.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    child.due = None
    try:
        # A session of its own, so that the terminal's Ctrl-C reaches it through here only. This
        # process has one thread, which makes preexec_fn safe.
        child.process = subprocess.Popen(
            child.command,
            env=child.node.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=tie_to_parent,
        )
    except OSError as error:
        _log('ERROR', child.label, f'cannot start {child.command[0]}: {error}')
        child.failed = True
        return
    _log('INFO', child.label, f'process started with pid [{child.process.pid}]')
    _register(child)
    os.set_blocking(child.process.stdout.fileno(), False)
    bringup.selector.register(child.process.stdout, selectors.EVENT_READ, child)


def _register(child: Child) -> None:
    """Leave word of how a node was started: it may die before it can do so itself."""
    pid, name = child.process.pid, child.node.full_name
    if name is None:
        return
    started = int(identity(pid).partition(':')[2] or 0)     # 0: it has ended already
    environment = dict(child.node.environment)
    recipe = Recipe(pid, started, tuple(child.command), environment, os.getcwd())
    try:
        registry.register(name, recipe, identity(os.getpid()))
    except OSError as error:
        _log('WARNING', child.label, f'not started again if it dies at once: {error}')


def _pending(bringup: Bringup) -> bool:
    return any(child.process or child.due is not None for child in bringup.children)


def _step(bringup: Bringup) -> None:
    """Wait for the next thing to happen, and deal with it."""
    for key, _ in bringup.selector.select(_time_left(bringup)):
        if key.data is None:
            key.fileobj.recv(4096)
        else:
            _forward(bringup, key.data)
    for child in bringup.children:
        if child.process and _has_ended(child.process):
            _finish(bringup, child)
    if bringup.requests > bringup.stage:
        _stop_harder(bringup)
    now = time.monotonic()
    if bringup.deadline is not None and now >= bringup.deadline:
        _stop_harder(bringup)
    for child in bringup.children:
        if child.due is not None and now >= child.due:
            # Or a node that dies again and again would fill /dev/shm.
            _remove_stale(STARTING_S)
            _start(bringup, child)


def _time_left(bringup: Bringup) -> float | None:
    times = [child.due for child in bringup.children if child.due is not None]
    if bringup.deadline is not None:
        times.append(bringup.deadline)
    return max(0.0, min(times) - time.monotonic()) if times else None


def _forward(bringup: Bringup, child: Child) -> None:
    """Print what a process has written, each line behind its label."""
    stream = child.process.stdout
    while True:
        try:
            data = os.read(stream.fileno(), 65536)
        except BlockingIOError:
            return
        if not data:
            bringup.selector.unregister(stream)
            return
        *lines, child.partial = (child.partial + data).split(b'\n')
        if len(child.partial) > 65536:
            lines.append(child.partial)
            child.partial = b''
        for line in lines:
            _print(f'[{child.label}] {line.decode(errors="replace")}')


def _has_ended(process: subprocess.Popen) -> bool:
    """Tell whether a process has ended, without reaping it: its group keeps its number so."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, flags) is not None


def _finish(bringup: Bringup, child: Child) -> None:
    """Reap a process that has ended, with what it started, and plan its next start."""
    process = child.process
    os.killpg(process.pid, signal.SIGKILL)
    status = process.wait()
    if process.stdout in bringup.selector.get_map():
        _forward(bringup, child)
    if process.stdout in bringup.selector.get_map():
        bringup.selector.unregister(process.stdout)
    if child.partial:
        _print(f'[{child.label}] {child.partial.decode(errors="replace")}')
    process.stdout.close()
    child.process, child.partial = None, b''
    child.failed = status not in (STOPPED if bringup.stage else (0,))
    if child.failed:
        command = ' '.join(child.command)
        text = f"process has died [pid {process.pid}, exit code {status}, cmd '{command}']"
        _log('ERROR', child.label, text)
    else:
        _log('INFO', child.label, f'process has finished cleanly [pid {process.pid}]')
    if child.node.respawn_delay is not None and not bringup.requests:
        child.due = time.monotonic() + child.node.respawn_delay


def _stop_harder(bringup: Bringup) -> None:
    """Send the next stop signal to what still runs, and start nothing any more."""
    number = STOP[min(bringup.stage, len(STOP) - 1)]
    bringup.stage += 1
    bringup.requests = max(bringup.requests, bringup.stage)
    bringup.deadline = time.monotonic() + GRACE_S
    for child in bringup.children:
        child.due = None
        if child.process:
            _log('INFO', child.label, f'sending signal {number.name!r} to process')
            os.killpg(child.process.pid, number)


def _log(level: str, label: str, text: str) -> None:
    _print(f'[{level}] [{label}]: {text}')


def _print(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError:
        # Whoever read us is gone. Ask ourselves to stop, and be silent until then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.raise_signal(signal.SIGTERM)


def _remove_stale(older_than_s: float = 0.0) -> None:
    removed = remove_stale(older_than_s)
    if removed:
        _log('INFO', 'bringup', f'removed {len(removed)} shared-memory files of dead processes')

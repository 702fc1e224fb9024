"""Processes of other nodes: how they were started, whether they live, how to start them anew."""

import ctypes
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from muon_ad_nodes.parts.arguments import full_name

# In the environment of a node that was started again: the supervisor and what started that, as
# "number:start time". It outlives one of them, so that tasks go on while launch starts a killed
# supervisor again, but not both.
KEEPERS = 'MUON_AD_KEEPERS'
KEEPER_PERIOD_S = 1.0
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
            command = _command(pid)
            environment = (proc / 'environ').read_bytes().rstrip(b'\0').split(b'\0')
            folder = os.readlink(proc / 'cwd')
        except FileNotFoundError as error:
            raise ProcessLookupError(f'process {pid} is gone') from error
        return cls(
            pid,
            started,
            command,
            dict(os.fsdecode(item).split('=', 1) for item in environment if b'=' in item),
            folder,
        )

    def alive(self) -> bool:
        """Whether this very process runs still (not a zombie, nor another with its number)."""
        try:
            return _start_time(self.pid) == self.started
        except (FileNotFoundError, ProcessLookupError):
            return False

    def may_be(self, name: str) -> bool:
        """Whether this can be the node of that full name.

        A status names a process by number, and in another container that is another process.
        """
        named = full_name(self.command)
        return named == name if named else 'AMENT_PREFIX_PATH' in self.environment

    def kill(self) -> None:
        """Send SIGKILL to this very process, never to one that took over its number.

        Raises ProcessLookupError where it is gone, PermissionError where it is another user's.
        """
        descriptor = os.pidfd_open(self.pid)
        try:
            if not self.alive():
                raise ProcessLookupError(f'process {self.pid} is gone')
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)

    def start(self) -> subprocess.Popen:
        """Start the same command again, as a child, with this process and its parent as KEEPERS.

        In a session of its own: launch ends what is left in that of a supervisor that died.
        Raises OSError where the executable or the folder is gone.
        """
        keepers = ' '.join(filter(None, map(identity, (os.getpid(), os.getppid()))))
        return subprocess.Popen(
            self.command,
            env={**self.environment, KEEPERS: keepers},
            cwd=self.folder,
            start_new_session=True,
        )

    def successor(self, pid: int) -> 'Recipe':
        """Return the recipe of what `start` started, which /proc does not show at once in full.

        Raises ProcessLookupError where it has ended already.
        """
        try:
            return replace(self, pid=pid, started=_start_time(pid))
        except FileNotFoundError as error:
            raise ProcessLookupError(f'process {pid} is gone') from error


def find_nodes(names: Collection[str]) -> dict[str, Recipe]:
    """Find the processes that run nodes of these full names, by their command lines.

    Looks at this user's processes in this ROS domain. Of several with one name it takes the one
    that `ros2 run` or another wrapper started, of unrelated ones the latest.
    """
    found: dict[str, list[Recipe]] = defaultdict(list)
    for entry in Path('/proc').glob('[0-9]*'):
        try:
            name = full_name(_command(int(entry.name)))
            if name in names:
                found[name].append(Recipe.of(int(entry.name)))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    chosen = {}
    for name, recipes in found.items():
        ours = [recipe for recipe in recipes if _domain(recipe.environment) == _domain(os.environ)]
        parents = {_parent(recipe.pid) for recipe in ours}
        inner = [recipe for recipe in ours if recipe.pid not in parents]
        if inner:
            chosen[name] = max(inner, key=lambda recipe: recipe.started)
    return chosen


def _command(pid: int) -> tuple[str, ...]:
    words = Path(f'/proc/{pid}/cmdline').read_bytes().rstrip(b'\0').split(b'\0')
    return tuple(map(os.fsdecode, words))


def _domain(environment: Mapping[str, str]) -> str:
    return environment.get('ROS_DOMAIN_ID') or '0'


def _start_time(pid: int) -> int:
    """Return the start time in clock ticks since boot; FileNotFoundError where there is none."""
    fields = _stat(pid)
    if fields[0] in 'ZX':
        raise FileNotFoundError(f'process {pid} has ended')
    return int(fields[19])


def _parent(pid: int) -> int:
    try:
        return int(_stat(pid)[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _stat(pid: int) -> list[str]:
    """Return what /proc/<pid>/stat holds behind the name, from the state on."""
    # The name in parentheses may hold spaces; what follows it is separated by single ones.
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()


def wait_until_forsaken() -> None:
    """Return when all KEEPERS of this process are gone; never where it has none."""
    keepers = os.environ.get(KEEPERS, '').split()
    numbers = [int(keeper.partition(':')[0]) for keeper in keepers]
    while not keepers or set(keepers) & set(map(identity, numbers)):
        time.sleep(KEEPER_PERIOD_S)


def identity(pid: int) -> str:
    """Return a process as "number:start time"; '' where it is gone or of another container."""
    try:
        return f'{pid}:{_start_time(pid)}'
    except (FileNotFoundError, ProcessLookupError):
        return ''


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

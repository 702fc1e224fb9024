"""Scheduling class, CPU set and memory of this process, applied before its threads are made.

A thread inherits the class of the thread that makes it, and numpy, ONNX Runtime and DDS make
threads when they are imported or first used. So `apply` must run before those imports: this module
imports nothing heavy, and takes its settings from the command line, where the node's parameters
are, before there is a node.
"""

import ctypes
import gc
import os
import resource
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

from muon_ad.documents import DocumentError
from muon_ad.documents import parse_document
from muon_ad.documents import read_document
from muon_ad.paths import is_file
from muon_ad_nodes.parts.arguments import full_name

POLICIES = {
    'other': os.SCHED_OTHER,
    'batch': os.SCHED_BATCH,
    'fifo': os.SCHED_FIFO,
    'rr': os.SCHED_RR,
}
REAL_TIME = ('fifo', 'rr')
_POLICY_NAMES = {number: f'SCHED_{name.upper()}' for name, number in POLICIES.items()}

MOST_CPUS = 1024        # of the kernel's cpu_set_t
MOST_THREADS = 64
HIGHEST = 99            # priority of fifo and rr

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


@dataclass(frozen=True)
class Role:
    """What an executable takes where its parameters leave it open.

    `priority` of fifo and rr, and the class that stands in where those are not allowed.
    """

    priority: int = 1
    fallback: str = 'other'


# Results before images would starve the cameras, whose images they wait for.
ROLES = {
    'realsense_camera': Role(90),
    'csi_camera': Role(90),
    'bag_player': Role(90),
    'frame_sync': Role(85),
    'style_transfer': Role(80),
    'object_detector': Role(40, fallback='batch'),
    'stylizer': Role(fallback='batch'),
}


@dataclass(frozen=True)
class RealtimeSettings:
    """What a process asks of the kernel. An empty policy leaves the class as it is.

    `priority` counts for fifo and rr; `nice` for the other classes. Where fifo or rr is not
    allowed, the process runs as `fallback`. `threads` are those of numpy and OpenMP.
    """

    policy: str = ''
    priority: int = 0
    cpus: tuple[int, ...] = ()
    lock_memory: bool = False
    nice: int = 0
    threads: int = 1
    fallback: str = 'other'

    @property
    def real_time(self) -> bool:
        """Whether it asks for fifo or rr."""
        return self.policy in REAL_TIME

    @property
    def level(self) -> int:
        """The priority as the kernel takes it: 0 for classes that have none."""
        return max(self.priority, 1) if self.real_time else 0


@dataclass(frozen=True)
class ThreadClasses:
    """Scheduling classes of a process's threads, read back from the kernel."""

    policy: str
    priority: int
    threads: int
    off_policy: tuple[str, ...] = field(default=())


def settings_from_arguments(
    arguments: list[str], default_name: str, role: Role = Role()
) -> RealtimeSettings:
    """Read `threads` and the `realtime.*` parameters from ROS command-line arguments.

    Understands `-p name:=value`, `--params-file` with `/**` or the node's full name, and the
    remaps `__node` and `__ns`, as rcl does; later ones win. What is unreadable here is left to
    rcl, which reads the same arguments and reports errors in full.
    """
    name = full_name(arguments, default_name)
    found: dict[str, Any] = {}
    for flag, value in zip(arguments, arguments[1:], strict=False):
        if flag == '--params-file':
            found |= _from_file(Path(value), name)
        elif flag in ('-p', '--param') and ':=' in value:
            key, text = value.split(':=', 1)
            if _is_read_here(key):
                with suppress(DocumentError):
                    found[key] = parse_document(text)
    return _settings(found, role)


def _is_read_here(parameter: str) -> bool:
    return parameter == 'threads' or parameter.startswith('realtime.')


def _from_file(path: Path, node: str) -> dict[str, Any]:
    if not is_file(path):
        return {}
    try:
        content = read_document(path)
    except DocumentError:
        return {}
    found: dict[str, Any] = {}
    for key, section in content.items() if isinstance(content, dict) else ():
        # A name without a slash stands for a node in the root namespace.
        applies = key == '/**' or f'/{str(key).lstrip("/")}' == node
        values = section.get('ros__parameters') if isinstance(section, dict) else None
        if applies and isinstance(values, dict):
            found |= _dotted(values)
    return found


def _dotted(values: dict[Any, Any]) -> dict[str, Any]:
    """Return the parameters that are read here, whether nested or with a dot in their name."""
    found = {key: value for key, value in values.items() if _is_read_here(str(key))}
    nested = values.get('realtime')
    if isinstance(nested, dict):
        found |= {f'realtime.{key}': value for key, value in nested.items()}
    return found


def _settings(found: dict[str, Any], role: Role) -> RealtimeSettings:
    """Take the values that are usable; the node's own check reports the others."""
    policy, cpus = found.get('realtime.policy', ''), found.get('realtime.cpus')
    wanted = found.get('realtime.enabled') is not False
    return RealtimeSettings(
        policy=policy if wanted and isinstance(policy, str) and policy in POLICIES else '',
        priority=_number(found, 'realtime.priority', 0, HIGHEST) or role.priority,
        cpus=tuple(filter(_is_cpu, cpus)) if isinstance(cpus, list) else (),
        lock_memory=found.get('realtime.lock_memory') is True,
        nice=_number(found, 'realtime.nice', -20, 19),
        threads=_number(found, 'threads', 1, MOST_THREADS) or 1,
        fallback=role.fallback,
    )


def _number(found: dict[str, Any], name: str, least: int, most: int) -> int:
    """Return an integer parameter; 0 where it is absent, of another type or out of range."""
    value = found.get(name)
    return value if type(value) is int and least <= value <= most else 0


def _is_cpu(number: object) -> bool:
    return isinstance(number, int) and 0 <= number < MOST_CPUS


def apply(settings: RealtimeSettings) -> tuple[RealtimeSettings, list[str]]:
    """Apply `settings` to this process, which must not have made threads yet.

    Returns the settings in effect, and one line for each wish that the kernel refused.
    """
    _keep_freed_memory()
    refused = []
    if settings.policy:
        settings, refused = _set_policy(settings)
    if settings.cpus:
        refused += _set_cpus(settings.cpus)
    # Read by OpenMP and numpy when they are loaded: as many threads as the network has, and
    # waiting ones sleep rather than burn another task's core.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    os.environ.setdefault('OMP_NUM_THREADS', str(settings.threads))
    if settings.lock_memory:
        refused += _lock_memory()
    return settings, refused


def _keep_freed_memory() -> None:
    """Keep freed image buffers in the heap; returning them costs thousands of faults a frame."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)
    # What one thread frees another can use: an arena for each took 40 MB more in a camera node.
    libc.mallopt(_M_ARENA_MAX, 1)


def release_memory() -> None:
    """Give freed memory back to the system; after work that takes much, once and for a moment."""
    ctypes.CDLL(None).malloc_trim(0)


def _set_policy(settings: RealtimeSettings) -> tuple[RealtimeSettings, list[str]]:
    """Take the class; where that is not allowed, the best that needs no permission."""
    try:
        set_class(settings.policy, settings.level)
    except PermissionError:
        with suppress(PermissionError):     # out of SCHED_IDLE
            set_class(settings.fallback, 0)
        nice = _set_nice(settings.nice)
        return replace(settings, policy=settings.fallback), [
            f'no permission for SCHED_{settings.policy.upper()} {settings.level}: running as '
            f'{read_classes().policy}, nice {nice}; give the process CAP_SYS_NICE or raise '
            'the rtprio limit (limits.conf: "@realtime - rtprio 95")'
        ]
    if settings.real_time or not settings.nice:
        return settings, []
    nice = _set_nice(settings.nice)
    return settings, [] if nice == settings.nice else [
        f'no permission for realtime.nice {settings.nice}: running at {nice}; give the process '
        'CAP_SYS_NICE or raise the nice limit (limits.conf: "@realtime - nice -20")'
    ]


def _set_nice(nice: int) -> int:
    """Set the niceness, or the nearest that is allowed; return it. 0 leaves it as it is."""
    has = os.getpriority(os.PRIO_PROCESS, 0)
    if not nice:
        return has
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except PermissionError:
        least = 20 - resource.getrlimit(resource.RLIMIT_NICE)[0]
        os.setpriority(os.PRIO_PROCESS, 0, min(max(nice, least), has))
    return os.getpriority(os.PRIO_PROCESS, 0)


def _set_cpus(cpus: tuple[int, ...]) -> list[str]:
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        return [
            f'realtime.cpus {list(cpus)} refused ({error.strerror}); '
            f'this machine offers {sorted(os.sched_getaffinity(0))}'
        ]
    return []


def _lock_memory() -> list[str]:
    libc = ctypes.CDLL(None, use_errno=True)
    # On fault: what was used stays; the stacks and heaps that nobody touches cost nothing.
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0:
        return []
    reason = os.strerror(ctypes.get_errno())
    return [f'memory is not locked ({reason}); raise the memlock limit or set it to unlimited']


def set_class(policy: str, level: int, process: int | None = None) -> None:
    """Give every thread of a process, this one by default, a class and its priority (or 0).

    The calling thread comes last: it would not get to the others once it is below them. Raises
    PermissionError where that is not allowed, ProcessLookupError where the process is gone.
    """
    folder = Path(f'/proc/{os.getpid() if process is None else process}/task')
    own, done = threading.get_native_id(), set()
    # Again and again: a thread may have been made meanwhile by one that was yet to come.
    while left := _threads(folder) - done:
        for thread in sorted(left, key=lambda each: each == own):
            with suppress(ProcessLookupError):      # it has ended
                os.sched_setscheduler(thread, POLICIES[policy], os.sched_param(level))
        done |= left


def _threads(folder: Path) -> set[int]:
    try:
        return {int(name) for name in os.listdir(folder)}
    except FileNotFoundError as error:
        raise ProcessLookupError(f'{folder} is gone') from error


def settle() -> None:
    """Take what is loaded out of the garbage collector's reach; to be called after warm-up.

    A full collection over rclpy and ONNX Runtime stalls a frame by up to 100 ms. In a process that
    did not begin with `start`, the collector is not ours to set.
    """
    if not _started:
        return
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def read_classes(settings: RealtimeSettings | None = None) -> ThreadClasses:
    """Read the class of every thread of this process from the kernel.

    `off_policy` names the threads whose class is not the one in `settings`, or whose priority is
    below it; one above it watches over the others (parts/budget_guard.py).
    """
    found: dict[int, tuple[int, int]] = {}
    for thread in _threads(Path('/proc/self/task')):
        with suppress(ProcessLookupError):  # ended between the listing and the question
            found[thread] = (
                os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK,
                os.sched_getparam(thread).sched_priority,
            )
    counted = Counter(found.values())
    policy, priority = max(counted, key=counted.get)
    name = _POLICY_NAMES.get(policy, f'SCHED_{policy}')
    off: tuple[str, ...] = ()
    if settings is not None and settings.policy:
        off = tuple(
            _thread_name(thread)
            for thread, (has, level) in found.items()
            if has != POLICIES[settings.policy] or level < settings.level
        )
    return ThreadClasses(
        policy=name if len({has for has, _ in counted}) == 1 else 'mixed',
        priority=priority,
        threads=len(found),
        off_policy=off,
    )


def _thread_name(thread: int) -> str:
    try:
        return Path(f'/proc/self/task/{thread}/comm').read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return str(thread)


def current_settings() -> RealtimeSettings:
    """Return the settings of `start` that are in effect in this process."""
    return _in_effect


def refused() -> list[str]:
    """Return one line for each wish of `start` that the kernel refused."""
    return list(_refused)


def start(executable: str, node: str) -> None:
    """Apply the settings on this process's command line; `node` is its node's own name."""
    global _in_effect, _started
    _started = True
    role = ROLES.get(executable, Role())
    _in_effect, lines = apply(settings_from_arguments(sys.argv[1:], node, role))
    _refused.extend(lines)


_started = False
_in_effect = RealtimeSettings()
_refused: list[str] = []

"""Scheduling class, CPU set and memory of this process, applied before its threads are made.

A thread inherits the class of the thread that makes it, and numpy, ONNX Runtime and DDS make
threads when they are imported or first used. So `apply` must run before those imports: this module
imports nothing heavy, and takes its settings from the command line, where the node's parameters
are, before there is a node.
"""

import ctypes
import gc
import os
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
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
_POLICY_NAMES = {number: f'SCHED_{name.upper()}' for name, number in POLICIES.items()}

MOST_CPUS = 1024        # of the kernel's cpu_set_t

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MCL_CURRENT_AND_FUTURE = 3


@dataclass(frozen=True)
class RealtimeSettings:
    """What a process asks of the kernel. An empty policy leaves the class as it is."""

    policy: str = ''
    priority: int = 0
    cpus: tuple[int, ...] = ()
    lock_memory: bool = False


@dataclass(frozen=True)
class ThreadClasses:
    """Scheduling classes of a process's threads, read back from the kernel."""

    policy: str
    priority: int
    threads: int
    off_policy: tuple[str, ...] = field(default=())


def settings_from_arguments(arguments: list[str], default_name: str) -> RealtimeSettings:
    """Read the `realtime.*` parameters from ROS command-line arguments.

    Understands `-p name:=value`, `--params-file` with `/**` or the node's full name, and the
    remaps `__node` and `__ns`, as rcl does; later ones win. What is unreadable here is left to
    rcl, which reads the same arguments and reports errors in full.
    """
    name = full_name(arguments, default_name)
    found: dict[str, Any] = {}
    for flag, value in zip(arguments, arguments[1:], strict=False):
        if flag == '--params-file':
            found |= _from_file(Path(value), name)
        elif flag in ('-p', '--param') and value.startswith('realtime.') and ':=' in value:
            key, text = value.split(':=', 1)
            with suppress(DocumentError):
                found[key.removeprefix('realtime.')] = parse_document(text)
    return _settings(found)


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
            nested = values.get('realtime')
            found |= nested if isinstance(nested, dict) else {}
            found |= {
                key.removeprefix('realtime.'): value
                for key, value in values.items()
                if str(key).startswith('realtime.')
            }
    return found


def _settings(found: dict[str, Any]) -> RealtimeSettings:
    """Take the values that are usable; the node's own check reports the others."""
    policy, priority = found.get('policy', ''), found.get('priority', 0)
    cpus = found.get('cpus') or ()
    return RealtimeSettings(
        policy=policy if isinstance(policy, str) and policy in POLICIES else '',
        priority=priority if isinstance(priority, int) and 0 <= priority <= 99 else 0,
        cpus=tuple(filter(_is_cpu, cpus)) if isinstance(cpus, list) else (),
        lock_memory=found.get('lock_memory') is True,
    )


def _is_cpu(number: object) -> bool:
    return isinstance(number, int) and 0 <= number < MOST_CPUS


def apply(settings: RealtimeSettings) -> list[str]:
    """Apply `settings` to this process; return one line for each wish the kernel refused."""
    _keep_freed_memory()
    # Read by OpenMP when it is loaded: waiting threads sleep rather than burn another task's core.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    refused = []
    if settings.cpus:
        try:
            os.sched_setaffinity(0, settings.cpus)
        except OSError as error:
            refused.append(
                f'realtime.cpus {list(settings.cpus)} refused ({error.strerror}); '
                f'this machine offers {sorted(os.sched_getaffinity(0))}'
            )
    if settings.policy:
        refused += _set_policy(settings)
    if settings.lock_memory:
        refused += _lock_memory()
    return refused


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


def _set_policy(settings: RealtimeSettings) -> list[str]:
    real_time = settings.policy in ('fifo', 'rr')
    priority = max(settings.priority, 1) if real_time else 0
    try:
        os.sched_setscheduler(0, POLICIES[settings.policy], os.sched_param(priority))
    except PermissionError:
        return [
            f'no permission for SCHED_{settings.policy.upper()} {priority}: running as '
            f'{read_classes(settings).policy}; give the process CAP_SYS_NICE or raise the rtprio '
            'limit (limits.conf: "@realtime - rtprio 95")'
        ]
    return []


def _lock_memory() -> list[str]:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT_AND_FUTURE) == 0:
        return []
    reason = os.strerror(ctypes.get_errno())
    return [f'memory is not locked ({reason}); raise the memlock limit or set it to unlimited']


def settle() -> None:
    """Take what is loaded out of the garbage collector's reach; to be called after warm-up.

    A full collection over rclpy and ONNX Runtime stalls a frame by up to 100 ms.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def read_classes(settings: RealtimeSettings | None = None) -> ThreadClasses:
    """Read the class of every thread of this process from the kernel.

    `off_policy` names the threads whose class or priority is not the one in `settings`.
    """
    found: dict[int, tuple[int, int]] = {}
    for entry in Path('/proc/self/task').iterdir():
        thread = int(entry.name)
        try:
            found[thread] = (
                os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK,
                os.sched_getparam(thread).sched_priority,
            )
        except ProcessLookupError:  # ended between the listing and the question
            continue
    counted = Counter(found.values())
    (policy, priority), _ = counted.most_common(1)[0]
    name = _POLICY_NAMES.get(policy, f'SCHED_{policy}')
    off: tuple[str, ...] = ()
    if settings is not None and settings.policy:
        wanted = POLICIES[settings.policy]
        real_time = settings.policy in ('fifo', 'rr')
        off = tuple(
            _thread_name(thread)
            for thread, (has, level) in found.items()
            if has != wanted or (real_time and level != max(settings.priority, 1))
        )
    return ThreadClasses(
        policy=name if len(counted) == 1 else 'mixed',
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
    """Return what `start` applied to this process."""
    return _settings_applied


def refused() -> list[str]:
    """Return one line for each wish of `start` that the kernel refused."""
    return list(_refused)


def start(default_name: str) -> None:
    """Apply the settings on this process's command line."""
    global _settings_applied
    _settings_applied = settings_from_arguments(sys.argv[1:], default_name)
    _refused.extend(apply(_settings_applied))


_settings_applied = RealtimeSettings()
_refused: list[str] = []

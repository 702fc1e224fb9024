"""Samples what the processes of the suite hold: memory, handles, threads, shared memory."""

import re
from dataclasses import dataclass
from pathlib import Path

import psutil

SHARED_MEMORY = Path('/dev/shm')
_SEGMENT = re.compile(r'/dev/shm/(fast(?:dds|rtps)_[0-9a-f]{16})\b')


@dataclass(frozen=True)
class Sample:
    """One process at one moment; memory in MB (1e6 bytes)."""

    rss: float
    pss: float
    heap: float         # anonymous pages, without libraries and shared memory: a leak shows here
    handles: int
    threads: int
    segments: int       # of DDS participants, its own and others', that it maps


FIGURES = tuple(Sample.__dataclass_fields__)


class Sampler:
    """Samples processes, and remembers the shared memory that any of them mapped."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}
        self._segments: set[str] = set()

    def sample(self, pid: int) -> Sample | None:
        """Return a sample, or None where the process has ended."""
        try:
            process = self._known.setdefault(pid, psutil.Process(pid))
            memory = process.memory_full_info()
            segments = _segments(pid)
            self._segments |= segments
            return Sample(
                rss=memory.rss / 1e6,
                pss=memory.pss / 1e6,
                heap=_anonymous_mb(pid),
                handles=process.num_fds(),
                threads=process.num_threads(),
                segments=len(segments),
            )
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            self._known.pop(pid, None)      # a process that is just ending denies access
            return None


    def left(self) -> set[str]:
        """Return the segments that one of the processes mapped, and that exist still."""
        return {name for name in self._segments if (SHARED_MEMORY / name).exists()}


def ours() -> dict[int, psutil.Process]:
    """Return the living processes below this one: only these may be done harm to."""
    below = psutil.Process().children(recursive=True)
    return {each.pid: each for each in below if each.is_running()}


def _anonymous_mb(pid: int) -> float:
    """Raises psutil.NoSuchProcess for a zombie, which has no memory."""
    status = Path(f'/proc/{pid}/status').read_text()
    found = re.search(r'^RssAnon:\s+(\d+) kB', status, re.MULTILINE)
    if found is None:
        raise psutil.NoSuchProcess(pid)
    return int(found[1]) * 1024 / 1e6


def _segments(pid: int) -> set[str]:
    return set(_SEGMENT.findall(Path(f'/proc/{pid}/maps').read_text()))

"""The shared memory that killed processes left behind: removed, and kept from harming others.

Fast DDS keeps in /dev/shm, per participant, a segment and its lock, and per port a queue, its
lock and a semaphore:

    fastdds_<id>   fastdds_<id>_el
    fastdds_port<n>   fastdds_port<n>_el or _sl   sem.fastdds_port<n>_mutex

(`fastrtps` instead of `fastdds` before version 3). The owner holds a flock on the lock file as
long as it lives, and everyone who uses a segment or a port maps it. What is neither locked nor
mapped belongs to nobody.
"""

import fcntl
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import ExitStack
from contextlib import suppress
from pathlib import Path
from typing import IO

FOLDER = Path('/dev/shm')
# A process that is just starting has made a file but not yet mapped or locked it.
SETTLE_S = 0.2

_PORT_LOCK = re.compile(r'fast(?:dds|rtps)_port\d+_el')
_FILE = re.compile(
    r'(?P<segment>fast(?:dds|rtps)_[0-9a-f]{16})(?:_[es]l)?'
    r'|(?:sem\.)?(?P<port>fast(?:dds|rtps)_port\d+)(?:_[es]l|_mutex)?'
)


def remove_stale(older_than_s: float = 0.0) -> list[Path]:
    """Remove Fast DDS's shared memory that no living process uses; return the files removed.

    Looks at this user's files only, twice, 0.2 s apart, and removes what was unused both times.
    While other processes start, give an age that their files cannot have reached: between making
    a file and locking it they can be held up for long on a busy machine.
    """
    unused = _unused(older_than_s)
    if not unused:
        return []
    time.sleep(SETTLE_S)
    unused &= _unused(older_than_s)
    removed = []
    for path, _ in sorted(unused):
        try:
            path.unlink()
        except FileNotFoundError:
            continue  # someone else cleans, too
        removed.append(path)
    return removed


@contextmanager
def ports_of_the_dead_avoided() -> Iterator[list[str]]:
    """Keep Fast DDS from taking the ports of killed processes that others still map.

    For the time in which a participant is made: it then takes the next port that is free. Yields
    the names of the ports that are avoided. They are held by a shared lock on their lock files,
    so that any number of processes can avoid them at once.
    """
    with ExitStack() as held:
        free = {}
        for path in filter(lambda path: _PORT_LOCK.fullmatch(path.name), FOLDER.iterdir()):
            # A lock file that is gone belongs to no zombie; another user's we may not open.
            with suppress(FileNotFoundError, PermissionError):
                if file := _locked(path, fcntl.LOCK_SH):
                    free[path.name.removesuffix('_el')] = held.enter_context(file)
        mapped = _mapped_names() if free else set()
        for name in free.keys() - mapped:
            free.pop(name).close()
        yield sorted(free)


def _unused(older_than_s: float = 0.0) -> set[tuple[Path, int]]:
    """Return path and inode of the files of groups (segment or port) that nobody uses."""
    newest = time.time() - older_than_s
    groups: dict[str, list[tuple[Path, os.stat_result]]] = defaultdict(list)
    for path in FOLDER.iterdir():
        match = _FILE.fullmatch(path.name)
        if match is None:
            continue
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if status.st_uid == os.geteuid():
            groups[match['segment'] or match['port']].append((path, status))
    mapped = _mapped_names() if groups else set()
    return {
        (path, status.st_ino)
        for files in groups.values()
        # Locks last: to try one is to hold it for a moment, and a new port may want it.
        if all(status.st_ctime <= newest for _, status in files)
        and not any(path.name in mapped for path, _ in files)
        and not any(_is_locked(path) for path, _ in files)
        for path, status in files
    }


def _mapped_names() -> set[str]:
    """Return the names of files below /dev/shm that processes map, as far as we may look.

    Also of files that have been removed meanwhile, or replaced by others of the same name.
    """
    device = FOLDER.stat().st_dev
    wanted = f'{os.major(device):02x}:{os.minor(device):02x}'
    names = set()
    for maps in Path('/proc').glob('[0-9]*/maps'):
        try:
            lines = maps.read_text(errors='replace').splitlines()
        except OSError:  # it has ended, or belongs to another user, who cannot map our files
            continue
        for line in lines:
            fields = line.split(maxsplit=5)
            if fields[3] == wanted and len(fields) == 6:
                names.add(Path(fields[5].removesuffix(' (deleted)')).name)
    return names


def _is_locked(path: Path) -> bool:
    """Tell whether a living process holds a lock on the file."""
    if not path.name.endswith(('_el', '_sl')):
        return False
    try:
        file = _locked(path, fcntl.LOCK_EX)
    except FileNotFoundError:
        return False
    if file is None:
        return True
    file.close()
    return False


def _locked(path: Path, kind: int) -> IO[bytes] | None:
    """Return the file opened and locked; None where another lock is in the way."""
    file = path.open('rb')
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file

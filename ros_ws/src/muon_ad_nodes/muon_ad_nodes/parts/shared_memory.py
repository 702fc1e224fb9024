"""Removes the shared memory that killed processes left behind.

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
from pathlib import Path

FOLDER = Path('/dev/shm')
# A process that is just starting has made a file but not yet mapped or locked it.
SETTLE_S = 0.2

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
    mapped = _mapped_inodes() if groups else set()
    return {
        (path, status.st_ino)
        for files in groups.values()
        # Locks last: to try one is to hold it for a moment, and a new port may want it.
        if all(status.st_ctime <= newest for _, status in files)
        and not any(status.st_ino in mapped for _, status in files)
        and not any(_is_locked(path) for path, _ in files)
        for path, status in files
    }


def _mapped_inodes() -> set[int]:
    """Return the inodes below /dev/shm that processes map, as far as we may look."""
    device = FOLDER.stat().st_dev
    wanted = f'{os.major(device):02x}:{os.minor(device):02x}'
    inodes = set()
    for maps in Path('/proc').glob('[0-9]*/maps'):
        try:
            lines = maps.read_text(errors='replace').splitlines()
        except OSError:  # it has ended, or belongs to another user, who cannot map our files
            continue
        for line in lines:
            fields = line.split(maxsplit=5)
            if fields[3] == wanted:
                inodes.add(int(fields[4]))
    return inodes


def _is_locked(path: Path) -> bool:
    """Tell whether a living process holds a lock on the file."""
    if not path.name.endswith(('_el', '_sl')):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

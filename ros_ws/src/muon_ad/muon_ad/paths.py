"""Paths that others name: a name that no file can have is one that is not there, and no crash.

And files that are replaced as a whole.
"""

import os
from pathlib import Path


def expanded(name: str | Path) -> Path:
    """Return the path with `~` expanded; one in the home of nobody stays as it is."""
    try:
        return Path(name).expanduser()
    except (RuntimeError, ValueError):
        return Path(name)


def is_file(path: Path) -> bool:
    """Whether there is a file."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there complete, or as it was before, whenever the process dies.

    Raises OSError.
    """
    partial = path.with_name(f'.{path.name}.partial')
    with partial.open('wb') as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)

"""Paths that others name: a name that no file can have is one that is not there, and no crash."""

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

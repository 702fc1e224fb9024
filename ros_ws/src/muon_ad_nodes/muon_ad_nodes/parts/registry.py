"""How the nodes of a launch were started, kept in files: of a dead process nothing else tells.

Each node, and the bringup for it, leaves its recipe when it starts; a supervisor of the same
launch finds it there when the node died before it was seen. Recipes hold an environment, and
commands that will be run: the folder is the user's own, closed to all others.
"""

import json
import os
import shutil
import stat
import tempfile
from dataclasses import asdict
from pathlib import Path

from muon_ad_nodes.parts.processes import identity
from muon_ad_nodes.parts.processes import KEEPERS
from muon_ad_nodes.parts.processes import Recipe


def launcher() -> str:
    """Return what started this process, as `identity`: its parent, or what started that."""
    keepers = os.environ.get(KEEPERS, '').split()
    return keepers[-1] if keepers else identity(os.getppid())


def register(name: str, recipe: Recipe, launcher: str) -> None:
    """Keep the recipe of a node of that full name, in place of an earlier one of this launch.

    Raises OSError where files cannot be written, or their folder is not ours alone.
    """
    path = _path(name, launcher)
    _root().mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_root()
    path.parent.mkdir(exist_ok=True)
    # Whole or not at all: it is read by another process at any time.
    descriptor, draft = tempfile.mkstemp(dir=path.parent)
    with open(descriptor, 'w') as file:
        json.dump(asdict(recipe), file)
    os.replace(draft, path)


def registered(name: str, launcher: str) -> Recipe | None:
    """Return the last recipe of a node of that full name in this launch; None without one.

    Raises OSError where the folder is not ours alone.
    """
    path = _path(name, launcher)
    if not path.is_file():
        return None
    _check_root()
    found = json.loads(path.read_text())
    return Recipe(**{**found, 'command': tuple(found['command'])})


def forget(launcher: str) -> None:
    """Remove all recipes of a launch."""
    shutil.rmtree(_root() / _folder(launcher), ignore_errors=True)


def forget_ended() -> None:
    """Remove the recipes of launches that have ended."""
    for folder in _root().glob('*-*') if _root().is_dir() else ():
        number, _, started = folder.name.partition('-')
        if number.isdigit() and identity(int(number)) != f'{number}:{started}':
            shutil.rmtree(folder, ignore_errors=True)


def _root() -> Path:
    folder = os.environ.get('XDG_RUNTIME_DIR') or tempfile.gettempdir()
    return Path(folder) / f'muon_ad-{os.geteuid()}'


def _check_root() -> None:
    status = _root().lstat()
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not ours or status.st_mode & 0o077:
        raise PermissionError(
            f'{_root()}: expected a folder of user {os.geteuid()} that is closed to others '
            f'(mode 700); remove it'
        )


def _folder(launcher: str) -> str:
    return launcher.replace(':', '-')


def _path(name: str, launcher: str) -> Path:
    return _root() / _folder(launcher) / f'{name.strip("/").replace("/", ".")}.json'

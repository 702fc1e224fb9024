"""Remembers finished steps: they are repeated only when their inputs or results changed."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

UNFINISHED = 'unfinished'


def digest(*parts: str | Path) -> str:
    """Return the SHA-256 (hex) of texts and of the contents of files, in the order given."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()


def listing(trees: Iterable[Path]) -> list[str]:
    """Return every file below `trees` that exists, byte code left out (it comes and goes)."""
    found = []
    for tree in trees:
        for folder, folders, names in os.walk(tree):
            folders[:] = [name for name in folders if name != '__pycache__']
            paths = (os.path.join(folder, name) for name in names)
            found += [path for path in paths if os.path.exists(path)]
    return found


@dataclass(frozen=True)
class Stamp:
    """Note at `path` of the key a step was finished with and of all files it left in `trees`."""

    path: Path
    trees: tuple[Path, ...]

    def state(self, key: str) -> str:
        """Return 'current', or why to run the step: 'new', 'unfinished', 'changed', 'damaged'."""
        try:
            note = json.loads(self.path.read_text())
        except FileNotFoundError:
            return 'new'
        except ValueError:  # cut off by a crash of the machine
            return 'unfinished'
        if note['key'] == UNFINISHED:
            return 'unfinished'
        if note['key'] != key:
            return 'changed'
        return 'current' if all(map(os.path.exists, note['files'])) else 'damaged'

    def begin(self) -> None:
        """Note that the step runs: until `finish` its results are not to be trusted."""
        self._write(UNFINISHED, [])

    def finish(self, key: str) -> None:
        """Note that the step is done, with what it left."""
        self._write(key, listing(self.trees))

    def _write(self, key: str, files: list[str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix('.draft')
        draft.write_text(json.dumps({'key': key, 'files': files}))
        os.replace(draft, self.path)

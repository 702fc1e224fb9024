"""The log of a training: a CSV file with a row every so many steps."""

import csv
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

LOG = 'log.csv'


class Log:
    """Appends rows of numbers; a run that resumes at `step` drops the rows that came after it.

    `columns` follow the column `step`; a row may leave some empty. Every row is on the disk, or
    at least with the kernel, when `write` returns.
    """

    def __init__(self, path: Path, columns: Sequence[str], step: int) -> None:
        names = ('step', *columns)
        kept = [row for row in _rows(path) if int(row['step']) <= step] if step else []
        partial = path.with_suffix('.partial')
        with partial.open('w', newline='', encoding='utf-8') as stream:
            writer = csv.DictWriter(stream, names, restval='', extrasaction='ignore')
            writer.writeheader()
            writer.writerows(kept)
        partial.replace(path)
        self._stream = path.open('a', newline='', encoding='utf-8', buffering=1)
        self._writer = csv.DictWriter(self._stream, names, restval='')

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one row; raises ValueError for a name that is not a column."""
        self._writer.writerow({'step': step, **{n: f'{v:.6g}' for n, v in values.items()}})

    def __enter__(self) -> 'Log':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a log; one that was cut short by the end of a process is left out."""
    if not path.is_file():
        return []
    with path.open(newline='', encoding='utf-8') as stream:
        return [row for row in csv.DictReader(stream) if None not in row.values()]

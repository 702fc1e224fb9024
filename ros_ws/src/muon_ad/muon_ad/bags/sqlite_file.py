"""SQLite files of rosbag2 (*.db3), also those that are cut off or damaged within."""

import struct
from collections import Counter
from collections.abc import Iterator
from collections.abc import Set
from pathlib import Path
from urllib.parse import quote

import apsw
import numpy as np

from muon_ad.bags.chunks import Raw
from muon_ad.bags.decompress import LIMIT
from muon_ad.bags.error import BagError
from muon_ad.bags.error import Trouble
from muon_ad.bags.types import Channel
from muon_ad.bags.types import is_latched
from muon_ad.bags.types import normalised

MAGIC = b'SQLite format 3\0'
_BAD_DATABASE = (apsw.Error, UnicodeDecodeError)
# The size of a page and how many there are, in the first bytes of a database.
_HEADER = struct.Struct('>16xH10xI')
_ROW = np.dtype([('time', '<i8'), ('channel', '<i8'), ('row', '<i8')])


class SqliteFile:
    """The messages of one database. `channels` and `counts` are by the number of the topic."""

    def __init__(self, path: Path, trouble: Trouble) -> None:
        self._name = path.name
        self._size = path.stat().st_size
        self._trouble = trouble
        self._reads = _Reads()
        self._database = None
        try:
            self._database = self._open(path)
            self.channels = self._channels()
        except _BAD_DATABASE as error:
            self.close()
            raise BagError(
                f'{path}: not a bag of rosbag2: stopped near {self._end(path)}: {error}'
            ) from error
        self._rows = self._index()
        self.counts = Counter(self._rows['channel'].tolist())
        times = self._rows['time']
        self.span_ns = (int(times[0]), int(times[-1])) if len(times) else None

    def read(self, channels: Set[int], start_ns: int, end_ns: int) -> Iterator[Raw]:
        """Yield the messages of `channels` from `start_ns` to `end_ns`, inclusive, by time."""
        for time_ns, channel, row in self._rows:
            if channel not in channels or not start_ns <= time_ns <= end_ns:
                continue
            try:
                query = 'SELECT data FROM messages WHERE rowid = ?'
                (data,), = self._database.execute(query, (int(row),))
            except (*_BAD_DATABASE, ValueError) as error:
                self._told(f'message {row} is left out near', error)
                continue
            if isinstance(data, bytes):
                yield Raw(int(time_ns), int(channel), data, self._reads.last)

    def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()
        self._reads.unregister()

    def _open(self, path: Path) -> apsw.Connection:
        log = path.with_name(f'{path.name}-wal')
        # Unchanged by others, so that no lock is needed; but then SQLite passes over its log.
        unchanged = not (log.is_file() and log.stat().st_size)
        uri = f'file:{quote(str(path.absolute()))}?mode=ro&immutable={int(unchanged)}'
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        database = apsw.Connection(uri, flags=flags, vfs=self._reads.vfs_name)
        database.limit(apsw.SQLITE_LIMIT_LENGTH, LIMIT)
        # SQLite refuses a file that is shorter than it says, but for this.
        database.pragma('writable_schema', True)
        database.pragma('trusted_schema', False)
        database.pragma('cell_size_check', True)
        return database

    def _channels(self) -> dict[int, Channel]:
        definitions = dict(self._definitions())
        columns = {row[1] for row in self._database.execute('PRAGMA table_info(topics)')}
        qos = 'offered_qos_profiles' if 'offered_qos_profiles' in columns else "''"
        query = f'SELECT id, name, type, serialization_format, {qos} FROM topics'
        channels = {}
        for number, topic, kind, encoding, profiles in self._database.execute(query):
            if not all(isinstance(text, str) for text in (topic, kind, encoding, profiles)):
                raise apsw.CorruptError(f'topic {number} is not made of text')
            syntax, definition = definitions.get(kind, ('', ''))
            channels[number] = Channel(
                topic, normalised(kind), encoding, definition, syntax, is_latched(profiles)
            )
        return channels

    def _definitions(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield type, and syntax and text of its definition; files before Jazzy hold none."""
        tables = "SELECT 1 FROM sqlite_master WHERE name = 'message_definitions'"
        if not self._database.execute(tables).fetchall():
            return
        query = 'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions'
        for kind, syntax, definition in self._database.execute(query):
            if isinstance(syntax, str) and isinstance(definition, str):
                yield kind, (syntax, definition)

    def _index(self) -> np.ndarray:
        """Return time, topic and row of every message that is found, by time.

        From the front up to what is damaged, then from the back down to it.
        """
        query = 'SELECT rowid, topic_id, timestamp FROM messages NOT INDEXED'
        front = self._rows_of(f'{query} ORDER BY rowid', step=1)
        rows = front
        if self._broken:
            last = int(front['row'][-1]) if len(front) else -1
            back = self._rows_of(f'{query} WHERE rowid > {last} ORDER BY rowid DESC', step=-1)
            rows = np.concatenate([front, back[::-1]])
        return rows[np.argsort(rows['time'], kind='stable')]

    def _rows_of(self, query: str, step: int) -> np.ndarray:
        self._broken = False

        def rows() -> Iterator[tuple[int, int, int]]:
            before = None
            try:
                for row, channel, time_ns in self._database.execute(query):
                    # Pages that point at each other would never end.
                    if before is not None and (row - before) * step <= 0:
                        raise apsw.CorruptError('rows are out of order')
                    before = row
                    if isinstance(channel, int) and isinstance(time_ns, int):
                        yield time_ns, channel, row
            except _BAD_DATABASE as error:
                self._broken = True
                self._told('stopped at', error)

        return np.fromiter(rows(), _ROW)

    def _end(self, path: Path) -> str:
        """Say where a database cannot be read on: where it was cut, or at what was read last."""
        with path.open('rb') as stream:
            page, pages = _HEADER.unpack(stream.read(_HEADER.size).ljust(_HEADER.size, b'\0'))
        announced = pages * (page if page > 1 else 1 << 16)     # which two bytes cannot hold
        if announced > self._size:
            return f'byte {self._size} of {announced}, where the file ends'
        return f'byte {self._position} of {self._size}'

    @property
    def _position(self) -> int:
        """The byte that was read last, or the end where there are none."""
        return min(self._reads.last, self._size)

    def _told(self, what: str, error: Exception) -> None:
        self._trouble.add(f'{self._name}: {what} byte {self._position} of {self._size}: {error}')


class _Reads(apsw.VFS):
    """SQLite's way to the file system, which remembers the byte that was read last."""

    def __init__(self) -> None:
        self.last = 0
        self.vfs_name = f'muon_ad_{id(self)}'
        super().__init__(self.vfs_name, '')

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's
        """Open a file of the database."""
        return _ReadFile(self, name, flags)


class _ReadFile(apsw.VFSFile):
    def __init__(self, reads: _Reads, name: object, flags: list[int]) -> None:
        super().__init__('', name, flags)
        self._reads = reads

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite's name
        self._reads.last = offset
        return super().xRead(amount, offset)

"""MCAP files, read front to back: one without a footer or an index is as good as another.

The records are those of mcap.dev/spec. The index at the end of a file is not used, as every chunk
is followed by an index of its own, and walking over their headers is quick.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from zlib import crc32

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel as McapChannel
from mcap.records import Schema

from muon_ad.bags.chunks import Chunk
from muon_ad.bags.chunks import in_order
from muon_ad.bags.chunks import Raw
from muon_ad.bags.decompress import decompress
from muon_ad.bags.decompress import LIMIT
from muon_ad.bags.decompress import Unsupported
from muon_ad.bags.error import Trouble
from muon_ad.bags.types import Channel
from muon_ad.bags.types import normalised
from muon_ad.bags.types import TypeNotKnown

MAGIC = b'\x89MCAP0\r\n'
# Messages outside chunks are taken together up to this size.
_RUN_BYTES = 1 << 22
_DEFINITION_BYTES = 1 << 24
_HEAD = struct.Struct('<BQ')
_MESSAGE = struct.Struct('<HIQQ')
_CHUNK = struct.Struct('<QQQI')
_BAD_RECORD = (McapError, struct.error, ValueError)


class McapFile:
    """The messages of one MCAP file. `channels` and `counts` are by channel number."""

    def __init__(self, path: Path, trouble: Trouble) -> None:
        self.path = path
        self.trouble = trouble
        self.channels: dict[int, Channel] = {}
        self.counts: Counter[int] = Counter()
        self._schemas: dict[int, Schema] = {}
        self._chunks: list[Chunk] = []
        self._stream = path.open('rb')
        self._size = path.stat().st_size
        self._scan()
        for chunk in self._chunks:
            if chunk.counts is None or not chunk.counts.keys() <= self.channels.keys():
                messages = self._load(chunk)
                chunk.counts = Counter(raw.channel for raw in messages)
                times = [raw.time_ns for raw in messages]
                chunk.start_ns, chunk.end_ns = min(times, default=0), max(times, default=0)
            self.counts.update(chunk.counts)

    @property
    def span_ns(self) -> tuple[int, int] | None:
        """Times of the first and last message, or None where there are none."""
        filled = [chunk for chunk in self._chunks if any((chunk.counts or {}).values())]
        if not filled:
            return None
        return min(c.start_ns for c in filled), max(c.end_ns for c in filled)

    def read(self, channels: set[int], start_ns: int, end_ns: int) -> Iterator[Raw]:
        """Yield the messages of `channels` from `start_ns` to `end_ns`, inclusive, by time."""
        wanted = [
            chunk
            for chunk in self._chunks
            if chunk.start_ns <= end_ns and start_ns <= chunk.end_ns and channels & {*chunk.counts}
        ]
        for raw in in_order(wanted, self._load):
            if raw.channel in channels and start_ns <= raw.time_ns <= end_ns:
                yield raw

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _scan(self) -> None:
        """Note chunks and channels, up to the footer or the first byte that is no record."""
        position = len(MAGIC)
        while position < self._size:
            head = self._at(position, _HEAD.size)
            if len(head) < _HEAD.size:
                return self._stopped(position, 'the file ends within a record')
            opcode, length = _HEAD.unpack(head)
            if not opcode:
                return self._stopped(position, 'no record of MCAP begins there')
            begin, position = position, position + _HEAD.size + length
            cut = position > self._size
            if not cut or opcode == Opcode.CHUNK:
                self._note(opcode, begin, min(position, self._size) - begin - _HEAD.size)
            if cut:
                return self._stopped(begin, f'a record of {length} bytes does not end in the file')
            if opcode == Opcode.FOOTER:
                return None
        return self._stopped(position, 'the file ends without a footer: it was not closed')

    def _note(self, opcode: int, begin: int, length: int) -> None:
        try:
            self._keep(opcode, begin, length)
        except _BAD_RECORD as error:
            self._told(begin, f'a record is damaged ({error})')

    def _keep(self, opcode: int, begin: int, length: int) -> None:
        body = begin + _HEAD.size
        if opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
            if length > _DEFINITION_BYTES:
                raise ValueError(f'a definition of {length} bytes')
            self._declare(opcode, self._at(body, length))
        elif opcode == Opcode.MESSAGE:
            self._note_message(begin, length)
        elif opcode == Opcode.CHUNK:
            self._note_chunk(begin, length)
        elif opcode == Opcode.MESSAGE_INDEX and self._chunks:
            chunk = self._chunks[-1]
            channel, = struct.unpack('<H', self._at(body, 2))
            chunk.counts = {**(chunk.counts or {}), channel: max(0, length - 6) // 16}

    def _note_message(self, begin: int, length: int) -> None:
        channel, _, time_ns, _ = _MESSAGE.unpack(self._at(begin + _HEAD.size, _MESSAGE.size))
        end = begin + _HEAD.size + length
        run = self._chunks[-1] if self._chunks else None
        if run is None or run.begin != run.data or end - run.begin > _RUN_BYTES:
            run = Chunk(begin, begin, 0, time_ns, time_ns, counts={})
            self._chunks.append(run)
        run.size = end - run.begin
        run.start_ns, run.end_ns = min(run.start_ns, time_ns), max(run.end_ns, time_ns)
        run.counts[channel] = run.counts.get(channel, 0) + 1

    def _note_chunk(self, begin: int, length: int) -> None:
        body = begin + _HEAD.size
        start, end, uncompressed, crc = _CHUNK.unpack(self._at(body, _CHUNK.size))
        name = ReadDataStream(BytesIO(self._at(body + _CHUNK.size, 64))).read_prefixed_string()
        data = body + _CHUNK.size + 4 + len(name) + 8
        size = body + length - data
        if size < 0:
            raise ValueError('a chunk shorter than its header')
        self._chunks.append(Chunk(begin, data, size, start, end, name, uncompressed, crc))

    def _declare(self, opcode: int, body: bytes) -> None:
        stream = ReadDataStream(BytesIO(body))
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            self._schemas[schema.id] = schema
            return
        channel = McapChannel.read(stream)
        schema = self._schemas.get(channel.schema_id)
        if schema is None or channel.id in self.channels:
            return
        self.channels[channel.id] = Channel(
            channel.topic, _type_name(schema.name), channel.message_encoding,
            schema.data.decode('utf-8', 'replace'), schema.encoding,
        )

    def _load(self, chunk: Chunk) -> list[Raw]:
        """Return the messages of one chunk in the order of the file."""
        stored = self._at(chunk.data, min(chunk.size, LIMIT))
        try:
            content, wrong = decompress(chunk.compression, stored, chunk.uncompressed)
        except Unsupported as error:
            content, wrong = b'', str(error)
        if not wrong and chunk.crc and crc32(content) != chunk.crc:
            wrong = 'its checksum differs: some messages may be damaged'
        if wrong:
            self._told(chunk.begin, f'a chunk is not whole ({wrong})')
        return list(self._messages(content, chunk))

    def _messages(self, content: bytes, chunk: Chunk) -> Iterator[Raw]:
        position = 0
        while position + _HEAD.size <= len(content):
            opcode, length = _HEAD.unpack_from(content, position)
            body, position = position + _HEAD.size, position + _HEAD.size + length
            if position > len(content):
                return
            try:
                if opcode == Opcode.MESSAGE:
                    channel, _, time_ns, _ = _MESSAGE.unpack_from(content, body)
                    data = content[body + _MESSAGE.size:position]
                    yield Raw(time_ns, channel, data, chunk.begin)
                elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                    self._declare(opcode, content[body:position])
            except _BAD_RECORD as error:
                self._told(chunk.begin, f'a record of the chunk is damaged ({error})')

    def _at(self, position: int, length: int) -> bytes:
        self._stream.seek(position)
        return self._stream.read(length)

    def _told(self, position: int, text: str) -> None:
        self.trouble.add(f'{self.path.name}: at byte {position} {text}')

    def _stopped(self, position: int, text: str) -> None:
        self.trouble.add(f'{self.path.name}: stopped at byte {position} of {self._size}: {text}')


def _type_name(name: str) -> str:
    try:
        return normalised(name)
    except TypeNotKnown:
        return name     # told when someone wants its messages

"""MCAP files, read front to back: one without a footer or an index is as good as another.

The records are those of mcap.dev/spec. The index at the end of a file is not used, as every chunk
is followed by an index of its own, and walking over their headers is quick.
"""

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from zlib import crc32

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel as McapChannel
from mcap.records import Schema

from muon_ad.bags.chunked_file import ChunkedFile
from muon_ad.bags.chunks import Chunk
from muon_ad.bags.chunks import Raw
from muon_ad.bags.error import first_line
from muon_ad.bags.error import Trouble
from muon_ad.bags.types import Channel
from muon_ad.bags.types import is_latched
from muon_ad.bags.types import normalised

MAGIC = b'\x89MCAP0\r\n'
_DEFINITION_BYTES = 1 << 24
_HEAD = struct.Struct('<BQ')
_MESSAGE = struct.Struct('<HIQQ')
_CHUNK = struct.Struct('<QQQI')
_BAD_RECORD = (McapError, struct.error, ValueError)


class McapFile(ChunkedFile):
    """The messages of one MCAP file. `channels` and `counts` are by channel number."""

    def __init__(self, path: Path, trouble: Trouble) -> None:
        self._schemas: dict[int, Schema] = {}
        super().__init__(path, trouble)

    def _scan(self) -> None:
        """Note chunks and channels, up to the footer or the first byte that is no record."""
        source, position = self._source, len(MAGIC)
        while position < source.size:
            head = source.at(position, _HEAD.size)
            if len(head) < _HEAD.size:
                return source.stopped(position, 'the file ends within a record')
            opcode, length = _HEAD.unpack(head)
            if not opcode:
                return source.stopped(position, 'no record of MCAP begins there')
            begin, position = position, position + _HEAD.size + length
            cut = position > source.size
            if not cut or opcode == Opcode.CHUNK:
                self._note(opcode, begin, min(position, source.size) - begin - _HEAD.size)
            if cut:
                return source.stopped(begin, f'the file ends within a record of {length} bytes')
            if opcode == Opcode.FOOTER:
                return None
        return source.stopped(position, 'there is no footer: the file was not closed')

    def _note(self, opcode: int, begin: int, length: int) -> None:
        body = begin + _HEAD.size
        try:
            if opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                if length > _DEFINITION_BYTES:
                    raise ValueError(f'a definition of {length} bytes')
                self._declare(opcode, self._source.at(body, length))
            elif opcode == Opcode.MESSAGE:
                channel, _, time_ns, _ = _MESSAGE.unpack(self._source.at(body, _MESSAGE.size))
                self._chunks.add_message(begin, body + length, channel, time_ns)
            elif opcode == Opcode.CHUNK:
                self._note_chunk(begin, length)
            elif opcode == Opcode.MESSAGE_INDEX and (chunk := self._chunks.last):
                channel, = struct.unpack('<H', self._source.at(body, 2))
                chunk.counts = {**(chunk.counts or {}), channel: max(0, length - 6) // 16}
        except _BAD_RECORD as error:
            self._source.told(begin, f'a record is damaged ({first_line(error)})')

    def _note_chunk(self, begin: int, length: int) -> None:
        body = begin + _HEAD.size
        start, end, uncompressed, crc = _CHUNK.unpack(self._source.at(body, _CHUNK.size))
        name = ReadDataStream(BytesIO(self._source.at(body + _CHUNK.size, 64)))
        compression = name.read_prefixed_string()
        data = body + _CHUNK.size + name.count + 8
        size = body + length - data
        if size < 0:
            raise ValueError('a chunk shorter than its header')
        self._chunks.add(Chunk(begin, data, size, start, end, compression, uncompressed, crc))

    def _declare(self, opcode: int, body: bytes) -> None:
        stream = ReadDataStream(BytesIO(body))
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            self._schemas[schema.id] = schema
            return
        channel = McapChannel.read(stream)
        if channel.id in self.channels:
            return
        # Messages without a schema, such as JSON, are listed by their topic alone.
        schema = self._schemas.get(channel.schema_id) or Schema(0, b'', '', '')
        self.channels[channel.id] = Channel(
            channel.topic, normalised(schema.name), channel.message_encoding,
            schema.data.decode('utf-8', 'replace'), schema.encoding,
            is_latched(channel.metadata.get('offered_qos_profiles', '')),
        )

    def _load(self, chunk: Chunk) -> list[Raw]:
        """Return the messages of one chunk in the order of the file."""
        content, wrong = self._content(chunk)
        if not wrong and chunk.crc and crc32(content) != chunk.crc:
            self._source.told(chunk.begin, 'the checksum of a chunk differs; its messages may too')
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
                self._source.told(chunk.begin, f'a record in it is damaged ({first_line(error)})')

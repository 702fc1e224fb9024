"""Bags of ROS 1 (format 2.0), read front to back, so that one without an index is no worse.

The format is that of wiki.ros.org/Bags/Format/2.0. A recording that was not ended (`.bag.active`)
has its last chunk's messages outside any chunk, as the length of that chunk was never written.
"""

import struct
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from rosbags.rosbag1.reader import Header
from rosbags.rosbag1.reader import ReaderError
from rosbags.rosbag1.reader import RecordType

from muon_ad.bags.chunked_file import ChunkedFile
from muon_ad.bags.chunks import Chunk
from muon_ad.bags.chunks import Raw
from muon_ad.bags.error import first_line
from muon_ad.bags.types import Channel
from muon_ad.bags.types import normalised

MAGIC = b'#ROSBAG V2.0\n'
_HEADER_BYTES = 1 << 16
_DEFINITION_BYTES = 1 << 24
_LENGTH = struct.Struct('<I')
_BAD_RECORD = (ReaderError, struct.error, ValueError)


class Ros1File(ChunkedFile):
    """The messages of one bag. `channels` and `counts` are by the bag's connection number."""

    def _scan(self) -> None:
        """Note chunks and connections, up to the end or the first byte that is no record."""
        source, position, indexed = self._source, len(MAGIC), False
        while position < source.size:
            try:
                header, data, length = self._record(position)
                kind = header.get_uint8('op')
            except _BAD_RECORD as error:
                return source.stopped(position, f'no whole record is there ({first_line(error)})')
            begin, position = position, data + length
            cut = position > source.size
            if not cut or kind == RecordType.CHUNK:
                self._note(kind, header, begin, data, min(position, source.size) - data)
            if cut:
                return source.stopped(begin, f'the file ends within a record of {length} bytes')
            indexed |= kind == RecordType.CHUNK_INFO
        if not indexed:
            source.stopped(position, 'there is no index: the bag was not closed')
        return None

    def _record(self, position: int) -> tuple[Header, int, int]:
        """Return the header of a record, and where its data begin and how long they are."""
        size, = _LENGTH.unpack(self._source.at(position, 4))
        if size > _HEADER_BYTES:
            raise ValueError(f'a header of {size} bytes')
        data = position + 4 + size + 4
        length, = _LENGTH.unpack(self._source.at(data - 4, 4))
        return Header.read(BytesIO(self._source.at(position, 4 + size))), data, length

    def _note(self, kind: int, header: Header, begin: int, data: int, length: int) -> None:
        try:
            if kind == RecordType.CONNECTION:
                self._declare(header, self._source.at(data, min(length, _DEFINITION_BYTES)))
            elif kind == RecordType.MSGDATA:
                number, time_ns = header.get_uint32('conn'), header.get_time('time')
                self._chunks.add_message(begin, data + length, number, time_ns)
            elif kind == RecordType.CHUNK and length:
                compression, size = header.get_string('compression'), header.get_uint32('size')
                self._chunks.add(Chunk(begin, data, length, 0, 0, compression, size))
            elif kind == RecordType.IDXDATA and (chunk := self._chunks.last):
                self._note_index(chunk, header.get_uint32('conn'), self._source.at(data, length))
        except _BAD_RECORD as error:
            self._source.told(begin, f'a record is damaged ({first_line(error)})')

    @staticmethod
    def _note_index(chunk: Chunk, number: int, entries: bytes) -> None:
        """Note count and times of one connection's messages in the chunk before."""
        seconds, rest, _ = np.frombuffer(entries, '<u4').reshape(-1, 3).T.astype(np.int64)
        times = seconds * 1_000_000_000 + rest
        if not len(times):
            return
        first = not chunk.counts
        start, end = int(times.min()), int(times.max())
        chunk.start_ns = start if first else min(start, chunk.start_ns)
        chunk.end_ns = end if first else max(end, chunk.end_ns)
        chunk.counts = {**(chunk.counts or {}), number: len(times)}

    def _declare(self, header: Header, data: bytes) -> None:
        number = header.get_uint32('conn')
        if number in self.channels:
            return
        fields = Header.read(BytesIO(_LENGTH.pack(len(data)) + data))
        self.channels[number] = Channel(
            header.get_string('topic'), normalised(fields.get_string('type')), 'ros1',
            fields.get_string('message_definition'), 'ros1msg', fields.get('latching') == b'1',
        )

    def _load(self, chunk: Chunk) -> list[Raw]:
        """Return the messages of one chunk in the order of the file."""
        content, wrong = self._content(chunk)
        messages = []
        try:
            messages.extend(self._messages(content, chunk))
        except _BAD_RECORD as error:
            if not wrong:
                self._source.told(chunk.begin, f'a record in it is damaged ({first_line(error)})')
        return messages

    def _messages(self, content: bytes, chunk: Chunk) -> Iterator[Raw]:
        stream = BytesIO(content)
        while stream.tell() < len(content):
            header = Header.read(stream)
            length, = _LENGTH.unpack(stream.read(4))
            data = stream.read(length)
            if len(data) < length:
                return
            kind = header.get_uint8('op')
            if kind == RecordType.CONNECTION:
                self._declare(header, data)
            elif kind == RecordType.MSGDATA:
                number, time_ns = header.get_uint32('conn'), header.get_time('time')
                yield Raw(time_ns, number, data, chunk.begin)

"""Files made of records and chunks of them (MCAP, ROS 1), read front to back."""

from collections.abc import Iterator
from collections.abc import Set
from pathlib import Path

from muon_ad.bags.chunks import Chunk
from muon_ad.bags.chunks import Chunks
from muon_ad.bags.chunks import Raw
from muon_ad.bags.decompress import decompress
from muon_ad.bags.decompress import Unsupported
from muon_ad.bags.error import Trouble
from muon_ad.bags.source import Source
from muon_ad.bags.types import Channel


class ChunkedFile:
    """The messages of one file. `channels` and `counts` are by the file's numbers of channels."""

    def __init__(self, path: Path, trouble: Trouble) -> None:
        self.channels: dict[int, Channel] = {}
        self._source = Source(path, trouble)
        self._chunks = Chunks(self._load)
        self._scan()
        self.counts = self._chunks.count(self.channels)
        self.span_ns = self._chunks.span_ns

    def read(self, channels: Set[int], start_ns: int, end_ns: int) -> Iterator[Raw]:
        """Yield the messages of `channels` from `start_ns` to `end_ns`, inclusive, by time."""
        return self._chunks.read(channels, start_ns, end_ns)

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _scan(self) -> None:
        """Note chunks and channels, up to the end or the first byte that is no record."""
        raise NotImplementedError

    def _load(self, chunk: Chunk) -> list[Raw]:
        """Return the messages of one chunk in the order of the file."""
        raise NotImplementedError

    def _content(self, chunk: Chunk) -> tuple[bytes, str]:
        """Return a chunk's content, up to its damage, and what that is ('' for none)."""
        stored = self._source.at(chunk.data, chunk.size)
        try:
            content, wrong = decompress(chunk.compression, stored, chunk.uncompressed)
        except Unsupported as error:
            content, wrong = b'', str(error)
        if wrong:
            self._source.told(chunk.begin, f'a chunk is read up to its damage ({wrong})')
        return content, wrong

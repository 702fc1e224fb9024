"""Files made of chunks (MCAP, ROS 1): their messages in order of time, one chunk at a time."""

import heapq
from collections import Counter
from collections.abc import Callable
from collections.abc import Container
from collections.abc import Iterator
from collections.abc import Set
from dataclasses import dataclass
from typing import NamedTuple

# Messages outside chunks are taken together up to this size.
RUN_BYTES = 1 << 22


class Raw(NamedTuple):
    """A message as it lies in a file; `offset` is the byte where it, or its chunk, begins."""

    time_ns: int
    channel: int
    data: bytes
    offset: int


@dataclass
class Chunk:
    """Where some messages lie together, and what is known of them without reading them.

    `begin` is the byte of its record, `data` and `size` say where its content is. `counts`, by
    channel, is None where it takes reading the chunk to know.
    """

    begin: int
    data: int
    size: int
    start_ns: int = 0
    end_ns: int = 0
    compression: str = ''
    uncompressed: int | None = None
    crc: int = 0
    counts: dict[int, int] | None = None


class Chunks:
    """The chunks of one file. `load` returns the messages of one, in the order of the file."""

    def __init__(self, load: Callable[[Chunk], list[Raw]]) -> None:
        self._load = load
        self._chunks: list[Chunk] = []

    @property
    def last(self) -> Chunk | None:
        """The chunk added last."""
        return self._chunks[-1] if self._chunks else None

    def add(self, chunk: Chunk) -> None:
        """Add the chunk that follows in the file."""
        self._chunks.append(chunk)

    def add_message(self, begin: int, end: int, channel: int, time_ns: int) -> None:
        """Add a message outside any chunk, whose record takes the bytes from `begin` to `end`."""
        run = self.last
        if run is None or run.begin != run.data or end - run.begin > RUN_BYTES:
            run = Chunk(begin, begin, 0, time_ns, time_ns, counts={})
            self._chunks.append(run)
        run.size = end - run.begin
        run.start_ns, run.end_ns = min(run.start_ns, time_ns), max(run.end_ns, time_ns)
        run.counts[channel] = run.counts.get(channel, 0) + 1

    def count(self, channels: Container[int]) -> Counter[int]:
        """Return messages by channel; reads the chunks of which that is not known.

        That of a chunk with numbers outside `channels` is not: its channels are declared within.
        """
        total: Counter[int] = Counter()
        for chunk in self._chunks:
            if chunk.counts is None or not all(number in channels for number in chunk.counts):
                messages = self._load(chunk)
                chunk.counts = Counter(raw.channel for raw in messages)
                times = [raw.time_ns for raw in messages]
                chunk.start_ns, chunk.end_ns = min(times, default=0), max(times, default=0)
            total.update(chunk.counts)
        return total

    @property
    def span_ns(self) -> tuple[int, int] | None:
        """Times of the first and last message, or None where there are none."""
        filled = [chunk for chunk in self._chunks if any((chunk.counts or {}).values())]
        if not filled:
            return None
        return min(chunk.start_ns for chunk in filled), max(chunk.end_ns for chunk in filled)

    def read(self, channels: Set[int], start_ns: int, end_ns: int) -> Iterator[Raw]:
        """Yield the messages of `channels` from `start_ns` to `end_ns`, inclusive, by time.

        As many chunks are in memory as overlap in time.
        """
        wanted = [
            chunk
            for chunk in self._chunks
            if chunk.start_ns <= end_ns
            and start_ns <= chunk.end_ns
            and not channels.isdisjoint(chunk.counts or ())
        ]
        for raw in heapq.merge(*map(self._lazily, wanted), key=_time):
            if raw.channel in channels and start_ns <= raw.time_ns <= end_ns:
                yield raw

    def _lazily(self, chunk: Chunk) -> Iterator[Raw]:
        # heapq.merge asks every chunk for its first item; this one costs no reading.
        yield Raw(chunk.start_ns, -1, b'', chunk.begin)
        yield from sorted(self._load(chunk), key=_time)


def _time(raw: Raw) -> int:
    return raw.time_ns

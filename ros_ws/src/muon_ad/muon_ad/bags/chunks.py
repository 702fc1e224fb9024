"""Files made of chunks (MCAP, ROS 1): their messages in order of time, one chunk at a time."""

import heapq
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from typing import NamedTuple


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
    counts: dict[int, int] | None = field(default=None)


def in_order(chunks: Iterable[Chunk], load: Callable[[Chunk], list[Raw]]) -> Iterator[Raw]:
    """Yield the messages of `chunks` by time; as many chunks are in memory as overlap."""
    def lazily(chunk: Chunk) -> Iterator[Raw | Chunk]:
        # heapq.merge asks every chunk for its first item; this one costs no reading.
        yield Raw(chunk.start_ns, -1, b'', chunk.begin)
        yield from sorted(load(chunk), key=_time)

    merged = heapq.merge(*map(lazily, chunks), key=_time)
    return (raw for raw in merged if raw.channel >= 0)


def _time(raw: Raw) -> int:
    return raw.time_ns

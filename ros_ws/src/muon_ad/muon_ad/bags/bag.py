"""One bag, whatever its format: its topics, and its messages in order of time."""

import heapq
from collections.abc import Callable
from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muon_ad.bags.chunks import Raw
from muon_ad.bags.decompress import compression_of
from muon_ad.bags.decompress import decompress
from muon_ad.bags.error import BagError
from muon_ad.bags.error import Trouble
from muon_ad.bags.files import BagFile
from muon_ad.bags.files import files_of
from muon_ad.bags.files import open_file
from muon_ad.bags.types import cdr_codec
from muon_ad.bags.types import Channel
from muon_ad.bags.types import Codec
from muon_ad.bags.types import codec
from muon_ad.bags.types import NotDecodable
from muon_ad.bags.types import TypeNotKnown

_FOREVER = (-(1 << 63), (1 << 64) - 1)
# Seconds are 32 bits, with a sign, in builtin_interfaces/Time.
_END_OF_TIME_NS = (1 << 31) * 1_000_000_000


@dataclass(frozen=True)
class Message:
    """One message of a bag.

    `time_ns` is when it was recorded, in nanoseconds since the epoch; `data` has the fields of
    `type` ('sensor_msgs/msg/Image'), or is the message as ROS 2 serialises it (see `serialized`).
    """

    topic: str
    type: str
    time_ns: int
    data: Any


class Bag:
    """A bag opened for reading; a context manager.

    topics       name to type, normalised: 'sensor_msgs/msg/Image'
    counts       messages by topic, as far as they were found
    latched      topics whose last message is kept for subscribers that come late
    unreadable   topic to why its messages cannot be decoded (no definition, another encoding)
    start_ns     time of the first message in nanoseconds since the epoch; 0 in an empty bag
    end_ns       time of the last message

    `trouble` says what could not be read and at which byte, '' where everything could; it is
    complete when an iteration over all messages has ended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._trouble = Trouble()
        self._stack = ExitStack()
        try:
            self._files = self._opened(files_of(path, self._trouble))
        except BaseException:
            self._stack.close()
            raise
        self.topics: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.unreadable: dict[str, str] = {}
        self.latched: set[str] = set()
        for file in self._files:
            for number, channel in file.channels.items():
                self._add(channel, file.counts[number])
        spans = [file.span_ns for file in self._files if file.span_ns]
        self.start_ns = _in_time(min((start for start, _ in spans), default=0))
        self.end_ns = _in_time(max((end for _, end in spans), default=0))

    @property
    def trouble(self) -> str:
        """What could not be read, and at which byte; '' where all was well so far."""
        return str(self._trouble)

    @property
    def duration_s(self) -> float:
        """Seconds from the first message to the last."""
        return (self.end_ns - self.start_ns) * 1e-9

    def messages(
        self,
        topics: Iterable[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[Message]:
        """Yield the messages by time; those of `topics`, from `start_ns` to `end_ns` inclusive.

        Messages of `unreadable` topics are left out; one that does not fit its type as well, and
        is told in `trouble`. Raises BagError for a topic that is not in the bag.
        """
        for raw, channel, reader in self._raw(codec, topics, start_ns, end_ns):
            try:
                data = reader.decode(_cdr(raw, channel, reader))
            except NotDecodable as error:
                self._bad_message(channel, raw, error)
                continue
            yield Message(channel.topic, channel.type, raw.time_ns, data)

    def serialized(
        self,
        topics: Iterable[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[Message]:
        """Yield as `messages` does, the data as bytes: CDR, from ROS 1 converted to it.

        What is CDR in the bag needs no definition for this, and may be damaged.
        """
        for raw, channel, reader in self._raw(cdr_codec, topics, start_ns, end_ns):
            try:
                data = _cdr(raw, channel, reader)
            except NotDecodable as error:
                self._bad_message(channel, raw, error)
                continue
            yield Message(channel.topic, channel.type, raw.time_ns, data)

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def __enter__(self) -> 'Bag':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self, paths: list[Path]) -> list[BagFile]:
        """Open the files; one of several that is no bag is told, one alone is an error."""
        files = []
        for path in paths:
            try:
                files.append(open_file(path, self._trouble, self._stack))
            except BagError as error:
                if path == paths[-1] and not files:
                    raise
                self._trouble.add(str(error))
        return files

    def _add(self, channel: Channel, count: int) -> None:
        topic = channel.topic
        if self.topics.setdefault(topic, channel.type) != channel.type:
            self._trouble.add(
                f'{topic} has messages of {channel.type} beside {self.topics[topic]}: left out'
            )
            return
        self.counts[topic] = self.counts.get(topic, 0) + count
        if channel.latched:
            self.latched.add(topic)
        try:
            codec(channel)
        except TypeNotKnown as error:
            self.unreadable[topic] = str(error)

    def _raw(
        self,
        find_codec: Callable[[Channel], Codec],
        topics: Iterable[str] | None,
        start_ns: int | None,
        end_ns: int | None,
    ) -> Iterator[tuple[Raw, Channel, Codec]]:
        wanted = self.topics.keys() if topics is None else set(topics)
        if missing := wanted - self.topics.keys():
            raise BagError(
                f'{self.path} has no topic {", ".join(sorted(missing))}; it has '
                f'{", ".join(sorted(self.topics)) or "none"}'
            )
        start = _FOREVER[0] if start_ns is None else start_ns
        end = _FOREVER[1] if end_ns is None else end_ns
        streams = []
        for file in self._files:
            readers = self._readers(file, wanted, find_codec)
            streams.append(self._of_file(file, readers, start, end))
        yield from heapq.merge(*streams, key=lambda item: item[0].time_ns)

    def _readers(
        self, file: BagFile, wanted: Container[str], find_codec: Callable[[Channel], Codec]
    ) -> dict[int, tuple[Channel, Codec]]:
        readers = {}
        for number, channel in file.channels.items():
            if channel.topic in wanted and channel.type == self.topics[channel.topic]:
                try:
                    readers[number] = channel, find_codec(channel)
                except TypeNotKnown as error:
                    self.unreadable[channel.topic] = str(error)
        return readers

    @staticmethod
    def _of_file(
        file: BagFile, readers: dict[int, tuple[Channel, Codec]], start: int, end: int
    ) -> Iterator[tuple[Raw, Channel, Codec]]:
        for raw in file.read(readers.keys(), start, end):
            yield raw, *readers[raw.channel]

    def _bad_message(self, channel: Channel, raw: Raw, error: NotDecodable) -> None:
        self._trouble.add(
            f'{channel.topic}: the message at byte {raw.offset} is left out: {error}'
        )


def _in_time(time_ns: int) -> int:
    return min(max(time_ns, 0), _END_OF_TIME_NS - 1)


def _cdr(raw: Raw, channel: Channel, reader: Codec) -> bytes:
    """Return a message as ROS 2 serialises it. Raises NotDecodable."""
    if not 0 <= raw.time_ns < _END_OF_TIME_NS:
        raise NotDecodable(f'its time is {raw.time_ns} ns, which ROS cannot have')
    # That messages are compressed stands in metadata.yaml, which may be missing. CDR begins with
    # a zero, so that the mark of a compressed frame leaves no doubt.
    compression = compression_of(raw.data) if channel.encoding == 'cdr' else ''
    if not compression:
        return reader.to_cdr(raw.data)
    data, wrong = decompress(compression, raw.data)
    if wrong:
        raise NotDecodable(wrong)
    return reader.to_cdr(data)


def open_bag(path: str | Path) -> Bag:
    """Open a rosbag2 folder, one of its files, or a ROS 1 bag.

    MCAP and SQLite, compressed by chunk, message or file, with metadata.yaml or without;
    truncated and unindexed files as far as they can be read. Raises BagError where there is
    nothing that can be used.
    """
    return Bag(Path(path).expanduser())

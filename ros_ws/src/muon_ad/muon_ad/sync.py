"""Pairs the messages of several streams by their stamps (approximate time), and accounts for each.

A *set* has one message of every stream (of an optional one: at most one), all within `slop` of one
another; no message is in two sets, and sets never overtake one another. Its *skew* is its latest
minus its earliest stamp. Among all ways to form sets the best one is that of the greatest total
worth: `slop + 1 ns - skew` for a set, and `slop + 1 ns` for each optional message in it. So no
message that fits is left over without a better use for its partners, and the nearest ones pair.

When each set is decided, which is what this adds over doing it afterwards:

- at once, when no message yet to come could be part of a better set. Streams tell how soon their
  next message may come: not sooner after the last than any two lately.
- else as soon as no message yet to come is within `slop` (plus `lookahead`) of it. It is then the
  first set of the best way to pair what is known.

The first rule never costs anything. The second gives the best result where the messages of each
stream are more than `2 * slop` apart, as no message fits two sets then; that is also the largest
number of sets. With a larger slop, such as the half period that free-running cameras need,
alternatives form chains without end: the result is the best one if `lookahead` covers the chain
(and `best_first` can weigh all of it), and near it otherwise. There a message that waits still
counts for something (`WAITING_SHARE`), so that two cameras half a period apart do not change
partners with every bit of jitter, which would leave a message over each time.

To wait until no better set can come is the idea of message_filters' ApproximateTime (C++), and so
is the distance between messages that proves it early; there it is set by hand. Optional streams,
the two rules above and the account of every message are not from there.
"""

from bisect import insort
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from itertools import product
from typing import Generic
from typing import TypeVar

M = TypeVar('M')

# Stamps that differ by more from the newest one are believed when a second one agrees.
JUMP_NS = 1_000_000_000
# Of the slop: what a message that may yet find partners is worth, in choosing the next set.
WAITING_SHARE = 0.4
# Over so many messages of a stream their least distance is taken.
INTERVALS = 32
# So many alternatives are weighed in one go; three cameras with a slop of three periods need 100.
MOST_ALTERNATIVES = 250
# Each doubles the alternatives; with so many, those of one message a stream are less than that.
MOST_OPTIONAL = 4
_FOREVER = 1 << 63


@dataclass
class Counts:
    """What became of a stream's messages. With those that wait, the others make up `received`."""

    received: int = 0
    matched: int = 0
    no_partner: int = 0     # the nearest of another stream was too far away, or went with others
    silent: int = 0         # another stream delivered nothing while this waited
    queue_full: int = 0     # pushed out by newer ones
    late: int = 0           # came when what it could have gone with had been decided
    invalid: int = 0        # stamp not above 0, the same twice, or far from all others

    @property
    def unmatched(self) -> int:
        """How many found no set."""
        return self.no_partner + self.silent + self.queue_full + self.late + self.invalid


@dataclass(frozen=True)
class MatchedSet(Generic[M]):
    """Messages that belong together, and their stamps in nanoseconds, by stream."""

    stamp: int                  # that of the reference, the first stream
    stamps: dict[str, int]
    messages: dict[str, M]

    @property
    def skew(self) -> int:
        """Latest minus earliest stamp, nanoseconds."""
        return max(self.stamps.values()) - min(self.stamps.values())


@dataclass
class _Stream(Generic[M]):
    name: str
    required: bool
    counts: Counts = field(default_factory=Counts)
    stamps: list[int] = field(default_factory=list)         # of what waits, ascending
    messages: dict[int, M] = field(default_factory=dict)    # what waits, by stamp
    last: int = 0               # newest stamp that came; 0: none
    decided: int = 0            # newest stamp that no longer waits
    intervals: deque[int] = field(default_factory=lambda: deque(maxlen=INTERVALS))

    @property
    def expected(self) -> int:
        """The earliest stamp of the next message, by those that came."""
        return self.last + min(self.intervals, default=1) if self.last else 0

    def note(self, stamp: int) -> None:
        """Learn from a message, in time or late, when the next one may come."""
        if self.last and stamp > self.last:
            self.intervals.append(stamp - self.last)
        self.last = max(self.last, stamp)

    def insert(self, stamp: int, message: M) -> None:
        insort(self.stamps, stamp)
        self.messages[stamp] = message

    def remove(self) -> M:
        """Remove the oldest that waits."""
        self.decided = self.stamps.pop(0)
        return self.messages.pop(self.decided)

    def drop(self, reason: str) -> None:
        self.remove()
        self.count(reason)

    def count(self, reason: str) -> None:
        setattr(self.counts, reason, getattr(self.counts, reason) + 1)

    def forget(self) -> None:
        self.last = self.decided = 0
        self.intervals.clear()


class Synchronizer(Generic[M]):
    """Finds matched sets in messages that are added one by one, in order of arrival.

    `streams` are their names, the first one being the reference; those in `optional` may be absent
    from a set. Times are nanoseconds. `queue_size` is how many messages of a stream may wait.
    A stream is waited for until it is `patience` behind the newest stamp of all; an optional one
    that fell so far behind is not waited for again before it delivers.

    Time that jumps back is counted in `resets` and begun anew: by more than a second with the
    second message that says so, by less once a few in a row are too late and their stamps rise.
    """

    def __init__(
        self,
        streams: Sequence[str],
        slop: int,
        *,
        optional: Sequence[str] = (),
        queue_size: int = 10,
        patience: int = 250_000_000,
        lookahead: int = 0,
    ) -> None:
        self._check(streams, slop, optional, queue_size, patience, lookahead)
        self._streams = [_Stream(name, name not in optional) for name in streams]
        self._by_name = {stream.name: stream for stream in self._streams}
        self._slop = slop
        self._queue_size = queue_size
        self._patience = patience
        self._lookahead = lookahead
        self._newest = 0
        self._aside: tuple[_Stream[M], int, M] | None = None
        self._behind: list[tuple[_Stream[M], int]] = []     # came too late, in a row
        self._ending = False
        self.sets = 0
        self.resets = 0

    def add(self, stream: str, stamp: int, message: M) -> list[MatchedSet[M]]:
        """Take a message in; return the sets that are decided now. KeyError: no such stream."""
        into = self._by_name[stream]
        into.counts.received += 1
        if stamp <= 0:
            into.count('invalid')
            return []
        if not self._newest or abs(stamp - self._newest) <= JUMP_NS:
            self._refuse_aside()
            if self._steps_back(into, stamp):
                return self._begin_anew((into, stamp, message))
            self._take_in(into, stamp, message)
            return self._decide()
        if self._aside is None or abs(stamp - self._aside[1]) > JUMP_NS:
            self._refuse_aside()
            self._aside = into, stamp, message
            return []
        first, self._aside = self._aside, None
        return self._begin_anew(first, (into, stamp, message))

    def flush(self) -> list[MatchedSet[M]]:
        """Decide about everything that waits: no more will come, or not for long."""
        self._ending = True
        self._refuse_aside()
        sets = self._decide()
        self._ending = False
        return sets

    def counts(self, stream: str) -> Counts:
        """Return what became of a stream's messages."""
        return self._by_name[stream].counts

    def waiting(self, stream: str) -> int:
        """Return how many messages of a stream wait."""
        aside = self._aside is not None and self._aside[0].name == stream
        return len(self._by_name[stream].stamps) + aside

    @staticmethod
    def _check(
        streams: Sequence[str], slop: int, optional: Sequence[str], queue_size: int,
        patience: int, lookahead: int,
    ) -> None:
        if len(streams) < 2 or len(set(streams)) < len(streams):
            raise ValueError(f'streams are {list(streams)}; expected two or more different names')
        if not set(optional) <= set(streams[1:]):
            raise ValueError(
                f'optional streams are {list(optional)}; expected some of {list(streams[1:])} '
                '(the first one is the reference and always needed)'
            )
        if len(set(optional)) < len(optional) or len(optional) > MOST_OPTIONAL:
            raise ValueError(
                f'optional streams are {list(optional)}; expected at most {MOST_OPTIONAL} '
                'different names, as each doubles the work'
            )
        if slop < 0 or lookahead < 0 or queue_size < 1 or patience <= 0:
            raise ValueError(
                f'slop {slop}, lookahead {lookahead}, queue_size {queue_size}, patience '
                f'{patience}; expected slop and lookahead from 0, the others above 0'
            )

    # What comes in.

    def _take_in(self, into: _Stream[M], stamp: int, message: M) -> None:
        if stamp == into.decided or stamp in into.messages:
            into.count('invalid')
            return
        into.note(stamp)
        self._newest = max(self._newest, stamp)
        if self._is_late(into, stamp):
            into.count('late')
        else:
            into.insert(stamp, message)
            self._behind.clear()

    def _is_late(self, into: _Stream[M], stamp: int) -> bool:
        return stamp < into.decided or any(
            other.decided > stamp + self._slop for other in self._needed_beside(into)
        )

    def _steps_back(self, into: _Stream[M], stamp: int) -> bool:
        """Whether time has jumped back by less than JUMP_NS, as this message and those before it
        say: all older than their streams had been, too late to be used, and rising.
        """
        if stamp > into.last or not self._is_late(into, stamp):
            return False
        if any(stream is into and stamp <= before for stream, before in self._behind):
            self._behind.clear()
        self._behind.append((into, stamp))
        return len(self._behind) > 2 * len(self._streams)

    def _begin_anew(self, *arrivals: tuple[_Stream[M], int, M]) -> list[MatchedSet[M]]:
        """Time has jumped to these messages: decide about all that waits, and forget it."""
        self.resets += arrivals[-1][1] < self._newest
        sets = self.flush()
        for stream in self._streams:
            stream.forget()
        self._newest = 0
        self._behind.clear()
        for arrival in arrivals:
            self._take_in(*arrival)
        return sets + self._decide()

    def _refuse_aside(self) -> None:
        if self._aside is not None:
            self._aside[0].count('invalid')
            self._aside = None

    # What may yet come.

    def _needed_beside(self, stream: _Stream[M]) -> Iterator[_Stream[M]]:
        return (other for other in self._streams if other.required and other is not stream)

    def _horizon(self, stream: _Stream[M]) -> int:
        """Return the earliest stamp that the next message of a stream may have."""
        given_up = not stream.required and self._newest - stream.last > self._patience
        if self._ending or given_up:
            return _FOREVER
        return max(stream.expected, self._newest - self._patience)

    def _following(self, stream: _Stream[M], index: int) -> int:
        """Return the stamp of what waits at `index`, or the earliest it may have."""
        return stream.stamps[index] if len(stream.stamps) > index else self._horizon(stream)

    # What is decided.

    def _decide(self) -> list[MatchedSet[M]]:
        sets = []
        while True:
            self._drop_hopeless()
            full = [each for each in self._streams if len(each.stamps) > self._queue_size]
            if self._heads_are_best():
                sets.append(self._take([0 if each.stamps else None for each in self._streams]))
                continue
            chosen = self._plan() if full or self._may_close() else None
            if chosen is not None and (full or self._is_closed(chosen)):
                sets.append(self._take(chosen))
            elif full:
                full[0].drop('queue_full')
            else:
                return sets

    def _drop_hopeless(self) -> None:
        """Drop the oldest of all as long as it fits nothing that waits or may yet come."""
        while waiting := [each for each in self._streams if each.stamps]:
            oldest = min(waiting, key=lambda each: each.stamps[0])
            limit = oldest.stamps[0] + self._slop
            missing = [
                other for other in self._needed_beside(oldest)
                if self._following(other, 0) > limit
            ]
            if not missing:
                return
            silent = any(not other.stamps and other.expected <= limit for other in missing)
            oldest.drop('silent' if silent else 'no_partner')

    def _heads_are_best(self) -> bool:
        """Whether the oldest of each stream make a set than which none better can come.

        Another set with one of them has a later message of some stream in it. So it is worth no
        more where every such message is at least the skew away from the others' latest. Nor are
        two sets that share an optional one's oldest among them: what is later than it by that
        much does as well without it.
        """
        heads = [each for each in self._streams if each.stamps]
        if any(not each.stamps and self._horizon(each) < _FOREVER for each in self._streams):
            return False
        if not all(each.stamps for each in self._streams if each.required):
            return False
        stamps = [each.stamps[0] for each in heads]
        skew = max(stamps) - min(stamps)
        return skew <= self._slop and all(
            self._following(each, 1) >= skew + max(
                (other.stamps[0] for other in heads if other is not each), default=0
            )
            for each in heads
        )

    def _may_close(self) -> bool:
        """Whether any set can be closed: one of the oldest would be the first."""
        return self._is_closed([0 if each.required and each.stamps else None
                                for each in self._streams])

    def _is_closed(self, chosen: Sequence[int | None]) -> bool:
        """Whether nothing that may yet come fits a member of the set."""
        stamps = [
            None if index is None else each.stamps[index]
            for each, index in zip(self._streams, chosen, strict=True)
        ]
        return all(
            self._horizon(each) > self._slop + self._lookahead + max(
                (other for at, other in enumerate(stamps) if at != own and other is not None),
                default=0,
            )
            for own, each in enumerate(self._streams)
        )

    def _plan(self) -> tuple[int | None, ...] | None:
        """Return the first set of the best way to pair what waits, as indices; None: wait."""
        horizons = [self._horizon(each) for each in self._streams]
        needed = [each.required for each in self._streams]
        still_open = []
        for own, each in enumerate(self._streams):
            others = [h for at, h in enumerate(horizons) if at != own and needed[at]]
            earliest = min(others, default=_FOREVER) - self._slop
            still_open.append(sum(stamp >= earliest for stamp in each.stamps))
        waiting_worth = int(self._slop * WAITING_SHARE)

        def left(at: tuple[int, ...]) -> int:
            return waiting_worth * max(
                min(count, len(each.stamps) - index)
                for count, each, index in zip(still_open, self._streams, at, strict=True)
            )

        return best_first([each.stamps for each in self._streams], needed, self._slop, left)

    def _take(self, chosen: Sequence[int | None]) -> MatchedSet[M]:
        stamps, messages = {}, {}
        for stream, index in zip(self._streams, chosen, strict=True):
            if index is None:
                continue
            for _ in range(index):
                stream.drop('no_partner')
            stream.count('matched')
            messages[stream.name] = stream.remove()
            stamps[stream.name] = stream.decided
        self.sets += 1
        return MatchedSet(stamps[self._streams[0].name], stamps, messages)


def best_first(
    stamps: Sequence[Sequence[int]],
    needed: Sequence[bool],
    slop: int,
    left: Callable[[tuple[int, ...]], int],
) -> tuple[int | None, ...] | None:
    """Return the first set of the best way to pair: an index a stream, None where it has no part.

    `stamps` are ascending, a list a stream, `needed` tells which streams every set must have, and
    `left(at)` is what the messages from the indices `at` on are worth unpaired. None where there
    is no set, or none that is worth as much as leaving its messages.

    Where that would take more than MOST_ALTERNATIVES, as it does with a slop of many periods, only
    the oldest quarter of each stream is paired and the rest counts as unpaired; then a quarter of
    that, down to one message a stream. So work is bounded, and what is given up is the nearest
    partner: the set that is found is one, but its skew may be far from the least.

    Of the oldest of all there are two things to say: it is in no set, or its set has the oldest
    of each other stream that takes part. For where it is with a later one, the oldest of that
    stream lies between the two and does as well. Nor do sets that cross gain anything: swapping
    their members gives two that do not, with no greater skew.
    """
    longest = max(map(len, stamps))
    while longest:
        try:
            return _Search([own[:longest] for own in stamps], needed, slop, left).first()
        except _TooManyError:
            longest = longest // 4 or longest // 2
    return None


class _TooManyError(Exception):
    """More than MOST_ALTERNATIVES would have to be weighed."""


class _Search:
    """Weighs every way to pair `stamps`; the arguments are those of best_first."""

    def __init__(
        self, stamps: Sequence[Sequence[int]], needed: Sequence[bool], slop: int,
        left: Callable[[tuple[int, ...]], int],
    ) -> None:
        self._stamps = stamps
        self._needed = needed
        self._slop = slop
        self._left = left
        self._weighed = 0
        self._known: dict[tuple[int, ...], tuple[int, tuple[int | None, ...] | None]] = {}

    def first(self) -> tuple[int | None, ...] | None:
        """Return the first set of the best way. Raises _TooManyError."""
        return self._best((0,) * len(self._stamps))[1]

    def _best(self, at: tuple[int, ...]) -> tuple[int, tuple[int | None, ...] | None]:
        """Return what the messages from the indices `at` on are worth, and their first set."""
        if at not in self._known:
            self._known[at] = self._weigh(at)
        return self._known[at]

    def _weigh(self, at: tuple[int, ...]) -> tuple[int, tuple[int | None, ...] | None]:
        self._count()
        found = self._left(at), None
        heads = [own[index] if index < len(own) else None
                 for own, index in zip(self._stamps, at, strict=True)]
        if any(head is None and must for head, must in zip(heads, self._needed, strict=True)):
            return found
        oldest = min((head, i) for i, head in enumerate(heads) if head is not None)[1]
        for members in _choices(heads, self._needed, oldest, self._slop):
            self._count()
            worth = _worth([heads[i] for i in members], self._slop, sum(self._needed))
            after = tuple(index + (i in members) for i, index in enumerate(at))
            chosen = tuple(index if i in members else None for i, index in enumerate(at))
            found = max(found, (worth + self._best(after)[0], chosen), key=lambda pair: pair[0])
        skipped = self._best(tuple(index + (i == oldest) for i, index in enumerate(at)))
        return max(found, skipped, key=lambda pair: pair[0])

    def _count(self) -> None:
        self._weighed += 1
        if self._weighed > MOST_ALTERNATIVES:
            raise _TooManyError


def _choices(
    heads: Sequence[int | None], needed: Sequence[bool], oldest: int, slop: int
) -> Iterator[tuple[int, ...]]:
    """Yield the streams of each set that the oldest of all can be in."""
    limit = heads[oldest] + slop
    if any(must and head > limit for head, must in zip(heads, needed, strict=True)):
        return
    fixed = [i for i, must in enumerate(needed) if must or i == oldest]
    free = [
        i for i, head in enumerate(heads)
        if i not in fixed and head is not None and head <= limit
    ]
    for used in product((True, False), repeat=len(free)):
        yield (*fixed, *(i for i, is_used in zip(free, used, strict=True) if is_used))


def _worth(stamps: Sequence[int], slop: int, needed: int) -> int:
    """Return what a set is worth, `needed` of whose members are not optional."""
    return (slop + 1) * (1 + len(stamps) - needed) - (max(stamps) - min(stamps))

"""The kinds of fault, their notation as text, and random ones for soak runs."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field
from fnmatch import fnmatchcase

LONGEST_S = 30 * 86400.0
WRAP_NS = 2**32 * 1000      # a 32-bit counter of microseconds starts over after 71.6 minutes
# What a stream can carry, where a fault is done to that alone.
IMAGE, DEPTH, INFO = 'images', 'depth', 'camera_info'


class FaultError(ValueError):
    """A fault cannot be understood: its text, what is wrong with it and what is accepted."""


@dataclass(frozen=True)
class Amount:
    """How much of a fault: a number from `low` to `high`, `whole` or not, or a word where
    `default` is one."""

    default: float | str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False

    @property
    def expected(self) -> str:
        """What is accepted, in words."""
        if isinstance(self.default, str):
            return 'a word'
        return f'a {"whole " * self.whole}number from {self.low:g} to {self.high:g}'


@dataclass(frozen=True)
class Kind:
    """One kind of fault. `of_source`: done to whole frames where there is a camera. `needs`: what
    a stream must carry for it; empty: anything."""

    does: str
    amounts: dict[str, Amount] = field(default_factory=dict)
    of_source: bool = False
    needs: str = ''


KINDS = {
    'unplug': Kind('the camera is gone; opening it fails until it is back', of_source=True),
    'stall': Kind('no frame comes', of_source=True),
    'slow': Kind(
        'each frame comes `ms` late, and a camera gives at most one in that time',
        {'ms': Amount(200.0, 1.0, 10000.0)}, of_source=True,
    ),
    'duplicate': Kind(
        'one frame in `every` comes twice',
        {'every': Amount(2.0, 1.0, 1e6, whole=True)}, of_source=True,
    ),
    'reorder': Kind(
        'one frame in `every` comes after the one behind it',
        {'every': Amount(2.0, 2.0, 1e6, whole=True)}, of_source=True,
    ),
    'jump': Kind(
        'the clock that stamps is `ms` ahead, negative: behind',
        {'ms': Amount(-2000.0, -1e9, 1e9)}, of_source=True,
    ),
    'drift': Kind(
        'the clock that stamps runs fast by `ppm`, negative: slow; it keeps what it gained',
        {'ppm': Amount(200.0, -1e5, 1e5)}, of_source=True,
    ),
    'wrap': Kind('the clock that stamps has lost 2^32 microseconds', of_source=True),
    'corrupt': Kind(
        '`percent` of the bytes of an image are random', {'percent': Amount(10.0, 0.01, 100.0)},
        needs=IMAGE,
    ),
    'short': Kind(
        'an image ends after `percent` of its bytes', {'percent': Amount(50.0, 0.0, 99.0)},
        needs=IMAGE,
    ),
    'encoding': Kind(
        'an image says its encoding is `as`', {'as': Amount('bogus8')}, needs=IMAGE,
    ),
    'empty': Kind('an image has no rows, columns and bytes', needs=IMAGE),
    'no_info': Kind('no camera_info comes', needs=INFO),
    'late_info': Kind(
        'camera_info comes `ms` late', {'ms': Amount(500.0, 1.0, 60000.0)}, needs=INFO,
    ),
    'misaligned': Kind(
        'depth lies `px` too far right, negative: left', {'px': Amount(20.0, -4096.0, 4096.0)},
        needs=DEPTH,
    ),
    'no_depth': Kind('depth is unknown everywhere: NaN in 32FC1, 0 in 16UC1', needs=DEPTH),
}
_COMMON = {'at': Amount(0.0, 0.0, LONGEST_S), 'for': Amount(1.0, 0.001, LONGEST_S)}


@dataclass(frozen=True)
class Fault:
    """A fault from `at_s` for `for_s` seconds, on streams whose names match `stream`.

    `stream` is empty for all, and may have wildcards: `depth*` is the images and camera_info of
    depth. `amounts` has a value for each name that the kind declares.
    """

    kind: str
    at_s: float = 0.0
    for_s: float = 1.0
    stream: str = ''
    amounts: dict[str, float | str] = field(default_factory=dict)

    @property
    def end_s(self) -> float:
        """When it is over."""
        return self.at_s + self.for_s

    @property
    def of_source(self) -> bool:
        """Whether a camera suffers it as a whole, rather than one of its topics."""
        return KINDS[self.kind].of_source and not self.stream

    def concerns(self, stream: str | None) -> bool:
        """Whether `stream` is meant; None stands for the camera as a whole."""
        return not self.stream if stream is None else fnmatchcase(stream, self.stream or '*')

    def __str__(self) -> str:
        pairs = {'at': self.at_s, 'for': self.for_s, **self.amounts}
        if self.stream:
            pairs['stream'] = self.stream
        return ' '.join((self.kind, *(f'{name}={_text(value)}' for name, value in pairs.items())))


def parse(text: str) -> Fault:
    """Read a fault such as `stall at=5 for=2` or `drift for=60 ppm=200 stream=color`.

    `at` (0) and `for` (1) are seconds. Raises FaultError for an unknown kind or name, a name given
    twice, and a value out of range.
    """
    kind, *pairs = text.split() or ['']
    if kind not in KINDS:
        raise FaultError(f'fault {text!r}: kind is {kind!r}; expected one of {", ".join(KINDS)}')
    accepted = {**_COMMON, 'stream': Amount(''), **KINDS[kind].amounts}
    given = {}
    for pair in pairs:
        name, equals, value = pair.partition('=')
        if name not in accepted or not equals or not value:
            raise FaultError(
                f'fault {text!r}: {pair!r} is not understood; {kind} takes '
                f'{", ".join(f"{known}=" for known in accepted)}'
            )
        if name in given:
            raise FaultError(f'fault {text!r}: {name}= is given twice; expected once')
        given[name] = _value(text, name, value, accepted[name])
    values = {name: given.get(name, amount.default) for name, amount in accepted.items()}
    at_s, for_s, stream = (values.pop(name) for name in ('at', 'for', 'stream'))
    return Fault(kind, at_s, for_s, stream, values)


def random_faults(
    seed: int,
    minutes: float,
    kinds: Iterable[str] = tuple(KINDS),
    gap_s: tuple[float, float] = (2.0, 8.0),
    for_s: tuple[float, float] = (0.3, 3.0),
) -> list[Fault]:
    """Return faults of `kinds` one after the other that all end within `minutes`.

    Each has its kind's usual amounts, lasts a random time of `for_s`, and leaves a random pause of
    `gap_s` before it, in which a graph can recover. Every kind comes once before one comes again.
    The same arguments give the same faults.
    """
    chance = random.Random(seed)
    faults, bag, now = [], [], 0.0
    while True:
        if not bag:
            bag = list(kinds)
            chance.shuffle(bag)
        at = round(now + chance.uniform(*gap_s), 2)
        length = round(chance.uniform(*for_s), 2)
        now = at + length
        if now > 60 * minutes:
            return faults
        faults.append(parse(f'{bag.pop()} at={at!r} for={length!r}'))


def _value(text: str, name: str, value: str, amount: Amount) -> float | str:
    if isinstance(amount.default, str):
        return value
    try:
        number = float(value)
    except ValueError:
        number = float('nan')
    fits = amount.low <= number <= amount.high      # nan is in no range
    if not fits or (amount.whole and not number.is_integer()):
        raise FaultError(f'fault {text!r}: {name} is {value!r}; expected {amount.expected}')
    return number


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f'{value:.3f}'.rstrip('0').rstrip('.')

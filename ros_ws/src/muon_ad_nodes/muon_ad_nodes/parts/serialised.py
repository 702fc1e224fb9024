"""The stamp of a serialised message that begins with a std_msgs/Header, such as an image.

So images pass through a node as the bytes that they came in (`raw` subscriptions): nothing is
unpacked and packed again. In CDR (OMG DDSI-RTPS 2.3, chapter 10) four bytes of encapsulation come
first, whose second one is odd for little-endian, then the members in their order.
"""

import struct

_AT = 4
_LEAST = _AT + 8


class SerialisedError(ValueError):
    """Bytes that cannot be a message with a header."""


def stamp_of(data: bytes) -> int:
    """Return the stamp in nanoseconds. Raises SerialisedError where there is none."""
    seconds, rest = struct.unpack_from(_layout(data), data, _AT)
    return seconds * 1_000_000_000 + rest


def with_stamp(data: bytes, stamp: int) -> bytes:
    """Return the message with another stamp (ns), the same object where it has it already."""
    if stamp_of(data) == stamp:
        return data
    changed = bytearray(data)
    struct.pack_into(_layout(data), changed, _AT, *divmod(stamp, 1_000_000_000))
    return bytes(changed)


def _layout(data: bytes) -> str:
    if len(data) < _LEAST:
        raise SerialisedError(f'message of {len(data)} bytes; expected a header, {_LEAST} or more')
    return '<iI' if data[1] & 1 else '>iI'

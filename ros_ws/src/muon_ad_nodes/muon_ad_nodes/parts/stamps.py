"""Conversions of time stamps."""

from builtin_interfaces.msg import Time

from muon_ad.stamps import nanoseconds as nanoseconds


def to_stamp(nanoseconds_since_epoch: int) -> Time:
    """Return nanoseconds since the clock's epoch as a stamp."""
    seconds, rest = divmod(nanoseconds_since_epoch, 1_000_000_000)
    return Time(sec=seconds, nanosec=rest)


def milliseconds(begin: float, end: float) -> float:
    """Return the span between two readings of a clock in seconds, in milliseconds."""
    return (end - begin) * 1e3

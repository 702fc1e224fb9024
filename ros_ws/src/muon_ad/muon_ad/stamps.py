"""Stamps of message headers as integers, whoever made the message."""

from typing import Protocol


class Stamp(Protocol):
    """What is used of a builtin_interfaces/Time."""

    sec: int
    nanosec: int


def nanoseconds(stamp: Stamp) -> int:
    """Return a stamp in nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec

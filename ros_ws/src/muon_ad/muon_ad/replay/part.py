"""The part of a bag that is to be played."""

from muon_ad.bags import Bag
from muon_ad.replay.error import ReplayError


def part_of(
    bag: Bag, start_s: float = 0.0, duration_s: float | None = None
) -> tuple[int, int | None]:
    """Return the first and last time, in ns, of `duration_s` from `start_s` on; None: to the end.

    Raises ReplayError for times that make no sense, and for a part after the end of the bag.
    """
    if not 0 <= start_s <= 1e9:
        raise ReplayError(f'start is {start_s:g} s; expected 0 or more')
    if duration_s is not None and not 0 < duration_s <= 1e9:
        raise ReplayError(f'duration is {duration_s:g} s; expected above 0, or none to play all')
    start_ns = bag.start_ns + round(start_s * 1e9)
    # Of an empty bag, the reader tells that it is.
    if any(bag.counts.values()) and bag.end_ns < start_ns:
        raise ReplayError(
            f'start is {start_s:g} s, after the end; expected at most {bag.duration_s:g} s, the '
            f'length of {bag.path}'
        )
    return start_ns, None if duration_s is None else start_ns + round(duration_s * 1e9)

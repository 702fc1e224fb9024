"""How many frames were dropped, and why: a table that does not grow."""

MOST_REASONS = 16
MOST_LETTERS = 100
OTHERS = 'other reasons'


class DropReasons:
    """Counts frames by reason, MOST_REASONS of them and then OTHERS.

    Of a reason the part before a semicolon counts, up to MOST_LETTERS: what was expected instead,
    which often follows, makes no other reason. Not safe for several threads.
    """

    def __init__(self) -> None:
        self._frames: dict[str, int] = {}

    def add(self, reason: str) -> None:
        """Count a frame."""
        reason = reason.partition(';')[0][:MOST_LETTERS]
        if reason not in self._frames and len(self._frames) >= MOST_REASONS:
            reason = OTHERS
        self._frames[reason] = self._frames.get(reason, 0) + 1

    def counts(self) -> dict[str, int]:
        """Return the frames of each reason, in the order in which the reasons occurred."""
        return dict(self._frames)

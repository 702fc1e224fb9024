"""What goes wrong with bags: the error, and the list of what could not be read."""

SHOWN = 8


class BagError(ValueError):
    """A bag cannot be used at all: which file, what it holds and what was expected."""


class Trouble:
    """What could not be read of a bag, in words; the first few, and how many there were."""

    def __init__(self) -> None:
        # A set that keeps its order: reading twice adds nothing.
        self._lines: dict[str, None] = {}

    def add(self, line: str) -> None:
        """Note one thing that could not be read, and at which byte."""
        self._lines[line] = None

    def __str__(self) -> str:
        shown = '; '.join(list(self._lines)[:SHOWN])
        more = len(self._lines) - SHOWN
        return f'{shown}; and {more} more' if more > 0 else shown


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its name where it has none."""
    return str(error).partition('\n')[0] or type(error).__name__

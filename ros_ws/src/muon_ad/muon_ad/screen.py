"""Where commands print their tables."""

import sys

from rich.console import Console

LOG_WIDTH = 140     # of a file or a pipe, whose width nobody can ask for


def screen(highlight: bool = True) -> Console:
    """Return the standard output, as wide as its window, or wide enough where it has none.

    `highlight`: whether numbers and the like are coloured.
    """
    return Console(width=None if sys.stdout.isatty() else LOG_WIDTH, highlight=highlight)

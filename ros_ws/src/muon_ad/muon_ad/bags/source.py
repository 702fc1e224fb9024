"""The bytes of one file of a bag, and where its reading came to trouble."""

from pathlib import Path

from muon_ad.bags.decompress import LIMIT
from muon_ad.bags.error import Trouble


class Source:
    """A file opened for reading at any byte. `size` is its length in bytes."""

    def __init__(self, path: Path, trouble: Trouble) -> None:
        self.name = path.name
        self.size = path.stat().st_size
        self._trouble = trouble
        self._stream = path.open('rb')

    def at(self, position: int, length: int) -> bytes:
        """Return `length` bytes from `position`: fewer where the file ends, at most LIMIT."""
        self._stream.seek(position)
        return self._stream.read(max(0, min(length, LIMIT, self.size - position)))

    def told(self, position: int, text: str) -> None:
        """Note what is wrong with something that is left out."""
        self._trouble.add(f'{self.name}: at byte {position} {text}')

    def stopped(self, position: int, text: str) -> None:
        """Note why nothing after `position` can be read."""
        self._trouble.add(f'{self.name}: stopped at byte {position} of {self.size}: {text}')

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

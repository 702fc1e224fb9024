"""Which files a bag is made of, and what opens them: told by their first bytes."""

import os
from contextlib import ExitStack
from pathlib import Path

from muon_ad.bags import mcap_file
from muon_ad.bags.error import BagError
from muon_ad.bags.error import Trouble
from muon_ad.bags.mcap_file import McapFile

_FORMATS = {mcap_file.MAGIC: McapFile}
_SUFFIXES = ('.mcap', '.db3', '.mcap.zstd', '.db3.zstd')


def files_of(path: Path, trouble: Trouble) -> list[Path]:
    """Return the files of the bag at `path`, a folder or a file. Raises BagError for none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BagError(f'{path}: no such bag; expected a folder of rosbag2 or a file')
    files = sorted(file for file in path.iterdir() if file.name.endswith(_SUFFIXES))
    if not files:
        raise BagError(f'{path}: no bag in this folder; expected files *.mcap or *.db3 in it')
    return files


def open_file(path: Path, trouble: Trouble, stack: ExitStack) -> McapFile:
    """Open one file and close it with `stack`. Raises BagError for what is no bag."""
    try:
        with path.open('rb') as stream:
            head = stream.read(16)
    except OSError as error:
        raise BagError(f'{path}: cannot be read ({os.strerror(error.errno)})') from error
    for magic, kind in _FORMATS.items():
        if head.startswith(magic):
            file = kind(path, trouble)
            stack.callback(file.close)
            return file
    raise BagError(
        f'{path}: begins with {head[:8]!r}, which is no bag; expected MCAP, SQLite or ROS 1'
    )

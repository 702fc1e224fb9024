"""Which files a bag is made of, and what opens them: told by their first bytes."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import yaml

from muon_ad.bags import mcap_file
from muon_ad.bags import ros1_file
from muon_ad.bags import sqlite_file
from muon_ad.bags.decompress import blocks
from muon_ad.bags.decompress import compression_of
from muon_ad.bags.decompress import DAMAGED
from muon_ad.bags.error import BagError
from muon_ad.bags.error import first_line
from muon_ad.bags.error import Trouble
from muon_ad.bags.mcap_file import McapFile
from muon_ad.bags.ros1_file import Ros1File
from muon_ad.bags.sqlite_file import SqliteFile

BagFile = McapFile | Ros1File | SqliteFile

_FORMATS = {
    mcap_file.MAGIC: McapFile,
    sqlite_file.MAGIC: SqliteFile,
    ros1_file.MAGIC: Ros1File,
}
_PIECE = 1 << 16
_SUFFIXES = tuple(kind + packed for kind in ('.mcap', '.db3') for packed in ('', '.zstd', '.lz4'))


def files_of(path: Path, trouble: Trouble) -> list[Path]:
    """Return the files of the bag at `path`, a folder or a file. Raises BagError for none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BagError(f'{path}: no such bag; expected a folder of rosbag2 or a file')
    files = _listed(path / 'metadata.yaml', trouble)
    if not files:
        files = sorted(file for file in path.iterdir() if file.name.endswith(_SUFFIXES))
    if not files:
        raise BagError(f'{path}: no bag in this folder; expected files *.mcap or *.db3 in it')
    return files


def _listed(path: Path, trouble: Trouble) -> list[Path]:
    """Return the files that metadata.yaml names and that are there; none where it is missing."""
    if not path.is_file():
        return []
    try:
        data = yaml.safe_load(path.read_text(encoding='utf-8'))
        # Early versions wrote the folder's name before the file's.
        names = [Path(n).name for n in data['rosbag2_bagfile_information']['relative_file_paths']]
    except (yaml.YAMLError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        trouble.add(f'{path.name} is not usable, so every file is read: {first_line(error)}')
        return []
    for name in names:
        if not (path.parent / name).is_file():
            trouble.add(f'{name} is missing, which {path.name} names')
    return [path.parent / name for name in names if (path.parent / name).is_file()]


def open_file(path: Path, trouble: Trouble, stack: ExitStack) -> BagFile:
    """Open one file and close it with `stack`. Raises BagError for what is no bag."""
    try:
        file = path
        if compression := compression_of(_head(path)):
            file = _unpacked(path, compression, trouble, stack)
        head = _head(file)
        kind = next((kind for magic, kind in _FORMATS.items() if head.startswith(magic)), None)
        if kind is None:
            if not path.stat().st_size:
                raise BagError(f'{path}: is empty (0 bytes); expected MCAP, SQLite or ROS 1 (2.0)')
            if file == path and any(magic.startswith(head) for magic in _FORMATS):
                raise BagError(
                    f'{path}: stopped at byte {len(head)} of {len(head)}: the file ends within '
                    'its mark; expected MCAP, SQLite or ROS 1 (2.0)'
                )
            raise BagError(
                f'{path}: begins with {head[:8]!r}; expected MCAP, SQLite or ROS 1 (2.0)'
                + (f' ({trouble})' if str(trouble) else '')
            )
        opened = kind(file, trouble)
    except OSError as error:
        raise BagError(f'{path}: cannot be read ({error.strerror})') from error
    stack.callback(opened.close)
    return opened


def _head(path: Path) -> bytes:
    with path.open('rb') as stream:
        return stream.read(16)


def _unpacked(path: Path, compression: str, trouble: Trouble, stack: ExitStack) -> Path:
    """Decompress a file into a temporary folder, up to half of the room that is there."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='muon-ad-bag-'))
    room = shutil.disk_usage(folder).free // 2
    target = Path(folder) / path.name.removesuffix(f'.{compression}')
    with path.open('rb') as packed, target.open('wb') as unpacked:
        try:
            for block in blocks(compression, iter(lambda: packed.read(_PIECE), b'')):
                unpacked.write(block)
                if unpacked.tell() > room:
                    raise EOFError(f'there is room for {room} bytes in {folder}')
        except DAMAGED as error:
            size = path.stat().st_size
            trouble.add(f'{path.name}: stopped at byte {packed.tell()} of {size}: {error}')
    return target

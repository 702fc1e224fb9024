"""Decompression that ends: within a limit, and with what came out before the damage."""

import bz2
from collections.abc import Callable
from collections.abc import Iterator

import lz4.frame
import zstandard

# No chunk and no message is larger: twice what an uncompressed 8K picture of 32 bits takes.
LIMIT = 1 << 28
BLOCK = 1 << 20

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'


class Unsupported(ValueError):
    """A compression that is not known here."""


def decompress(kind: str, data: bytes, size: int | None = None) -> tuple[bytes, str]:
    """Return what `data` holds, and what is wrong with it ('' where it is complete).

    `kind` is '' or none, zstd, lz4 (frames) or bz2; `size` is how many bytes are announced, where
    that is known. Never returns more than LIMIT bytes. Raises Unsupported for another kind.
    """
    if kind in ('', 'none'):
        parts, wrong = [data], ''
    elif kind in _BLOCKS:
        parts, wrong = _collect(_BLOCKS[kind](data))
    else:
        raise Unsupported(f'compression is {kind!r}; expected none, zstd, lz4 or bz2')
    content = parts[0] if len(parts) == 1 else b''.join(parts)
    if not wrong and size is not None and len(content) != size:
        wrong = f'{size} bytes are announced, {len(content)} are there'
    return content, wrong


def _collect(blocks: Iterator[bytes]) -> tuple[list[bytes], str]:
    parts: list[bytes] = []
    length = 0
    try:
        for block in blocks:
            parts.append(block)
            length += len(block)
            if length > LIMIT:
                return parts, f'more than {LIMIT} bytes come out'
    except (zstandard.ZstdError, RuntimeError, OSError, EOFError, MemoryError) as error:
        return parts, f'damaged: {error}'
    return parts, ''


def _zstd(data: bytes) -> Iterator[bytes]:
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        while block := reader.read(BLOCK):
            yield block


def _stepwise(make: Callable[[], object]) -> Callable[[bytes], Iterator[bytes]]:
    def blocks(data: bytes) -> Iterator[bytes]:
        decompressor = make()
        yield decompressor.decompress(data, max_length=BLOCK)
        while not (decompressor.eof or decompressor.needs_input):
            yield decompressor.decompress(b'', max_length=BLOCK)
        if not decompressor.eof:
            raise EOFError('the compressed data ends early')

    return blocks


_BLOCKS = {
    'zstd': _zstd,
    'lz4': _stepwise(lz4.frame.LZ4FrameDecompressor),
    'bz2': _stepwise(bz2.BZ2Decompressor),
}

"""Decompression that ends: within a limit, and with what came out before the damage."""

import bz2
from collections.abc import Iterable
from collections.abc import Iterator

import lz4.frame

try:
    from compression import zstd
except ImportError:  # before Python 3.14
    from backports import zstd

# No chunk and no message is larger: twice what an uncompressed 8K picture of 32 bits takes.
LIMIT = 1 << 28
BLOCK = 1 << 20
_MAGICS = {b'\x28\xb5\x2f\xfd': 'zstd', b'\x04\x22\x4d\x18': 'lz4'}

_MAKERS = {
    'zstd': zstd.ZstdDecompressor,
    'lz4': lz4.frame.LZ4FrameDecompressor,
    'bz2': bz2.BZ2Decompressor,
}
# What the three raise for bytes that are not theirs; EOFError is ours, for too few.
DAMAGED = (zstd.ZstdError, RuntimeError, ValueError, OSError, EOFError, MemoryError)


class Unsupported(ValueError):
    """A compression that is not known here."""


def compression_of(data: bytes) -> str:
    """Return zstd or lz4 where `data` begins with a frame of that, else ''."""
    return _MAGICS.get(bytes(data[:4]), '')


def decompress(kind: str, data: bytes, size: int | None = None) -> tuple[bytes, str]:
    """Return what `data` holds, and what is wrong with it ('' where it is complete).

    `kind` is '' or none, zstd, lz4 (frames) or bz2; `size` is how many bytes are announced, where
    that is known. Never returns much more than LIMIT bytes. Raises Unsupported for another kind.
    """
    if kind in ('', 'none'):
        content, wrong = data, ''
    elif kind in _MAKERS:
        content, wrong = _collect(blocks(kind, [data]))
    else:
        raise Unsupported(f'compression is {kind!r}; expected none, {", ".join(_MAKERS)}')
    if not wrong and size is not None and len(content) != size:
        wrong = f'{size} bytes are announced, {len(content)} are there'
    return content, wrong


def blocks(kind: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what the `pieces` of a compressed stream hold, at most BLOCK bytes at a time.

    Raises one of DAMAGED after what came out before the damage.
    """
    frame = None
    for piece in pieces:
        while piece:
            frame = frame or _MAKERS[kind]()
            yield frame.decompress(piece, max_length=BLOCK)
            while not (frame.eof or frame.needs_input):
                block = frame.decompress(b'', max_length=BLOCK)
                if not block:
                    raise EOFError('nothing more comes out')
                yield block
            piece = b''
            if frame.eof:
                piece, frame = frame.unused_data or b'', None
    if frame is not None:
        raise EOFError('the compressed data end early')


def _collect(stream: Iterable[bytes]) -> tuple[bytes, str]:
    content = bytearray()
    try:
        for block in stream:
            content += block
            if len(content) > LIMIT:
                return bytes(content), f'more than {LIMIT} bytes come out'
    except DAMAGED as error:
        return bytes(content), f'damaged: {error}'
    return bytes(content), ''

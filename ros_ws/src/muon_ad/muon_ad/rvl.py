"""RVL, a lossless code for depth: runs of zeros, then differences, in groups of three bits.

Wilson, "Fast Lossless Depth Image Compression", ISS 2017; framed as
compressed_depth_image_transport does (width and height before the code).
"""

import struct

import numpy as np

from muon_ad.images import ImageError
from muon_ad.images import MAX_SIDE

_SIZE = struct.Struct('<II')
_GROUPS = 10    # of three bits, the most a value of 30 bits takes


def decode_rvl(data: bytes) -> np.ndarray:
    """Return the depth image uint16 [H, W] in `data`. Raises ImageError where it is damaged."""
    if len(data) < _SIZE.size:
        raise ImageError(f'RVL data has {len(data)} bytes; its size alone takes {_SIZE.size}')
    width, height = _SIZE.unpack_from(data)
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ImageError(f'size is {width}x{height}; expected 1 to {MAX_SIDE} pixels a side')
    values = _values(data[_SIZE.size:])
    pixels = np.zeros(width * height, np.uint16)
    kept, differences, filled, position = [], [], 0, 0
    while filled < len(pixels):
        if position + 2 > len(values):
            raise ImageError(f'RVL data ends after {filled} of {len(pixels)} pixels')
        zeros, others = (int(value) for value in values[position:position + 2])
        position += 2
        begin, filled = filled + zeros, filled + zeros + others
        if filled > len(pixels) or position + others > len(values):
            raise ImageError(f'RVL data is damaged near pixel {begin}')
        kept.append(np.arange(begin, filled))
        differences.append(values[position:position + others])
        position += others
    folded = np.concatenate(differences)
    signed = (folded >> 1) ^ -(folded & 1)
    # The difference is to the pixel before that is not zero, across runs.
    pixels[np.concatenate(kept)] = np.cumsum(signed) & 0xFFFF
    return pixels.reshape(height, width)


def _values(code: bytes) -> np.ndarray:
    """Return the numbers in a stream of nibbles: the fourth bit says that more follow."""
    words = np.frombuffer(code, '<u4', len(code) // 4)
    halves = words.astype('>u4').view(np.uint8)
    nibbles = np.stack([halves >> 4, halves & 0xF], axis=1).ravel().astype(np.int64)
    ends = np.flatnonzero(nibbles < 8)
    if not len(ends):
        return ends
    starts = np.concatenate([[0], ends[:-1] + 1])
    nibbles = nibbles[:ends[-1] + 1]
    place = np.arange(len(nibbles)) - np.repeat(starts, ends - starts + 1)
    if place.max() >= _GROUPS:
        raise ImageError('RVL data is damaged: a number without end')
    return np.add.reduceat((nibbles & 7) << (3 * place), starts)

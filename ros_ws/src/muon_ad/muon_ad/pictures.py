"""Pictures in messages: raw images, and those that image_transport's plugins compressed.

The `format` of a CompressedImage is read as compressed_image_transport and
compressed_depth_image_transport write it (github.com/ros-perception/image_transport_plugins).
"""

import struct
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from PIL import Image
from PIL import UnidentifiedImageError

from muon_ad.images import DEPTH_ENCODINGS
from muon_ad.images import ImageError
from muon_ad.images import MAX_SIDE
from muon_ad.images import to_array
from muon_ad.rvl import decode_rvl

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'

_PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
_FORMATS = ('JPEG', 'PNG', 'TIFF', 'WEBP')
# format (unused), and the two parameters of the quantisation of 32FC1.
_DEPTH_HEADER = struct.Struct('<iff')
_NOT_A_PICTURE = (
    OSError, ValueError, SyntaxError, struct.error, KeyError, Image.DecompressionBombError,
)


def picture_of(message: Any, type_name: str) -> tuple[str, np.ndarray]:
    """Return the encoding and pixels of a picture: [H, W] or [H, W, C] as `images.to_array` does.

    A compressed picture comes out as rgb8, rgba8, mono8, mono16 or 16UC1; a compressed depth image
    as 16UC1, or 32FC1 in metres with NaN where there was none. Raises ImageError for what is no
    picture or is damaged, and for a message of another type.
    """
    if type_name == IMAGE:
        return message.encoding, to_array(message)
    if type_name != COMPRESSED:
        raise ImageError(f'type is {type_name}; expected {IMAGE} or {COMPRESSED}')
    data = bytes(message.data)
    # Early versions of the plugin for depth do not name themselves in the format.
    if 'compressedDepth' in message.format or data[_DEPTH_HEADER.size:].startswith(_PNG_MAGIC):
        return _depth(message.format, data)
    return _color(message.format, data)


def raw_topic(topic: str) -> str:
    """Return the name of the raw images that `topic` holds compressed: `x` for `x/compressed`.

    Another name is returned as it is.
    """
    return topic.removesuffix('/compressedDepth').removesuffix('/compressed')


def _color(format_text: str, data: bytes) -> tuple[str, np.ndarray]:
    declared, _, how = (part.strip() for part in format_text.partition(';'))
    pixels = _decoded(data)
    if pixels.dtype == np.uint16 and pixels.ndim == 2:
        return ('16UC1' if declared == '16UC1' else 'mono16'), pixels
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ImageError(f'the pixels are {pixels.dtype}; expected 8 or 16 bits')
    if pixels.ndim == 2:
        return 'mono8', pixels
    # The plugin writes true colours ("compressed bgr8") or, asked not to convert, red as blue.
    swapped = declared.startswith(('rgb', 'bgr')) and 'compressed rgb' in how
    if pixels.shape[2] == 4:
        return 'rgba8', pixels if swapped else cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)
    return 'rgb8', pixels if swapped else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _depth(format_text: str, data: bytes) -> tuple[str, np.ndarray]:
    encoding, _, how = (part.strip() for part in format_text.partition(';'))
    encoding = '16UC1' if encoding == 'mono16' else encoding
    if encoding not in DEPTH_ENCODINGS:
        raise ImageError(f'format is {format_text!r}; expected 16UC1 or 32FC1 before "; "')
    if len(data) <= _DEPTH_HEADER.size:
        raise ImageError(f'data has {len(data)} bytes; the header alone takes 12')
    _, a, b = _DEPTH_HEADER.unpack_from(data)
    body = data[_DEPTH_HEADER.size:]
    pixels = decode_rvl(body) if how.endswith('rvl') else _decoded(body)
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise ImageError(f'depth is {pixels.dtype} {pixels.shape}; expected one channel of uint16')
    if encoding == '16UC1':
        return encoding, pixels
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        metres = np.float32(a) / (pixels.astype(np.float32) - np.float32(b))
    metres[(pixels == 0) | ~np.isfinite(metres)] = np.nan
    return encoding, metres


def _decoded(data: bytes) -> np.ndarray:
    """Decode a file of pixels; its size is looked at first, as a small file may hold gigabytes."""
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as header:
            width, height = header.size
    except UnidentifiedImageError as error:     # its text names the object in memory
        raise ImageError(f'data is no picture of {", ".join(_FORMATS)}') from error
    except _NOT_A_PICTURE as error:
        raise ImageError(f'data is no picture that can be used: {error}') from error
    if max(width, height) > MAX_SIDE:
        raise ImageError(f'size is {width}x{height}; expected 1 to {MAX_SIDE} pixels a side')
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageError(f'data is a damaged picture: {error.err}') from error
    if pixels is None:
        raise ImageError(f'data is a damaged picture of {width}x{height}')
    return pixels

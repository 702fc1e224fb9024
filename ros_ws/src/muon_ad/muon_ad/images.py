"""From image messages to numpy arrays, without copies where the message allows.

Takes any object with the fields of sensor_msgs/Image: a message of rclpy, or one read from a bag
where there is no ROS.
"""

import sys
from typing import Protocol

import cv2
import numpy as np

# A frame larger than this is a broken header rather than a camera (8K is 7680 x 4320).
MAX_SIDE = 16384

# Encodings of sensor_msgs/image_encodings.hpp, with dtype and channels; the pixels lie in a row.
ENCODINGS = {
    'rgb8': (np.uint8, 3),
    'bgr8': (np.uint8, 3),
    'rgba8': (np.uint8, 4),
    'bgra8': (np.uint8, 4),
    'rgb16': (np.uint16, 3),
    'bgr16': (np.uint16, 3),
    'rgba16': (np.uint16, 4),
    'bgra16': (np.uint16, 4),
    'mono8': (np.uint8, 1),
    'mono16': (np.uint16, 1),
    '8UC1': (np.uint8, 1),
    '8UC3': (np.uint8, 3),
    '8UC4': (np.uint8, 4),
    '16UC1': (np.uint16, 1),
    '32FC1': (np.float32, 1),
    'yuv422': (np.uint8, 2),
    'uyvy': (np.uint8, 2),
    'yuv422_yuy2': (np.uint8, 2),
    'yuyv': (np.uint8, 2),
    'bayer_rggb8': (np.uint8, 1),
    'bayer_bggr8': (np.uint8, 1),
    'bayer_gbrg8': (np.uint8, 1),
    'bayer_grbg8': (np.uint8, 1),
    'bayer_rggb16': (np.uint16, 1),
    'bayer_bggr16': (np.uint16, 1),
    'bayer_gbrg16': (np.uint16, 1),
    'bayer_grbg16': (np.uint16, 1),
}

# As cv_bridge converts them; 8UC1, 8UC3 and 8UC4 have these colours in its cvtColorForDisplay.
# OpenCV names a Bayer pattern by its second row's second and third pixel.
_TO_RGB = {
    'bgr8': cv2.COLOR_BGR2RGB,
    'bgr16': cv2.COLOR_BGR2RGB,
    '8UC3': cv2.COLOR_BGR2RGB,
    'rgba8': cv2.COLOR_RGBA2RGB,
    'rgba16': cv2.COLOR_RGBA2RGB,
    'bgra8': cv2.COLOR_BGRA2RGB,
    'bgra16': cv2.COLOR_BGRA2RGB,
    '8UC4': cv2.COLOR_BGRA2RGB,
    'mono8': cv2.COLOR_GRAY2RGB,
    'mono16': cv2.COLOR_GRAY2RGB,
    '8UC1': cv2.COLOR_GRAY2RGB,
    'yuv422': cv2.COLOR_YUV2RGB_UYVY,
    'uyvy': cv2.COLOR_YUV2RGB_UYVY,
    'yuv422_yuy2': cv2.COLOR_YUV2RGB_YUY2,
    'yuyv': cv2.COLOR_YUV2RGB_YUY2,
    'bayer_rggb8': cv2.COLOR_BayerBG2RGB,
    'bayer_bggr8': cv2.COLOR_BayerRG2RGB,
    'bayer_gbrg8': cv2.COLOR_BayerGR2RGB,
    'bayer_grbg8': cv2.COLOR_BayerGB2RGB,
    'bayer_rggb16': cv2.COLOR_BayerBG2RGB,
    'bayer_bggr16': cv2.COLOR_BayerRG2RGB,
    'bayer_gbrg16': cv2.COLOR_BayerGR2RGB,
    'bayer_grbg16': cv2.COLOR_BayerGB2RGB,
}
# Encodings with all luma before all chroma, and how many pixels a side share a pair of it.
_SHARED = {'nv12': 2, 'nv21': 2, 'nv24': 1}
_TWO_PLANES_TO_RGB = {'nv12': cv2.COLOR_YUV2RGB_NV12, 'nv21': cv2.COLOR_YUV2RGB_NV21}
# OpenCV has no nv24. From luma 16 to 235 and chroma around 128 (BT.601), as its other YUV.
_NV24_TO_RGB = np.float32([
    (1.164, 0.0, 1.596, -1.164 * 16 - 1.596 * 128),
    (1.164, -0.391, -0.813, -1.164 * 16 + (0.391 + 0.813) * 128),
    (1.164, 2.018, 0.0, -1.164 * 16 - 2.018 * 128),
])

COLOR_ENCODINGS = ('rgb8', 'rgb16', *_TO_RGB, *_SHARED)
DEPTH_ENCODINGS = ('16UC1', '32FC1')


class ImageMessage(Protocol):
    """What is used of a sensor_msgs/Image; `data` is any buffer of bytes."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: object


class ImageError(ValueError):
    """An Image message cannot be used: which field, its value, and what was expected."""


def to_array(message: ImageMessage, encodings: tuple[str, ...] = tuple(ENCODINGS)) -> np.ndarray:
    """Return the pixels of `message` in its own encoding, [H, W] or [H, W, C].

    A view of the message's memory where rows and bytes lie as numpy wants them (padded rows
    included); a copy for a byte order that is not this machine's. Raises ImageError for an
    encoding outside `encodings` or in planes (nv12, nv21, nv24: see `to_planes`), zero or absurd
    sizes, a step shorter than a row, or data shorter than height x step.
    """
    if message.encoding not in encodings or message.encoding not in ENCODINGS:
        raise ImageError(f'encoding is {message.encoding!r}; expected one of {encodings}')
    dtype, channels = ENCODINGS[message.encoding]
    _check_layout(message, message.width * channels * np.dtype(dtype).itemsize)
    pixels = _rows(message, (message.height, message.width * channels), message.step, dtype)
    if channels > 1:
        pixels = pixels.reshape(message.height, message.width, channels)
    if pixels.itemsize == 1 or bool(message.is_bigendian) == (sys.byteorder == 'big'):
        return pixels
    return pixels.byteswap()


def to_planes(message: ImageMessage) -> tuple[np.ndarray, np.ndarray]:
    """Return luma [H, W] and chroma [H/2, W/2, 2] of nv12 or nv21, or chroma [H, W, 2] of nv24.

    Views of the message's memory. `step` is that of luma; rows of chroma follow at once, with the
    padding in proportion, as V4L2 has it. Raises ImageError as `to_array`, and for odd sizes.
    """
    shared = _SHARED.get(message.encoding)
    if shared is None:
        raise ImageError(f'encoding is {message.encoding!r}; expected one of {tuple(_SHARED)}')
    height, width = message.height, message.width
    _check_layout(message, width)
    if height % shared or width % shared:
        raise ImageError(f'size is {width}x{height}; {message.encoding} needs even sides')
    luma = _rows(message, (height, width), message.step)
    shape, step = (height // shared, 2 * width // shared), 2 * message.step // shared
    chroma = _rows(message, shape, step, begin=height * message.step)
    return luma, chroma.reshape(shape[0], -1, 2)


def _check_layout(message: ImageMessage, row: int) -> None:
    """Raise ImageError unless size and step can be those of an image with `row` bytes a row."""
    height, width, step = message.height, message.width, message.step
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ImageError(f'size is {width}x{height}; expected 1 to {MAX_SIDE} pixels a side')
    if step < row:
        raise ImageError(f'step is {step} bytes; {width} pixels of {message.encoding} take {row}')


def _rows(
    message: ImageMessage, shape: tuple[int, int], step: int, dtype: type = np.uint8,
    begin: int = 0,
) -> np.ndarray:
    """View `shape` values of the message, in rows `step` bytes apart, from byte `begin` on."""
    item = np.dtype(dtype).itemsize
    # The last row of a padded image may end without its padding.
    needed = begin + step * (shape[0] - 1) + shape[1] * item
    if len(message.data) < needed:
        raise ImageError(
            f'data has {len(message.data)} bytes; {message.width}x{message.height} '
            f'{message.encoding} with step {message.step} takes {needed}'
        )
    if step % item:
        raise ImageError(f'step is {step}; expected a multiple of {item} bytes')
    return np.ndarray(shape, dtype, message.data, begin, (step, item))


def to_rgb(message: ImageMessage) -> np.ndarray:
    """Return the picture in `message` as uint8 RGB [H, W, 3], a view where it is rgb8 already.

    16 bits are scaled by 255/65535. Raises ImageError as `to_array` does, for an encoding that is
    not a colour or grey picture, and for chroma-subsampled pictures of odd sizes.
    """
    encoding = message.encoding
    if encoding in _SHARED:
        return _planes_to_rgb(encoding, *to_planes(message))
    pixels = to_array(message, COLOR_ENCODINGS)
    if pixels.ndim == 3 and pixels.shape[2] == 2 and pixels.shape[1] % 2:
        raise ImageError(f'width is {message.width}; {encoding} needs an even width')
    if encoding.startswith('bayer') and min(pixels.shape) < 2:
        raise ImageError(f'size is {message.width}x{message.height}; Bayer needs 2x2 or more')
    code = _TO_RGB.get(encoding)
    rgb = pixels if code is None else cv2.cvtColor(pixels, code)
    return cv2.convertScaleAbs(rgb, alpha=255 / 65535) if rgb.dtype == np.uint16 else rgb


def _planes_to_rgb(encoding: str, luma: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    code = _TWO_PLANES_TO_RGB.get(encoding)
    if code is None:
        return cv2.transform(np.dstack((np.maximum(luma, 16), chroma)), _NV24_TO_RGB)
    return cv2.cvtColorTwoPlane(luma, chroma, code)

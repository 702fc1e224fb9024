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

# Encodings of sensor_msgs/image_encodings.hpp, with dtype and channels.
ENCODINGS = {
    'rgb8': (np.uint8, 3),
    'bgr8': (np.uint8, 3),
    'rgba8': (np.uint8, 4),
    'bgra8': (np.uint8, 4),
    'mono8': (np.uint8, 1),
    '8UC1': (np.uint8, 1),
    '8UC3': (np.uint8, 3),
    'mono16': (np.uint16, 1),
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
}

# OpenCV names a Bayer pattern by its second row's second and third pixel.
_TO_RGB = {
    'bgr8': cv2.COLOR_BGR2RGB,
    '8UC3': cv2.COLOR_BGR2RGB,
    'rgba8': cv2.COLOR_RGBA2RGB,
    'bgra8': cv2.COLOR_BGRA2RGB,
    'mono8': cv2.COLOR_GRAY2RGB,
    '8UC1': cv2.COLOR_GRAY2RGB,
    'yuv422': cv2.COLOR_YUV2RGB_UYVY,
    'uyvy': cv2.COLOR_YUV2RGB_UYVY,
    'yuv422_yuy2': cv2.COLOR_YUV2RGB_YUY2,
    'yuyv': cv2.COLOR_YUV2RGB_YUY2,
    'bayer_rggb8': cv2.COLOR_BayerBG2RGB,
    'bayer_bggr8': cv2.COLOR_BayerRG2RGB,
    'bayer_gbrg8': cv2.COLOR_BayerGR2RGB,
    'bayer_grbg8': cv2.COLOR_BayerGB2RGB,
}

COLOR_ENCODINGS = ('rgb8', *_TO_RGB)
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
    encoding outside `encodings`, zero or absurd sizes, a step shorter than a row, or data shorter
    than height x step.
    """
    if message.encoding not in encodings or message.encoding not in ENCODINGS:
        raise ImageError(f'encoding is {message.encoding!r}; expected one of {encodings}')
    dtype, channels = ENCODINGS[message.encoding]
    height, width = message.height, message.width
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ImageError(f'size is {width}x{height}; expected 1 to {MAX_SIDE} pixels a side')
    item = np.dtype(dtype).itemsize
    row = width * channels * item
    if message.step < row:
        raise ImageError(
            f'step is {message.step} bytes; {width} pixels of {message.encoding} take {row}'
        )
    # The last row of a padded image may end without its padding.
    needed = message.step * (height - 1) + row
    if len(message.data) < needed:
        raise ImageError(
            f'data has {len(message.data)} bytes; {width}x{height} {message.encoding} '
            f'with step {message.step} takes {needed}'
        )
    if message.step % item:
        raise ImageError(f'step is {message.step}; expected a multiple of {item} bytes')
    shape, strides = (height, width), (message.step, channels * item)
    if channels > 1:
        shape, strides = (*shape, channels), (*strides, item)
    flat = np.frombuffer(message.data, np.uint8, needed)
    pixels = np.ndarray(shape, dtype, flat, strides=strides)
    if item > 1 and bool(message.is_bigendian) != (sys.byteorder == 'big'):
        return pixels.byteswap()
    return pixels


def to_rgb(message: ImageMessage) -> np.ndarray:
    """Return the picture in `message` as uint8 RGB [H, W, 3], a view where it is rgb8 already.

    Raises ImageError as `to_array` does, for an encoding that is not a colour or grey picture, and
    for chroma-subsampled pictures of odd width.
    """
    pixels = to_array(message, COLOR_ENCODINGS)
    if message.encoding == 'rgb8':
        return pixels
    code = _TO_RGB[message.encoding]
    if pixels.ndim == 3 and pixels.shape[2] == 2 and pixels.shape[1] % 2:
        raise ImageError(f'width is {message.width}; {message.encoding} needs an even width')
    if message.encoding.startswith('bayer') and min(pixels.shape) < 2:
        raise ImageError(f'size is {message.width}x{message.height}; Bayer needs 2x2 or more')
    return cv2.cvtColor(pixels, code)

"""From numpy arrays to sensor_msgs/Image; muon_ad.images has the way back."""

import array
import sys

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image

from muon_ad.images import ENCODINGS
from muon_ad.images import ImageError


def to_message(
    pixels: np.ndarray, encoding: str, stamp: Time, frame_id: str, into: Image | None = None
) -> Image:
    """Return an Image with a copy of `pixels` ([H, W] or [H, W, C]) in `encoding`.

    It is `into`, filled anew, where that is given: a message is free again once `publish` has
    returned, as rclpy hands nothing but copies of it to anyone. Raises ImageError where dtype or
    channels are not those of the encoding, or no pixel is there.
    """
    if encoding not in ENCODINGS:
        raise ImageError(f'encoding is {encoding!r}; expected one of {tuple(ENCODINGS)}')
    dtype, channels = ENCODINGS[encoding]
    found = {2: 1, 3: pixels.shape[-1]}.get(pixels.ndim) if pixels.ndim else None
    if pixels.dtype != dtype or found != channels or not pixels.size:
        raise ImageError(
            f'array is {pixels.dtype} {pixels.shape}; {encoding} takes '
            f'{np.dtype(dtype)} with {channels} channels'
        )
    message = Image() if into is None else into
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.is_bigendian = int(sys.byteorder == 'big')
    message.step = pixels.shape[1] * channels * pixels.itemsize
    values = memoryview(np.ascontiguousarray(pixels)).cast('B')
    if len(message.data) == len(values):
        memoryview(message.data)[:] = values
    else:
        # Given anything else, the setter copies, and checks each byte where checks are on.
        message.data = array.array('B')
        message.data.frombytes(values)
    return message

"""Images to arrays and back: every encoding, padding, byte order, and broken messages."""

import sys

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image

from muon_ad.images import ImageError
from muon_ad.images import to_array
from muon_ad.images import to_rgb
from muon_ad_nodes.parts.images import to_message

STAMP = Time(sec=3, nanosec=14)


def picture(height=6, width=8, channels=3, dtype=np.uint8):
    values = np.random.default_rng(0).integers(0, 255, (height, width, channels))
    return (values if channels > 1 else values[..., 0]).astype(dtype)


def padded(pixels, encoding, padding) -> Image:
    """A message whose rows have `padding` bytes of rubbish at their end."""
    message = to_message(pixels, encoding, STAMP, 'f')
    rows = np.frombuffer(message.data, np.uint8).reshape(pixels.shape[0], -1)
    rubbish = np.full((pixels.shape[0], padding), 77, np.uint8)
    message.data = np.hstack([rows, rubbish]).tobytes()
    message.step += padding
    return message


@given(
    st.sampled_from([('rgb8', 3, np.uint8), ('bgra8', 4, np.uint8), ('mono8', 1, np.uint8),
                     ('16UC1', 1, np.uint16), ('32FC1', 1, np.float32)]),
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 3),
)
def test_round_trip_with_padded_rows(kind, height, width, padding):
    encoding, channels, dtype = kind
    pixels = picture(height, width, channels, dtype)
    message = padded(pixels, encoding, padding * np.dtype(dtype).itemsize)
    found = to_array(message)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, pixels)


def test_header_and_layout_of_a_message():
    message = to_message(picture(), 'rgb8', STAMP, 'camera')
    assert (message.height, message.width, message.step) == (6, 8, 24)
    assert (message.header.stamp, message.header.frame_id) == (STAMP, 'camera')


def test_rgb8_is_not_copied():
    message = to_message(picture(), 'rgb8', STAMP, 'f')
    assert np.shares_memory(to_rgb(message), np.frombuffer(message.data, np.uint8))


def test_other_byte_order():
    pixels = picture(channels=1, dtype=np.uint16) * 257 + 3
    message = to_message(pixels.byteswap(), '16UC1', STAMP, 'f')
    message.is_bigendian = int(sys.byteorder == 'little')
    np.testing.assert_array_equal(to_array(message), pixels)


@pytest.mark.parametrize(
    'encoding, code',
    [('bgr8', cv2.COLOR_RGB2BGR), ('rgba8', cv2.COLOR_RGB2RGBA), ('bgra8', cv2.COLOR_RGB2BGRA)],
)
def test_colour_orders(encoding, code):
    pixels = picture()
    message = to_message(cv2.cvtColor(pixels, code), encoding, STAMP, 'f')
    np.testing.assert_array_equal(to_rgb(message), pixels)


def test_grey_becomes_equal_channels():
    pixels = picture(channels=1)
    rgb = to_rgb(to_message(pixels, 'mono8', STAMP, 'f'))
    assert all((rgb[..., channel] == pixels).all() for channel in range(3))


@pytest.mark.parametrize('encoding, luma_first', [('yuv422', False), ('yuv422_yuy2', True)])
def test_yuv422_grey(encoding, luma_first):
    """Neutral chroma leaves luma: full-range grey 16..235 maps to 0..255."""
    luma = np.full((4, 6), 126, np.uint8)
    chroma = np.full((4, 6), 128, np.uint8)
    pair = (luma, chroma) if luma_first else (chroma, luma)
    rgb = to_rgb(to_message(np.dstack(pair), encoding, STAMP, 'f'))
    assert np.abs(rgb.astype(int) - round((126 - 16) * 255 / 219)).max() <= 1


@pytest.mark.parametrize(
    'encoding, corner',
    [('bayer_rggb8', (0, 0)), ('bayer_grbg8', (0, 1)), ('bayer_gbrg8', (1, 0)),
     ('bayer_bggr8', (1, 1))],
)
def test_bayer_red_site(encoding, corner):
    """Only the red sites are lit: the picture must come out red."""
    mosaic = np.zeros((8, 8), np.uint8)
    mosaic[corner[0]::2, corner[1]::2] = 200
    rgb = to_rgb(to_message(mosaic, encoding, STAMP, 'f'))[2:-2, 2:-2]
    assert rgb[..., 0].mean() > 100
    assert rgb[..., 2].max() == 0


def spoil(**fields) -> Image:
    message = to_message(picture(), 'rgb8', STAMP, 'f')
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    'message, complaint',
    [
        (spoil(encoding='cmyk'), "encoding is 'cmyk'"),
        (spoil(encoding=''), "encoding is ''"),
        (spoil(height=0), 'size is 8x0'),
        (spoil(width=0), 'size is 0x6'),
        (spoil(width=4_000_000_000), 'size is 4000000000x6'),
        (spoil(step=23), 'step is 23 bytes; 8 pixels of rgb8 take 24'),
        (spoil(step=100), 'data has 144 bytes'),
        (spoil(data=b''), 'data has 0 bytes'),
        (spoil(encoding='16UC1', step=17), 'multiple of 2'),
        (spoil(encoding='yuv422', width=7), 'even width'),
    ],
)
def test_broken_message(message, complaint):
    with pytest.raises(ImageError, match=complaint):
        to_array(message)
        to_rgb(message)


@pytest.mark.parametrize(
    'pixels, encoding',
    [(picture(channels=1), 'rgb8'), (picture().astype(np.float32), 'rgb8'), (picture(), 'x')],
)
def test_array_that_is_not_of_the_encoding(pixels, encoding):
    with pytest.raises(ImageError):
        to_message(pixels, encoding, STAMP, 'f')

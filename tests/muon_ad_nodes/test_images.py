"""Images to arrays and back: every encoding, padding, byte order, and broken messages."""

import sys

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image

from muon_ad.images import COLOR_ENCODINGS
from muon_ad.images import ENCODINGS
from muon_ad.images import ImageError
from muon_ad.images import to_array
from muon_ad.images import to_planes
from muon_ad.images import to_rgb
from muon_ad_nodes.parts.images import to_message

STAMP = Time(sec=3, nanosec=14)
# Where red, green and blue are among the channels. Generic ones are shown as cv_bridge does.
CHANNELS = {
    'rgb': (0, 1, 2), 'bgr': (2, 1, 0), 'rgba': (0, 1, 2), 'bgra': (2, 1, 0), 'mono': (0, 0, 0),
}  # fmt: skip
PACKED = {
    f'{name}{bits}': order for name, order in CHANNELS.items() for bits in (8, 16)
} | {'8UC1': (0, 0, 0), '8UC3': (2, 1, 0), '8UC4': (2, 1, 0)}
# In which order the bytes of two neighbours lie: luma of the first and second, both their chromas.
PAIRS = {'yuv422': 'u0v1', 'uyvy': 'u0v1', 'yuv422_yuy2': '0u1v', 'yuyv': '0u1v'}
PLANES = {'nv12': ('uv', 2), 'nv21': ('vu', 2), 'nv24': ('uv', 1)}
PATTERNS = ('rggb', 'bggr', 'gbrg', 'grbg')
# What cv_bridge converts to rgb8 by name, in all its releases.
KNOWN_TO_CV_BRIDGE = (
    'rgb8', 'bgr8', 'rgba8', 'bgra8', 'rgb16', 'bgr16', 'rgba16', 'bgra16', 'mono8', 'mono16',
    'yuv422', 'yuv422_yuy2', *(f'bayer_{name}{bits}' for name in PATTERNS for bits in (8, 16)),
)  # fmt: skip

SIDES = st.integers(1, 9)
SEEDS = st.integers(0, 99)


def picture(height=6, width=8, channels=3, dtype=np.uint8, seed=0):
    chance = np.random.default_rng(seed)
    shape = (height, width, channels) if channels > 1 else (height, width)
    if dtype == np.float32:
        return chance.random(shape, np.float32)
    return chance.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def laid_out(pixels, encoding, padding=0, big=sys.byteorder == 'big') -> Image:
    """A message written byte by byte: rows with `padding` bytes of rubbish, in either order."""
    order = '>' if big else '<'
    rows = [row.astype(row.dtype.newbyteorder(order)).tobytes() for row in pixels]
    return Image(
        height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, is_bigendian=int(big),
        step=len(rows[0]) + padding, data=b''.join(row + b'M' * padding for row in rows),
    )


def eight_bits(values):
    """Values of 8 or 16 bits as 8, by cv_bridge's rule: times 255/65535, rounded."""
    if values.dtype == np.uint8:
        return values
    return ((values.astype(np.uint32) * 510 + 65535) // 131070).astype(np.uint8)


def rgb_of_yuv(y, u, v):
    """BT.601 as OpenCV has it: luma from 16 to 235, chroma around 128."""
    y = 1.164 * (np.maximum(y.astype(float), 16) - 16)
    u, v = u - 128.0, v - 128.0
    channels = (y + 1.596 * v, y - 0.391 * u - 0.813 * v, y + 2.018 * u)
    return np.stack(channels, axis=-1).round().clip(0, 255)


def spread_out(chroma, side):
    """One chroma value for each pixel of a block."""
    return chroma.repeat(side[0], axis=0).repeat(side[1], axis=1)


@given(st.sampled_from(sorted(ENCODINGS)), SIDES, SIDES, st.integers(0, 3), st.booleans(), SEEDS)
def test_every_encoding_to_an_array_and_back(encoding, height, width, padding, big, seed):
    dtype, channels = ENCODINGS[encoding]
    pixels = picture(height, width, channels, dtype, seed)
    message = laid_out(pixels, encoding, padding * pixels.itemsize, big)
    found = to_array(message)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, pixels)
    back = to_message(found, encoding, STAMP, 'f')
    assert (back.step, bytes(back.data)) == (pixels.nbytes // height, pixels.tobytes())
    if pixels.itemsize == 1 or big == (sys.byteorder == 'big'):
        assert np.shares_memory(found, np.frombuffer(message.data, np.uint8))


@given(st.sampled_from(sorted(PACKED)), SIDES, SIDES, st.integers(0, 3), st.booleans(), SEEDS)
def test_packed_colours(encoding, height, width, padding, big, seed):
    dtype, channels = ENCODINGS[encoding]
    pixels = picture(height, width, channels, dtype, seed)
    found = to_rgb(laid_out(pixels, encoding, padding * pixels.itemsize, big))
    expected = eight_bits(pixels.reshape(height, width, channels)[:, :, PACKED[encoding]])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_all_values_of_sixteen_bits():
    values = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    found = to_rgb(laid_out(values, 'mono16'))
    np.testing.assert_array_equal(found, np.dstack([eight_bits(values)] * 3))
    assert found.ravel()[[0, -1]].tolist() == [0, 255]


@given(st.sampled_from(sorted(PAIRS)), SIDES, SIDES, st.integers(0, 3), SEEDS)
def test_pairs_of_pixels_that_share_chroma(encoding, height, pairs, padding, seed):
    y = picture(height, 2 * pairs, 1, seed=seed)
    u, v = (picture(height, pairs, 1, seed=seed + number) for number in (1, 2))
    values = {'0': y[:, ::2], '1': y[:, 1::2], 'u': u, 'v': v}
    packed = np.stack([values[name] for name in PAIRS[encoding]], axis=-1)
    found = to_rgb(laid_out(packed.reshape(height, 2 * pairs, 2), encoding, padding))
    expected = rgb_of_yuv(y, *(spread_out(each, (1, 2)) for each in (u, v)))
    np.testing.assert_allclose(found, expected, atol=1)


def in_planes(y, u, v, encoding, padding=0) -> Image:
    """A message with rows of luma, then rows of chroma, padded in proportion."""
    names, shared = PLANES[encoding]
    chroma = np.stack([{'u': u, 'v': v}[name] for name in names], axis=-1)
    rows = [row.tobytes() + b'M' * padding for row in y]
    rows += [row.tobytes() + b'M' * (2 * padding // shared) for row in chroma]
    return Image(
        height=y.shape[0], width=y.shape[1], encoding=encoding, step=y.shape[1] + padding,
        data=b''.join(rows),
    )


@given(st.sampled_from(sorted(PLANES)), SIDES, SIDES, st.integers(0, 3), SEEDS)
def test_luma_and_chroma_in_planes(encoding, rows, columns, padding, seed):
    shared = PLANES[encoding][1]
    y = picture(shared * rows, shared * columns, 1, seed=seed)
    u, v = (picture(rows, columns, 1, seed=seed + number) for number in (1, 2))
    message = in_planes(y, u, v, encoding, padding)
    expected = rgb_of_yuv(y, *(spread_out(each, (shared, shared)) for each in (u, v)))
    np.testing.assert_allclose(to_rgb(message), expected, atol=1)
    luma, chroma = to_planes(message)
    np.testing.assert_array_equal(luma, y)
    np.testing.assert_array_equal(chroma[..., ::-1 if encoding == 'nv21' else 1],
                                  np.stack([u, v], axis=-1))
    memory = np.frombuffer(message.data, np.uint8)
    assert np.shares_memory(luma, memory) and np.shares_memory(chroma, memory)


def mosaic(rgb, pattern):
    """What a sensor below a Bayer filter sees: of each pixel one colour."""
    seen = np.empty(rgb.shape[:2], rgb.dtype)
    for place, colour in enumerate(pattern):
        where = np.s_[place // 2::2, place % 2::2]
        seen[where] = rgb[where][:, :, 'rgb'.index(colour)]
    return seen


def from_mosaic(seen, pattern):
    """Missing colours as the mean of the neighbours that have them; without the border."""
    height, width = seen.shape
    filters = np.array(list(pattern)).reshape(2, 2)
    colour_of = np.tile(filters, (height, width))[:height, :width]
    found = np.empty((height - 2, width - 2, 3), np.int64)
    for y, x, number in np.ndindex(found.shape):
        near = np.s_[y:y + 3, x:x + 3]
        values = seen[near][colour_of[near] == 'rgb'[number]].astype(np.int64)
        if colour_of[y + 1, x + 1] == 'rgb'[number]:
            values = seen[y + 1:y + 2, x + 1].astype(np.int64)
        found[y, x, number] = (values.sum() + len(values) // 2) // len(values)
    return found


@given(st.sampled_from(PATTERNS), st.sampled_from([8, 16]), st.integers(3, 9),
       st.integers(3, 9), st.integers(0, 3), st.booleans(), SEEDS)
def test_bayer(pattern, bits, height, width, padding, big, seed):
    seen = picture(height, width, 1, np.uint8 if bits == 8 else np.uint16, seed)
    message = laid_out(seen, f'bayer_{pattern}{bits}', padding * seen.itemsize, big)
    found = to_rgb(message)
    assert found.shape == (height, width, 3)
    expected = from_mosaic(seen, pattern).astype(seen.dtype)
    np.testing.assert_array_equal(found[1:-1, 1:-1], eight_bits(expected))


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('pattern', PATTERNS)
def test_colours_through_a_bayer_filter(pattern, bits):
    """Orange beside blue, seen through the filter, are orange and blue."""
    colours = np.empty((8, 16, 3), np.uint8)
    colours[:, :8], colours[:, 8:] = (250, 130, 10), (20, 60, 200)
    rgb = colours if bits == 8 else colours.astype(np.uint16) * 257
    found = to_rgb(laid_out(mosaic(rgb, pattern), f'bayer_{pattern}{bits}'))
    for columns in (np.s_[:, :7], np.s_[:, 9:]):
        np.testing.assert_array_equal(found[columns], colours[columns])


def test_the_same_as_cv_bridge():
    bridge = pytest.importorskip(
        'cv_bridge', reason='cv_bridge is not here; it comes with a ROS installation only'
    ).CvBridge()
    for encoding in KNOWN_TO_CV_BRIDGE:
        dtype, channels = ENCODINGS[encoding]
        for padding, big in ((0, False), (0, True), (4 * channels, False)):
            message = laid_out(picture(48, 64, channels, dtype), encoding, padding, big)
            np.testing.assert_array_equal(to_rgb(message), bridge.imgmsg_to_cv2(message, 'rgb8'))
            np.testing.assert_array_equal(to_array(message), bridge.imgmsg_to_cv2(message))


def test_every_colour_encoding_is_tested():
    tested = {*PACKED, *PAIRS, *PLANES, *(f'bayer_{n}{b}' for n in PATTERNS for b in (8, 16))}
    assert tested == set(COLOR_ENCODINGS)
    assert set(ENCODINGS) == tested - set(PLANES) | {'16UC1', '32FC1'}


def test_header_and_layout_of_a_message():
    message = to_message(picture(), 'rgb8', STAMP, 'camera')
    assert (message.height, message.width, message.step) == (6, 8, 24)
    assert (message.header.stamp, message.header.frame_id) == (STAMP, 'camera')


def test_rgb8_is_not_copied():
    message = to_message(picture(), 'rgb8', STAMP, 'f')
    assert np.shares_memory(to_rgb(message), np.frombuffer(message.data, np.uint8))


def test_a_message_is_filled_again_in_its_own_memory():
    message = to_message(picture(), 'rgb8', Time(), 'f')
    memory = np.frombuffer(message.data, np.uint8)
    again = to_message(picture(seed=1)[:, ::-1], 'bgr8', STAMP, 'g', message)
    assert again is message and np.shares_memory(to_array(again), memory)
    np.testing.assert_array_equal(to_array(again), picture(seed=1)[:, ::-1])
    header = again.header
    assert (again.encoding, header.stamp, header.frame_id) == ('bgr8', STAMP, 'g')


def test_a_message_is_filled_again_with_another_size():
    message = to_message(picture(), 'rgb8', STAMP, 'f')
    view = to_array(message)
    for pixels, encoding in ((picture(3, 4), 'rgb8'), (picture(9, 9, 1, np.uint16), '16UC1')):
        again = to_message(pixels, encoding, STAMP, 'f', message)
        np.testing.assert_array_equal(to_array(again), pixels)
    np.testing.assert_array_equal(view, picture())      # who looks at the old one still sees it


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
        (spoil(encoding='mono16', step=17), 'multiple of 2'),
        (spoil(encoding='yuv422', width=7), 'even width'),
        (spoil(encoding='bayer_rggb8', width=1), 'Bayer needs 2x2'),
        (spoil(encoding='16UC1'), "encoding is '16UC1'; expected one of"),
        (spoil(encoding='nv12', step=8, width=7), 'size is 7x6; nv12 needs even sides'),
        (spoil(encoding='nv21', step=8, height=5), 'size is 8x5; nv21 needs even sides'),
        (spoil(encoding='nv24', step=8, data=b'M' * 143), 'data has 143 bytes; .* takes 144'),
        (spoil(encoding='nv12', step=8, data=b'M' * 71), 'data has 71 bytes; .* takes 72'),
        (spoil(encoding='nv12', step=7), 'step is 7 bytes; 8 pixels of nv12 take 8'),
        (spoil(encoding='nv12', step=8, height=0), 'size is 8x0'),
    ],
)
def test_broken_message(message, complaint):
    with pytest.raises(ImageError, match=complaint):
        to_rgb(message)


def test_planes_are_of_some_encodings_only():
    with pytest.raises(ImageError, match="encoding is 'rgb8'; expected one of .*nv12"):
        to_planes(spoil())
    with pytest.raises(ImageError, match="encoding is 'nv12'; expected one of .*rgb8"):
        to_array(spoil(encoding='nv12'))


@pytest.mark.parametrize(
    'pixels, encoding',
    [
        (picture(channels=1), 'rgb8'), (picture().astype(np.float32), 'rgb8'), (picture(), 'x'),
        (picture(), 'rgb16'), (picture(channels=1), 'nv12'),
    ],
)
def test_array_that_is_not_of_the_encoding(pixels, encoding):
    with pytest.raises(ImageError):
        to_message(pixels, encoding, STAMP, 'f')

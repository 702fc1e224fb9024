"""Pictures out of messages, as image_transport's plugins compress them."""

import struct
from types import SimpleNamespace
from zlib import crc32

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from muon_ad.bags import open_bag
from muon_ad.images import ImageError
from muon_ad.pictures import COMPRESSED
from muon_ad.pictures import IMAGE
from muon_ad.pictures import picture_of
from muon_ad.pictures import raw_topic
from muon_ad.rvl import decode_rvl

RED, GREEN = (250, 20, 10), (10, 240, 30)


def compressed(format_text: str, data: bytes) -> SimpleNamespace:
    """A message like sensor_msgs/CompressedImage."""
    return SimpleNamespace(format=format_text, data=np.frombuffer(data, np.uint8))


def encoded(suffix: str, pixels: np.ndarray) -> bytes:
    """A picture file, of pixels in OpenCV's order."""
    return cv2.imencode(suffix, pixels)[1].tobytes()


def two_colors() -> np.ndarray:
    """RGB: the left half red, the right half green."""
    rgb = np.empty((16, 32, 3), np.uint8)
    rgb[:, :16], rgb[:, 16:] = RED, GREEN
    return rgb


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize(
    ('format_text', 'swapped'),
    [
        ('rgb8; jpeg compressed bgr8', False),
        ('bgr8; png compressed bgr8', False),
        ('bgr8; jpeg compressed ', False),
        ('jpeg', False),
        ('', False),
        ('rgb8; jpeg compressed rgb8', True),
    ],
)
def test_colors_come_out_right(suffix, format_text, swapped):
    rgb = two_colors()
    stored = rgb if swapped else rgb[..., ::-1]
    encoding, pixels = picture_of(compressed(format_text, encoded(suffix, stored)), COMPRESSED)
    assert encoding == 'rgb8' and pixels.shape == rgb.shape
    assert np.abs(pixels[:, 4:12].astype(int) - RED).max() < 10
    assert np.abs(pixels[:, 20:28].astype(int) - GREEN).max() < 10


@pytest.mark.parametrize(
    ('format_text', 'stored', 'encoding'),
    [
        ('mono8; png compressed ', np.full((4, 6), 7, np.uint8), 'mono8'),
        ('mono16; png compressed ', np.full((4, 6), 700, np.uint16), 'mono16'),
        ('16UC1; png compressed ', np.full((4, 6), 700, np.uint16), '16UC1'),
        ('png', np.full((4, 6, 4), (3, 2, 1, 9), np.uint8), 'rgba8'),
        ('rgb16; png compressed bgr16', np.full((4, 6, 3), (768, 512, 256), np.uint16), 'rgb8'),
    ],
)
def test_other_encodings(format_text, stored, encoding):
    got, pixels = picture_of(compressed(format_text, encoded('.png', stored)), COMPRESSED)
    assert got == encoding and pixels.shape == stored.shape
    expected = {'rgba8': (1, 2, 3, 9), 'rgb8': (1, 2, 3)}.get(encoding, stored[0, 0])
    assert np.array_equal(pixels[0, 0], expected)


def depth_image() -> np.ndarray:
    """Millimetres, with holes."""
    random = np.random.default_rng(3)
    depth = random.integers(400, 9000, (24, 40)).astype(np.uint16)
    depth[random.random(depth.shape) < 0.3] = 0
    return depth


def rvl(pixels: np.ndarray) -> bytes:
    """The code that decode_rvl reads, written number by number."""
    nibbles: list[int] = []

    def put(number: int) -> None:
        while True:
            nibbles.append(number & 7 | (8 if number > 7 else 0))
            number >>= 3
            if not number:
                return

    flat, position, before = pixels.ravel().tolist(), 0, 0
    while position < len(flat):
        for zero in (True, False):
            end = position
            while end < len(flat) and (flat[end] == 0) == zero:
                end += 1
            put(end - position)
            for value in flat[position:end] if not zero else ():
                difference = value - before
                put(difference * 2 if difference >= 0 else -difference * 2 - 1)
                before = value
            position = end
    nibbles += [0] * (-len(nibbles) % 8)
    words = (nibbles[n:n + 8] for n in range(0, len(nibbles), 8))
    code = b''.join(struct.pack('<I', int(''.join(f'{n:x}' for n in word), 16)) for word in words)
    return struct.pack('<II', *pixels.shape[::-1]) + code


@pytest.mark.parametrize(
    'how', ['compressedDepth', 'compressedDepth png', 'compressedDepth rvl', '']
)
def test_depth_in_millimetres(how):
    depth = depth_image()
    body = rvl(depth) if how.endswith('rvl') else encoded('.png', depth)
    format_text = f'16UC1; {how}' if how else '16UC1'
    message = compressed(format_text, struct.pack('<iff', 0, 0, 0) + body)
    encoding, pixels = picture_of(message, COMPRESSED)
    assert encoding == '16UC1' and np.array_equal(pixels, depth)


@pytest.mark.parametrize('how', ['png', 'rvl'])
def test_depth_in_metres_comes_back_within_its_quantisation(how):
    metres = depth_image() / np.float32(1000)
    metres[metres == 0] = np.nan
    # As compressed_depth_image_transport: quantisation 100, at most 10 m.
    a = np.float32(100 * 101)
    b = np.float32(1 - a / 10)
    inverse = np.nan_to_num(a / metres + b).astype(np.uint16)
    body = rvl(inverse) if how == 'rvl' else encoded('.png', inverse)
    message = compressed(f'32FC1; compressedDepth {how}', struct.pack('<iff', 0, a, b) + body)
    encoding, pixels = picture_of(message, COMPRESSED)
    assert encoding == '32FC1' and pixels.dtype == np.float32
    assert np.array_equal(np.isnan(pixels), np.isnan(metres))
    assert np.nanmax(np.abs(pixels - metres) / metres) < 0.01


HEADER = struct.pack('<iff', 0, 0, 0)
RVL = '16UC1; compressedDepth rvl'
FORMATS = (
    'jpeg', 'rgb8; jpeg compressed bgr8', '16UC1; compressedDepth', '32FC1; compressedDepth rvl'
)


@pytest.mark.parametrize(
    ('format_text', 'data', 'expected'),
    [
        ('jpeg', b'', 'no picture of JPEG, PNG'),
        ('jpeg', b'GIF89a' + bytes(20), 'no picture of JPEG, PNG'),
        ('png', encoded('.png', two_colors())[:60], 'damaged'),
        ('16UC1; compressedDepth', HEADER, 'the header alone takes 12'),
        ('8UC3; compressedDepth', HEADER + b'x', "format is '8UC3; compressedDepth'"),
        ('16UC1; compressedDepth', HEADER + encoded('.png', two_colors()), 'expected one channel'),
        (RVL, HEADER + b'123', 'RVL data has 3 bytes'),
        (RVL, HEADER + struct.pack('<II', 1 << 31, 1), 'expected 1 to'),
        (RVL, HEADER + struct.pack('<II', 4, 4), 'ends after 0 of 16'),
        (RVL, HEADER + struct.pack('<II', 4, 4) + b'\xff' * 8, 'ends after'),
        (RVL, HEADER + struct.pack('<III', 4, 4, 0x77777777), 'near pixel'),
    ],
)
def test_what_is_no_picture(format_text, data, expected):
    with pytest.raises(ImageError, match=expected):
        picture_of(compressed(format_text, data), COMPRESSED)


def test_a_small_file_of_a_vast_picture_is_refused_before_it_is_decoded():
    data = bytearray(encoded('.png', np.zeros((2, 2), np.uint8)))
    data[16:24] = struct.pack('>II', 1 << 30, 1 << 30)
    data[29:33] = struct.pack('>I', crc32(data[12:29]))
    with pytest.raises(ImageError, match='1073741824|no picture'):
        picture_of(compressed('png', bytes(data)), COMPRESSED)


@settings(max_examples=300, deadline=2000)
@given(
    format_text=st.sampled_from(FORMATS),
    start=st.sampled_from((
        encoded('.jpg', two_colors()), encoded('.png', two_colors()),
        HEADER + encoded('.png', depth_image()), HEADER + rvl(depth_image()),
    )),
    where=st.floats(0, 1),
    patch=st.binary(max_size=12),
    cut=st.floats(0, 1),
)
def test_any_bytes_are_a_picture_or_an_image_error(format_text, start, where, patch, cut):
    data = bytearray(start)
    begin = int(where * len(data))
    data[begin:begin + len(patch)] = patch
    try:
        message = compressed(format_text, bytes(data[:int(cut * len(data))]))
        _, pixels = picture_of(message, COMPRESSED)
    except ImageError:
        return
    assert pixels.ndim in (2, 3) and pixels.size


def test_another_type_has_no_picture():
    with pytest.raises(ImageError, match='type is std_msgs/msg/String'):
        picture_of(None, 'std_msgs/msg/String')


@pytest.mark.parametrize(
    ('topic', 'raw'),
    [
        ('/a/image_raw/compressed', '/a/image_raw'),
        ('/a/depth/compressedDepth', '/a/depth'),
        ('/compressed_image', '/compressed_image'),
    ],
)
def test_names_of_raw_topics(topic, raw):
    assert raw_topic(topic) == raw


def test_the_real_bags_decode(data):
    with open_bag(data / 'bags' / 'soccer_goal_12.mcap') as bag:
        assert bag.topics == {'/camera/image_raw': IMAGE} and bag.counts['/camera/image_raw'] == 2
        for message in bag.messages():
            encoding, pixels = picture_of(message.data, message.type)
            assert encoding == 'rgb8' and pixels.shape == (480, 640, 3) and pixels.std() > 10
        assert bag.trouble == ''
    with open_bag(data / 'bags' / 'ros_numpy_test.bag') as bag:
        pictures = {
            m.topic: picture_of(m.data, m.type)
            for m in bag.messages(['/image', '/compressedimage'])
        }
        assert len(bag.topics) == 9 and len(list(bag.messages())) == 9 and bag.trouble == ''
    encoding, pixels = pictures['/image']
    assert encoding == 'rgb8' and pixels.shape == (240, 360, 3) and 120 < pixels.mean() < 135
    encoding, pixels = pictures['/compressedimage']
    assert encoding == 'rgba8' and pixels[0].tolist() == [[255, 0, 0, 255], [255, 255, 0, 255]]


def test_rvl_of_one_value_and_of_none():
    assert decode_rvl(rvl(np.full((3, 5), 9, np.uint16))).tolist() == [[9] * 5] * 3
    assert not decode_rvl(rvl(np.zeros((3, 5), np.uint16))).any()

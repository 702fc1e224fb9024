"""Tiny bags from pictures: arrays and files, depth and calibration, raw and compressed."""

import cv2
import numpy as np
import pytest

from muon_ad.bags import BagError
from muon_ad.bags import open_bag
from muon_ad.images import to_array
from muon_ad.images import to_rgb
from muon_ad.pictures import picture_of
from muon_ad.runtime.positions import Intrinsics
from muon_ad.testing.bags import write_bag

COLOURS = np.random.default_rng(1).integers(0, 256, (3, 12, 16, 3), np.uint8)
DEPTHS = np.random.default_rng(2).integers(500, 5000, (3, 12, 16), np.uint16)


def read(path):
    """Return the messages of a bag by topic."""
    with open_bag(path) as bag:
        messages = list(bag.messages())
        assert not bag.trouble
    return {topic: [m for m in messages if m.topic == topic] for topic in bag.topics}


@pytest.mark.parametrize('compressed', [False, True])
def test_pictures_depth_and_calibration(make_bag, compressed):
    path = make_bag(COLOURS, depth=DEPTHS, camera=90.0, rate=4.0, compressed=compressed)
    assert path.name == 'bag.mcap'
    topics = read(path)
    endings = ('/compressed', '/compressedDepth') if compressed else ('', '')
    images = topics[f'/image_raw{endings[0]}']
    depths = topics[f'/aligned_depth/image_raw{endings[1]}']
    for number in range(3):
        for message, pixels, encoding in (
            (images[number], COLOURS[number], 'rgb8'), (depths[number], DEPTHS[number], '16UC1'),
        ):
            assert picture_of(message.data, message.type)[0] == encoding
            assert np.array_equal(picture_of(message.data, message.type)[1], pixels)
            assert message.data.header.stamp.nanosec == 250_000_000 * number
            assert message.data.header.frame_id == 'camera_optical_frame'
    info = topics['/camera_info'][0].data
    assert (info.width, info.height) == (16, 12)
    np.testing.assert_allclose(info.k, [8, 0, 7.5, 0, 8, 5.5, 0, 0, 1])
    np.testing.assert_allclose(info.p, [8, 0, 7.5, 0, 0, 8, 5.5, 0, 0, 0, 1, 0])


def test_files_in_order_of_their_names(make_bag, tmp_path):
    for number in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f'{number}.png'), COLOURS[number][:, :, ::-1])
    (tmp_path / 'notes.txt').write_text('no picture')
    listed = [tmp_path / f'{number}.png' for number in range(3)]
    for images in (listed, tmp_path, str(tmp_path), tmp_path / '*.png'):
        messages = read(make_bag(images))['/image_raw']
        assert [picture_of(m.data, m.type)[1].tolist() for m in messages] == COLOURS.tolist()


def test_names_topics_and_encodings(make_bag):
    camera = Intrinsics(20.0, 21.0, 8.0, 6.0)
    path = make_bag(
        COLOURS, name='a_folder', topic='/front/color/image_raw', encoding='bgr8', camera=camera,
        depth=DEPTHS[0].astype(np.float32) / 1000, depth_topic='/front/depth', frame_id='front',
    )
    assert (path / 'metadata.yaml').is_file()
    topics = read(path)
    assert set(topics) == {'/front/color/image_raw', '/front/color/camera_info', '/front/depth'}
    assert topics['/front/color/image_raw'][0].data.encoding == 'bgr8'
    assert [m.data.encoding for m in topics['/front/depth']] == ['32FC1'] * 3
    assert topics['/front/color/camera_info'][0].data.k[4] == 21.0
    assert make_bag(COLOURS).name != make_bag(COLOURS).name


@pytest.mark.parametrize(
    'encoding',
    ['', 'rgb8', 'bgr8', '8UC3', 'rgba8', 'bgra8', '8UC4', 'mono8', 'bayer_grbg8'])
def test_encodings_keep_the_colours(make_bag, encoding):
    """Red stays red, whatever the layout: nothing is merely labelled otherwise."""
    red = np.zeros((12, 16, 3), np.uint8)
    red[:] = (200, 80, 20)
    seen = {}
    for name, pixels in (('RGB', red), ('RGBA', np.dstack([red, np.full((12, 16), 9, np.uint8)]))):
        image = read(make_bag([pixels], encoding=encoding))['/image_raw'][0].data
        assert image.encoding == encoding or not encoding
        seen[name] = to_rgb(image)
    expected = 0.299 * 200 + 0.587 * 80 + 0.114 * 20 if encoding == 'mono8' else (200, 80, 20)
    for rgb in seen.values():
        np.testing.assert_allclose(rgb, np.broadcast_to(expected, rgb.shape), atol=1)


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'mono8'])
def test_compressed_encodings(make_bag, encoding):
    message, = read(make_bag(COLOURS[0], encoding=encoding, compressed=True)).popitem()[1]
    assert message.data.format.startswith(f'{encoding}; png compressed ')
    pixels = picture_of(message.data, message.type)[1]
    expected = COLOURS[0]
    if encoding == 'mono8':
        expected = cv2.cvtColor(expected, cv2.COLOR_RGB2GRAY)
    assert np.array_equal(pixels, expected)


def test_arrays_in_their_own_encoding(make_bag):
    for shape, encoding in (((12, 16, 2), 'yuyv'), ((12, 16), 'bayer_rggb8'), ((12, 16), '')):
        pixels = COLOURS[0].reshape(-1)[:np.prod(shape)].reshape(shape)
        image = read(make_bag(pixels[None], encoding=encoding))['/image_raw'][0].data
        assert image.encoding == (encoding or 'mono8')
        assert np.array_equal(to_array(image), pixels)


def test_depth_from_files(make_bag, tmp_path):
    files = [tmp_path / f'd{number}.png' for number in range(3)]
    for file, depth in zip(files, DEPTHS, strict=True):
        cv2.imwrite(str(file), depth)
    for given, expected in (
        (files, DEPTHS), (tmp_path / 'd*.png', DEPTHS), (str(files[1]), DEPTHS[[1, 1, 1]]),
    ):
        messages = read(make_bag(COLOURS, depth=given))['/aligned_depth/image_raw']
        assert np.array_equal([to_array(message.data) for message in messages], expected)
    with pytest.raises(ValueError, match=r'image 0 \(.*d0.png\) is uint16'):
        make_bag(files)


def test_option_that_is_not_known(make_bag):
    with pytest.raises(TypeError, match=r'make_bag has no option fps; it takes begin_ns, .* name'):
        make_bag(COLOURS, fps=3)


@pytest.mark.parametrize(
    'images, options, said',
    [
        ([], {}, 'no images'),
        ('/nowhere/*.jpg', {}, 'no picture there'),
        (['/nowhere/a.jpg'], {}, 'no such file'),
        ([__file__], {}, 'cannot be read as a picture'),
        ([3], {}, 'an image is 3; expected an array or the name of a file'),
        (DEPTHS, {}, 'image 0 is uint16 of shape .* go into depth='),
        (COLOURS, {'depth': DEPTHS.astype(np.uint8)}, 'depth image 0 is uint8'),
        (COLOURS, {'depth': DEPTHS[:, :6]}, 'depth image 0 is 16x6; expected 16x12'),
        (COLOURS, {'depth': '/nowhere.png'}, 'no picture there'),
        (COLOURS, {'depth': DEPTHS.astype(np.float32), 'compressed': True}, 'is uint16'),
        (COLOURS, {'camera': '62'}, "camera is '62'"),
        (COLOURS, {'topic': 'image raw'}, "topic is 'image raw'; expected a name such as"),
        (COLOURS, {'depth_topic': 'depth'}, "depth_topic is 'depth'"),
        (COLOURS, {'encoding': 'yuyv'}, 'cannot become yuyv'),
        (COLOURS, {'encoding': '16UC1'}, "encoding is '16UC1'; expected one of rgb8"),
        (COLOURS, {'encoding': 'rgb16'}, "encoding is 'rgb16'; expected one of rgb8"),
        (COLOURS, {'encoding': 'nv12'}, "encoding is 'nv12'; expected one of rgb8"),
        (COLOURS, {'depth': DEPTHS[:2]}, 'depth images: 2; expected 3'),
        (COLOURS, {'rate': 0}, 'rate is 0'),
        (COLOURS, {'camera': 180.0}, 'camera is 180'),
        ([np.zeros((4, 4), np.int64)], {}, 'int64'),
        (COLOURS, {'encoding': 'bogus'}, "encoding is 'bogus'"),
        ([np.zeros((0, 4, 3), np.uint8)], {}, r'\(0, 4, 3\)'),
        (COLOURS, {'compressed': True, 'encoding': 'bgra8'}, "'bgra8'; compressed is one of"),
    ],
)
def test_what_is_no_bag_is_told(make_bag, tmp_path, images, options, said):
    with pytest.raises(ValueError, match=said):
        make_bag(images, **options)
    assert not list(tmp_path.iterdir()), 'nothing is left behind'


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / 'b.mcap').write_text('mine')
    with pytest.raises(BagError, match='exists already'):
        write_bag(tmp_path / 'b.mcap', COLOURS)

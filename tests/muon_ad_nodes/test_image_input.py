"""Raw and compressed images as the task nodes take them."""

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

from muon_ad.images import ImageError
from muon_ad.images import to_array
from muon_ad.images import to_rgb
from muon_ad_msgs.msg import DetectionArray
from muon_ad_nodes.bench import Bench
from muon_ad_nodes.nodes import object_detector
from muon_ad_nodes.nodes import style_transfer
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.image_input import as_image
from muon_ad_nodes.parts.images import to_message

RGB = (200, 90, 40)
STAMP = Time(sec=3)


def compressed(
    pixels: np.ndarray, suffix: str = '.jpg', what: str = 'rgb8; jpeg compressed bgr8'
) -> CompressedImage:
    """A message as compressed_image_transport writes it, of pixels in OpenCV's order."""
    message = CompressedImage(format=what, data=cv2.imencode(suffix, pixels)[1].tobytes())
    message.header.stamp, message.header.frame_id = STAMP, 'lens'
    return message


def camera(height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), RGB[::-1], np.uint8)


@pytest.mark.parametrize(
    'suffix, what',
    [('.jpg', 'rgb8; jpeg compressed bgr8'), ('.png', 'rgb8; png compressed bgr8'), ('.jpg', '')],
)
def test_a_compressed_image_becomes_a_raw_one(suffix, what):
    image = as_image(compressed(camera(), suffix, what))
    assert (image.header.stamp, image.header.frame_id) == (STAMP, 'lens')
    assert np.abs(to_rgb(image).astype(int) - RGB).max() <= 2


def test_a_raw_image_stays_as_it_is():
    image = to_message(camera(), 'bgr8', STAMP, 'lens')
    assert as_image(image) is image


def test_sixteen_bits_in_a_png_stay():
    grey = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    image = as_image(compressed(grey, '.png', 'mono16; png compressed '))
    assert image.encoding == 'mono16'
    np.testing.assert_array_equal(to_array(image), grey)


def test_a_picture_that_was_cut_off_is_an_image_error():
    message = compressed(camera())
    message.data = message.data[:100]
    with pytest.raises(ImageError, match='no picture that can be used'):
        as_image(message)


@pytest.fixture
def remapped():
    """A Bench in which image_raw is the topic of a camera."""
    bench = Bench('--ros-args', '-r', 'image_raw:=/front/image')
    yield bench
    bench.close()


def connected(bench, node, kind, topic, result):
    """A function that publishes to `topic` of a node that is active, and its results."""
    publisher = bench.probe.create_publisher(kind, topic, qos.PUBLISH)
    bench.wait(lambda: publisher.get_subscription_count() > 0, f'the node to subscribe {topic}')
    results = bench.listen(*result)
    bench.wait(lambda: node._publisher.get_subscription_count() > 0, 'the probe to subscribe')
    return publisher.publish, results


def test_style_of_compressed_images_beside_the_raw_topic(remapped, negative_package):
    node = remapped.start(
        style_transfer.make, model=str(negative_package), image_transport='compressed'
    )
    send, results = connected(
        remapped, node, CompressedImage, '/front/image/compressed', (Image, 'style/image')
    )
    send(compressed(camera()))
    remapped.wait(lambda: results, 'a stylised image')
    assert (results[0].header.stamp, results[0].header.frame_id) == (STAMP, 'lens')
    assert np.abs(to_rgb(results[0]).astype(int) - np.subtract(255, RGB)).max() <= 2


def test_raw_is_what_comes_without_a_word(remapped, negative_package):
    node = remapped.start(style_transfer.make, model=str(negative_package))
    send, results = connected(
        remapped, node, Image, '/front/image', (Image, 'style/image')
    )
    send(to_message(camera(), 'bgr8', STAMP, 'lens'))
    remapped.wait(lambda: results, 'a stylised image')
    assert (to_rgb(results[0]) == np.subtract(255, RGB)).all()


def test_bad_pictures_are_counted_and_the_node_lives_on(bench, negative_package):
    node = bench.start(
        style_transfer.make, model=str(negative_package), image_transport='compressed'
    )
    send, results = connected(
        bench, node, CompressedImage, 'image_raw/compressed', (Image, 'style/image')
    )
    cut, empty, text = compressed(camera()), compressed(camera()), compressed(camera())
    cut.data, empty.data, text.data = cut.data[:100], b'', b'no picture'
    depth = compressed(np.ones((4, 6), np.uint16), '.png', '16UC1; png compressed ')
    for number, bad in enumerate((cut, empty, text, depth), start=1):
        send(bad)
        bench.wait(lambda n=number: node.monitor.dropped_invalid_frames == n, f'drop {number}')
    assert not results
    send(compressed(camera()))
    bench.wait(lambda: results, 'an image after bad ones')
    assert node.monitor.frames == 1


def test_detections_in_compressed_images(bench, one_box_package):
    node = bench.start(
        object_detector.make, model=str(one_box_package), image_transport='compressed'
    )
    send, found = connected(
        bench, node, CompressedImage, 'image_raw/compressed', (DetectionArray, 'detections')
    )
    send(compressed(camera(480, 640)))
    bench.wait(lambda: found, 'detections')
    assert (found[0].header.stamp, found[0].image_width, found[0].image_height) == (
        STAMP, 640, 480)
    detection, = found[0].detections
    assert detection.x_min == pytest.approx(160, abs=0.01)


def test_an_unknown_transport_is_refused(bench, negative_package):
    with pytest.raises(ValueError, match="image_transport is 'theora'; expected one of 'raw'"):
        bench.run(style_transfer.make, model=str(negative_package), image_transport='theora')

"""The detector node in this process, on a network that always finds one box."""

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from muon_ad_msgs.msg import DetectionArray
from muon_ad_nodes.nodes import object_detector
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.images import to_message

WIDTH, HEIGHT, FOCAL = 640, 480, 500.0


class Camera:
    """Publishes image, depth and camera_info with one stamp, counting up."""

    def __init__(self, bench, node):
        probe = bench.probe
        self._publishers = {
            'image': probe.create_publisher(Image, 'image_raw', qos.PUBLISH),
            'depth': probe.create_publisher(Image, 'aligned_depth/image_raw', qos.PUBLISH),
            'info': probe.create_publisher(CameraInfo, 'camera_info', qos.PUBLISH),
        }
        for name, publisher in self._publishers.items():
            bench.wait(lambda p=publisher: p.get_subscription_count() > 0, f'a listener of {name}')
        self._bench, self._node, self._second = bench, node, 0

    def send(self, depth=None, encoding='16UC1', info=True, late_s=0) -> None:
        """Publish; depth and info first, so that they are there when the image is worked on."""
        self._second += 1
        stamp = Time(sec=self._second)
        pairing = self._node._pairing
        if info:
            k = [FOCAL, 0.0, WIDTH / 2, 0.0, FOCAL, HEIGHT / 2, 0.0, 0.0, 1.0]
            message = CameraInfo(width=WIDTH, height=HEIGHT, k=k)
            self._publishers['info'].publish(message)
            self._bench.wait(lambda: pairing.camera_info is not None, 'the calibration')
        if depth is not None:
            stamped = Time(sec=self._second + late_s)
            self._publishers['depth'].publish(to_message(depth, encoding, stamped, 'lens'))
            self._bench.wait(
                lambda: any(d.header.stamp == stamped for d in pairing.depths), 'the depth'
            )
        pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        self._publishers['image'].publish(to_message(pixels, 'rgb8', stamp, 'lens'))


@pytest.fixture
def node(bench, one_box_package):
    node = bench.run(object_detector.make, model=str(one_box_package))
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    return node


@pytest.fixture
def camera(bench, node):
    return Camera(bench, node)


@pytest.fixture
def found(bench, node):
    """Everything the node publishes."""
    found = bench.listen(DetectionArray, 'detections')
    bench.wait(lambda: node._publisher.get_subscription_count() > 0, 'the probe to subscribe')
    return found


def test_box_in_pixels_of_the_source(bench, camera, found):
    camera.send(info=False)
    bench.wait(lambda: found, 'detections')
    array = found[0]
    assert (array.header.stamp.sec, array.header.frame_id) == (1, 'lens')
    assert (array.image_width, array.image_height) == (WIDTH, HEIGHT)
    detection, = array.detections
    corners = (detection.x_min, detection.y_min, detection.x_max, detection.y_max)
    np.testing.assert_allclose(corners, (160, 120, 480, 360), atol=0.01)
    assert (detection.label, detection.class_id) == ('person', 0)
    assert detection.score == pytest.approx(0.9)
    assert not detection.position_valid


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1'])
def test_position_from_depth_in_either_unit(bench, camera, found, encoding):
    """The box's core is 2.5 m away and lies on the optical axis; around it are wall and holes."""
    metres = np.full((HEIGHT, WIDTH), 4.0, np.float32)
    metres[180:300, 240:400] = 2.5
    metres[200:230, 250:300] = 0
    depth = metres if encoding == '32FC1' else (metres * 1000).astype(np.uint16)
    if encoding == '32FC1':
        depth[200:215, 250:300] = np.nan
    camera.send(depth, encoding)
    bench.wait(lambda: found, 'detections')
    detection, = found[0].detections
    assert detection.position_valid
    assert detection.position.z == pytest.approx(2.5, abs=0.01)
    assert detection.position.x == pytest.approx(0, abs=0.01)
    assert detection.position.y == pytest.approx(0, abs=0.01)
    assert all(variance >= 0 for variance in detection.position_variance)


@pytest.mark.parametrize(
    'depth, fields',
    [
        (np.zeros((HEIGHT, WIDTH), np.uint16), {}),
        (np.full((HEIGHT, WIDTH), np.nan, np.float32), {'encoding': '32FC1'}),
        (np.full((HEIGHT, WIDTH), 2000, np.uint16), {'late_s': 5}),
        (np.full((HEIGHT, WIDTH), 2000, np.uint16), {'info': False}),
        (np.full((HEIGHT, WIDTH), 200, np.uint8), {'encoding': 'mono8'}),
    ],
    ids=['no valid depth', 'NaN', 'depth of another moment', 'no calibration', 'not depth'],
)
def test_no_position_without_usable_depth(bench, camera, found, depth, fields):
    camera.send(depth, **fields)
    bench.wait(lambda: found, 'detections')
    detection, = found[0].detections
    assert not detection.position_valid


def test_threshold_is_dynamic_and_nothing_found_is_published(bench, node, camera, found):
    import rclpy

    result, = node.set_parameters([rclpy.Parameter('score_threshold', value=0.95)])
    assert result.successful
    camera.send(info=False)
    bench.wait(lambda: found, 'an empty message')
    assert list(found[0].detections) == []


def test_class_filter(bench, one_box_package):
    node = bench.run(object_detector.make, model=str(one_box_package), classes=['unicorn'])
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE

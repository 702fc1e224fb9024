"""The CSI camera node: life cycle, end of input, calibration, bad input."""

import json
from contextlib import nullcontext

import cv2
import numpy as np
import pytest
import yaml
from rclpy import Parameter
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from muon_ad.images import to_array
from muon_ad.test_pattern import draw_strip
from muon_ad.test_pattern import read_number
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.nodes import csi_camera
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.metadata_topic import MetadataMessage
from muon_ad_nodes.parts.pattern_source import PatternSource
from muon_ad_nodes.parts.stamps import nanoseconds

OK = TransitionCallbackReturn.SUCCESS
FAILED = TransitionCallbackReturn.FAILURE
SIZE = (192, 144)
PATTERN = {'source': 'test_pattern', 'width': SIZE[0], 'height': SIZE[1]}


def write_images(folder, count=4, size=SIZE):
    for number in range(count):
        picture = np.full((*size[::-1], 3), 90, np.uint8)
        draw_strip(picture, number)
        cv2.imwrite(str(folder / f'{number:02d}.png'), picture)
    return str(folder)


def write_calibration(path, width, height):
    matrix = [100.0, 0.0, width / 2, 0.0, 100.0, height / 2, 0.0, 0.0, 1.0]
    path.write_text(yaml.safe_dump({
        'image_width': width,
        'image_height': height,
        'camera_name': 'imx219',
        'distortion_model': 'plumb_bob',
        'camera_matrix': {'rows': 3, 'cols': 3, 'data': matrix},
        'distortion_coefficients': {'rows': 1, 'cols': 5, 'data': [0.1, 0.0, 0.0, 0.0, 0.0]},
        'rectification_matrix': {'rows': 3, 'cols': 3, 'data': np.eye(3).ravel().tolist()},
        'projection_matrix': {'rows': 3, 'cols': 4, 'data': [
            100.0, 0.0, width / 2, 0.0, 0.0, 100.0, height / 2, 0.0, 0.0, 0.0, 1.0, 0.0]},
    }))
    return str(path)


@pytest.fixture
def topics(bench):
    """What the node publishes: images, camera_info and status."""
    return (
        bench.listen(Image, 'image_raw', 20),       # deep: these tests miss nothing
        bench.listen(CameraInfo, 'camera_info', 20),
        bench.listen(TaskStatus, 'csi_camera/status', qos.LATCHED),
    )


def configured(bench, **parameters):
    node = bench.run(csi_camera.make, **parameters)
    assert node.trigger_configure() == OK
    bench.wait(lambda: node._topic.wanted, 'the subscription to be seen')
    return node


def test_the_pattern_is_published_with_its_calibration(bench, topics):
    images, infos, statuses = topics
    node = configured(bench, **PATTERN)
    assert node.trigger_activate() == OK
    bench.wait(lambda: len(images) > 2 and infos, 'images')
    image, info = images[0], infos[0]
    assert image.encoding == 'rgb8' and image.header.frame_id == 'csi_camera_optical_frame'
    assert (image.width, image.height) == SIZE == (info.width, info.height)
    assert info.header == image.header
    assert info.k[0] > 0
    numbers = [read_number(to_array(image)) for image in images]
    assert numbers == sorted(set(numbers))
    bench.wait(lambda: statuses and statuses[-1].frames > 2, 'a status with frames')
    assert statuses[-1].message == ''
    assert {stage.name for stage in statuses[-1].stages} == {'capture', 'publish', 'total'}


def test_the_end_of_input_is_told_and_the_node_starts_over(bench, topics, tmp_path):
    images, _, statuses = topics
    node = configured(bench, source='folder', path=write_images(tmp_path), fps=60.0)
    for _ in range(2):
        images.clear()
        assert node.trigger_activate() == OK
        bench.wait(lambda: statuses and statuses[-1].message.startswith('end of input'), 'the end')
        assert statuses[-1].state == 'active'
        bench.wait(lambda: len(images) == 4, 'all four images')
        assert [read_number(to_array(image)) for image in images] == [0, 1, 2, 3]
        assert node.trigger_deactivate() == OK
        statuses.clear()
    assert node.monitor.frames == 8


def test_a_broken_image_is_counted_and_the_rest_published(bench, topics, tmp_path):
    images, _, statuses = topics
    path = write_images(tmp_path)
    (tmp_path / '02.png').write_bytes(b'broken')
    node = configured(bench, source='folder', path=path, fps=60.0)
    assert node.trigger_activate() == OK
    bench.wait(lambda: statuses and statuses[-1].message.startswith('end of input'), 'the end')
    bench.wait(lambda: len(images) == 3, 'three images')
    assert node.monitor.dropped_invalid_frames == 1
    assert node.monitor.frames == 3


def test_without_calibration_camera_info_has_zeros(bench, topics, tmp_path):
    _, infos, _ = topics
    node = configured(bench, source='folder', path=write_images(tmp_path), fps=60.0, loop=True)
    assert node.trigger_activate() == OK
    bench.wait(lambda: infos, 'camera_info')
    assert (infos[0].width, infos[0].height) == SIZE
    assert not np.any(infos[0].k) and not np.any(infos[0].p) and len(infos[0].d) == 0


def test_a_calibration_is_scaled_to_the_images(bench, topics, tmp_path):
    _, infos, _ = topics
    url = write_calibration(tmp_path / 'camera.yaml', 2 * SIZE[0], 2 * SIZE[1])
    node = configured(bench, **PATTERN, camera_info_url=url)
    assert node.trigger_activate() == OK
    bench.wait(lambda: infos, 'camera_info')
    assert (infos[0].width, infos[0].height) == SIZE
    assert infos[0].k[0] == 50.0 and infos[0].k[2] == SIZE[0] / 2 and infos[0].d[0] == 0.1


def test_images_of_another_aspect_than_the_calibration_are_counted_drops(bench, topics, tmp_path):
    images, _, statuses = topics
    url = write_calibration(tmp_path / 'camera.yaml', 1280, 720)
    path = write_images(tmp_path)
    node = configured(bench, source='folder', path=path, fps=60.0, camera_info_url=url)
    assert node.trigger_activate() == OK
    bench.wait(lambda: statuses and statuses[-1].message.startswith('end of input'), 'the end')
    assert not images
    assert node.monitor.dropped_invalid_frames == 4


@pytest.mark.parametrize(
    ('parameters', 'expected'),
    [
        ({'source': 'video'}, 'parameter path is empty; source video needs it'),
        ({'source': 'video', 'path': '/no/such.mp4'}, "parameter path is '/no/such.mp4'"),
        ({'source': 'folder', 'path': __file__}, 'expected a folder'),
        ({'source': 'v4l2', 'device': '97'}, '/dev/video97 is not there'),
        ({**PATTERN, 'width': 40}, 'at least 96x32'),
        ({**PATTERN, 'camera_info_url': '/no/such.yaml'}, '/no/such.yaml: no such calibration'),
    ],
)
def test_bad_input_is_named_and_the_node_configures_once_it_is_put_right(
    bench, topics, parameters, expected
):
    _, _, statuses = topics
    node = bench.run(csi_camera.make, **parameters)
    assert node.trigger_configure() == FAILED
    bench.wait(
        lambda: statuses and expected in statuses[-1].message
        and statuses[-1].state == 'unconfigured',
        expected,
    )
    for name, value in {**PATTERN, 'camera_info_url': ''}.items():
        assert node.set_parameters([Parameter(name, value=value)])[0].successful
    assert node.trigger_configure() == OK


def test_a_video_that_vanishes_between_lives_fails_to_activate(bench, topics, tmp_path):
    _, _, statuses = topics
    path = tmp_path / 'a.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 60.0, SIZE)
    for _ in range(3):
        writer.write(np.full((*SIZE[::-1], 3), 90, np.uint8))
    writer.release()
    node = configured(bench, source='video', path=str(path))
    assert node.trigger_activate() == OK
    assert node.trigger_deactivate() == OK
    path.unlink()
    assert node.trigger_activate() == FAILED
    bench.wait(
        lambda: statuses and 'which is not there' in statuses[-1].message
        and statuses[-1].state == 'inactive',
        'the reason',
    )


class Stalling:
    """A pattern that falls silent after some frames, as a pipeline of nvargus does."""

    opened = 0

    def __init__(self, request):
        Stalling.opened += 1
        self._pattern = PatternSource(request)
        self.calibration, self.close = self._pattern.calibration, self._pattern.close
        self._left = 5

    def read(self, stopping, timeout_s):
        if not self._left:
            stopping.wait(0.01)
            return None
        frame = self._pattern.read(stopping, timeout_s)
        self._left -= frame is not None
        return frame


def test_a_pipeline_that_falls_silent_is_built_anew(bench, topics, monkeypatch):
    images, _, statuses = topics
    monkeypatch.setattr(Stalling, 'opened', 0)
    monkeypatch.setattr(csi_camera, 'open_gstreamer', lambda _, request: Stalling(request))
    node = configured(bench, **{**PATTERN, 'source': 'argus', 'stall_s': 0.1, 'fps': 60.0})
    assert node.trigger_activate() == OK
    bench.wait(lambda: Stalling.opened == 3 and len(images) > 10, 'two pipelines more')
    assert node.trigger_deactivate() == OK
    bench.wait(
        lambda: all(int(values(statuses)[name]) >= 2 for name in ('stalls', 'reopened')),
        'the stalls in the status',
    )
    assert values(statuses)['losses'] == '0'


def test_slow_on_purpose_is_not_stalled(bench, topics):
    images, _, statuses = topics
    node = configured(bench, **{**PATTERN, 'stall_s': 0.1, 'fps': 2.0})
    assert node.trigger_activate() == OK
    bench.wait(lambda: len(images) > 2, 'images')
    bench.wait(lambda: 'stalls' in values(statuses), 'the status')
    assert values(statuses)['stalls'] == '0'


def test_metadata_tells_number_and_clock_of_every_image(bench, topics):
    images, _, statuses = topics
    metadata = bench.listen(MetadataMessage, 'metadata', 100)
    node = configured(bench, **PATTERN)
    assert node.trigger_activate() == OK
    bench.wait(lambda: len(metadata) > 3 and len(images) > 3, 'metadata')
    stamps = {nanoseconds(image.header.stamp): read_number(to_array(image)) for image in images}
    told = {nanoseconds(each.header.stamp): json.loads(each.json_data) for each in metadata}
    common = sorted(set(stamps) & set(told))
    assert len(common) >= 2
    for stamp in common:
        assert told[stamp] == {
            'frame_number': stamps[stamp],
            'clock_domain': 'system_time',
            'frame_timestamp': pytest.approx(stamp * 1e-6),
        }
    bench.wait(lambda: values(statuses).get('clock_mapping') == 'arrival', 'the status')


def values(statuses):
    return {each.key: each.value for each in statuses[-1].values} if statuses else {}


def test_each_step_counts_against_the_budget(bench, topics, monkeypatch):
    node = configured(bench, **PATTERN)
    begun = []
    monkeypatch.setattr(node, 'in_budget', lambda: nullcontext(begun.append('frame')))
    assert node.trigger_activate() == OK
    images, _, _ = topics
    bench.wait(lambda: len(images) > 2, 'images')
    assert len(begun) >= len(images)

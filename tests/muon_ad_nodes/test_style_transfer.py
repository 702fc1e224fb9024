"""The style transfer node in this process, on a network that negates pictures."""

import shutil
from contextlib import nullcontext

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image

from muon_ad.images import to_rgb
from muon_ad_msgs.msg import TaskStatus
from muon_ad_msgs.srv import SetStyle
from muon_ad_nodes.nodes import style_transfer
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.images import to_message

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture
def node(bench, negative_package):
    """The node, active."""
    node = bench.run(style_transfer.make, model=str(negative_package))
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    return node


@pytest.fixture
def send(bench, node):
    """Publish a frame of one grey level; stamps count up from 1."""
    publisher = bench.probe.create_publisher(Image, 'image_raw', qos.PUBLISH)
    bench.wait(lambda: publisher.get_subscription_count() > 0, 'the node to subscribe')
    sent = []

    def send(message=None, grey=10):
        stamp = Time(sec=len(sent) + 1)
        if message is None:
            pixels = np.full((48, 64, 3), grey, np.uint8)
            message = to_message(pixels, 'rgb8', stamp, 'lens')
        sent.append(message)
        publisher.publish(message)

    return send


@pytest.fixture
def results(bench, node):
    """Everything the node publishes."""
    results = bench.listen(Image, 'style/image')
    bench.wait(lambda: node._publisher.get_subscription_count() > 0, 'the probe to subscribe')
    return results


def request(bench, style) -> SetStyle.Response:
    client = bench.probe.create_client(SetStyle, '/style_transfer/set_style')
    assert client.wait_for_service(10)
    reply = client.call_async(SetStyle.Request(style=style))
    bench.wait(reply.done, 'the reply')
    return reply.result()


def test_result_has_the_header_of_its_frame(bench, send, results):
    send(grey=10)
    bench.wait(lambda: results, 'a stylised frame')
    assert (results[0].header.stamp.sec, results[0].header.frame_id) == (1, 'lens')
    assert results[0].encoding == 'rgb8'
    assert (to_rgb(results[0]) == 245).all()


def test_other_sizes_and_encodings(bench, send, results):
    for encoding, channels in (('bgr8', 3), ('mono8', 1), ('bgra8', 4)):
        pixels = np.full((100, 200, channels), 55, np.uint8)
        before = len(results)
        send(to_message(pixels[..., 0] if channels == 1 else pixels, encoding, Time(), ''))
        bench.wait(lambda before=before: len(results) > before, f'a result for {encoding}')
        assert to_rgb(results[-1]).shape == (48, 64, 3)
        assert (to_rgb(results[-1]) == 200).all()


def test_bad_frames_are_counted_and_the_node_lives_on(bench, node, send, results):
    good = to_message(np.zeros((48, 64, 3), np.uint8), 'rgb8', Time(), '')
    for number, (field, value) in enumerate(
        [('encoding', 'cmyk'), ('height', 0), ('width', 40_000), ('step', 7), ('data', b'')]
    ):
        broken = to_message(np.zeros((48, 64, 3), np.uint8), 'rgb8', Time(), '')
        setattr(broken, field, value)
        send(broken)
        bench.wait(
            lambda n=number: node.monitor.dropped_invalid_frames == n + 1, f'{field} to be counted'
        )
    assert not results
    send(good)
    bench.wait(lambda: results, 'a result after broken frames')


def test_style_changes_live(bench, node, send, results, tmp_path):
    send(grey=100)
    bench.wait(lambda: len(results) == 1, 'a frame in the first style')
    response = request(bench, 'light')
    assert response.success
    assert list(response.available) == ['dark', 'light']
    send(grey=100)
    bench.wait(lambda: len(results) == 2, 'a frame in the second style')
    assert (to_rgb(results[0]) == 155).all()
    assert (to_rgb(results[1]) == 195).all()
    cv2.imwrite(str(tmp_path / 'own.png'), np.full((300, 300, 3), 20, np.uint8))
    assert request(bench, str(tmp_path / 'own.png')).success
    send(grey=100)
    bench.wait(lambda: len(results) == 3, 'a frame in the own style')
    assert (to_rgb(results[2]) == 175).all()


def test_bad_style_is_refused_and_the_old_one_stays(bench, node, send, results, tmp_path):
    (tmp_path / 'text.png').write_text('not an image')
    for bad in ('nonsense', str(tmp_path), str(tmp_path / 'text.png'), ''):
        response = request(bench, bad)
        assert not response.success
        assert response.message
    send(grey=100)
    bench.wait(lambda: results, 'a frame')
    assert (to_rgb(results[0]) == 155).all()


def test_status_names_model_style_and_provider(bench, node, send, results):
    statuses = bench.listen(TaskStatus, '/style_transfer/status', qos.LATCHED)
    send()
    bench.wait(lambda: statuses and statuses[-1].frames == 1, 'the frame to be counted')
    status = statuses[-1]
    assert (status.model, status.variant, status.style) == ('negative', 'small', 'dark')
    assert status.execution_provider == 'CPU'
    assert {stage.name for stage in status.stages} == {
        'capture', 'wait', 'preprocess', 'infer', 'publish', 'total',
    }


@pytest.mark.parametrize(
    'parameters, complaint',
    [
        ({'model': 'nowhere'}, "parameter model is 'nowhere'"),
        ({'style': 'nowhere'}, 'nowhere'),
        ({'variant': 'huge'}, "no variant 'huge'"),
        ({'providers': ['abacus']}, "providers holds 'abacus'"),
    ],
)
def test_bad_parameter_fails_configure_with_a_reason(
    bench, negative_package, parameters, complaint
):
    chosen = {'model': str(negative_package), **parameters}
    node = bench.run(style_transfer.make, **chosen)
    statuses = bench.listen(TaskStatus, '/style_transfer/status', qos.LATCHED)
    assert node.trigger_configure() == FAILURE
    bench.wait(lambda: any(complaint in s.message for s in statuses), 'the reason in the status')


def test_changed_model_file_is_refused_until_it_is_mended(bench, negative_package, tmp_path):
    package = shutil.copytree(negative_package, tmp_path / 'package')
    good = (package / 'transfer.onnx').read_bytes()
    (package / 'transfer.onnx').write_bytes(good[:-1])
    node = bench.run(style_transfer.make, model=str(package))
    statuses = bench.listen(TaskStatus, '/style_transfer/status', qos.LATCHED)
    assert node.trigger_configure() == FAILURE
    bench.wait(lambda: any('sha256' in s.message for s in statuses), 'the reason in the status')
    (package / 'transfer.onnx').write_bytes(good)
    assert node.trigger_configure() == SUCCESS


def test_the_work_on_a_frame_counts_against_the_budget(bench, node, send, results, monkeypatch):
    begun = []
    monkeypatch.setattr(node, 'in_budget', lambda: nullcontext(begun.append('frame')))
    send()
    bench.wait(lambda: results, 'the result')
    assert begun == ['frame']

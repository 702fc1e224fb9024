"""Faults on purpose in a camera node: enabled or not, by schedule and by service, counted."""

from types import SimpleNamespace

import pytest
from rcl_interfaces.msg import Log
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from muon_ad_msgs.msg import TaskStatus
from muon_ad_msgs.srv import InjectFault
from muon_ad_nodes.nodes import csi_camera
from muon_ad_nodes.nodes import realsense_camera
from muon_ad_nodes.parts import fault_injection
from muon_ad_nodes.parts import qos

OK = TransitionCallbackReturn.SUCCESS
FAILED = TransitionCallbackReturn.FAILURE
CAMERA = {'source': 'test_pattern', 'width': 96, 'height': 32, 'fps': 60.0}


@pytest.fixture
def camera(bench):
    """Configure a camera with these parameters; `inject` and what it publishes beside it."""

    def make(**parameters):
        node = bench.run(csi_camera.make, **CAMERA, **parameters)
        assert node.trigger_configure() == OK
        bench.wait(lambda: node._topic.wanted, 'the subscription to be seen')
        return node

    return make


@pytest.fixture
def images(bench):
    return bench.listen(Image, 'image_raw', 100)


@pytest.fixture
def statuses(bench):
    return bench.listen(TaskStatus, 'csi_camera/status', qos.LATCHED)


@pytest.fixture
def logged(bench):
    every = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    return bench.listen(Log, '/rosout', every)


@pytest.fixture
def inject(bench):
    client = bench.probe.create_client(InjectFault, 'csi_camera/inject_fault')

    def call(text: str) -> InjectFault.Response:
        bench.wait(client.service_is_ready, 'the service')
        reply = client.call_async(InjectFault.Request(fault=text))
        bench.wait(reply.done, 'the reply')
        return reply.result()

    return call


def counts(statuses) -> dict[str, int]:
    return {value.key: int(value.value) for value in statuses[-1].values
            if value.key.startswith('fault ')}


def test_a_schedule_begins_with_each_activation_and_is_counted(
    bench, camera, images, statuses, monkeypatch
):
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(fault_injection, 'time', clock)
    node = camera(faults__enabled=True, faults__schedule=['empty for=0.1', 'encoding at=0.2'])
    for _ in range(2):
        images.clear()
        assert node.trigger_activate() == OK
        bench.wait(lambda: images, 'the first image')
        assert not images[0].data
        clock.now += 0.15
        bench.wait(lambda: images[-1].encoding == 'rgb8' and images[-1].data, 'a good image')
        clock.now += 0.1
        bench.wait(lambda: images[-1].encoding == 'bogus8', 'the second fault')
        assert node.trigger_deactivate() == OK
    bench.wait(lambda: statuses[-1].state == 'inactive', 'the last status')
    assert counts(statuses)['fault empty'] >= 2 and counts(statuses)['fault encoding'] >= 2
    assert statuses[-1].message == ''


def test_injected_faults_are_done_and_clear_ends_them(bench, camera, images, statuses, inject):
    node = camera(faults__enabled=True)
    infos = bench.listen(CameraInfo, 'camera_info', 100)
    assert node.trigger_activate() == OK
    bench.wait(lambda: images, 'images')
    assert inject('short for=60').message.startswith('fault accepted: short at=')
    bench.wait(lambda: len(images[-1].data) == 96 * 32 * 3 // 2, 'a short image')
    assert inject('no_info for=60').success
    assert inject('clear').message == '2 faults ended'
    before = len(infos)
    bench.wait(lambda: len(images[-1].data) == 96 * 32 * 3, 'a whole image')
    bench.wait(lambda: len(infos) > before + 1, 'camera_info')
    bench.wait(lambda: counts(statuses).get('fault short', 0) > 0, 'the count in the status')


def test_every_message_is_published_or_counted(bench, camera, images, inject):
    node = camera(faults__enabled=True)
    assert node.trigger_activate() == OK
    bench.wait(lambda: images, 'images')
    faults = (
        'stall', 'reorder', 'slow ms=50', 'unplug stream=image', 'duplicate stream=image',
        'slow ms=50 stream=image',
    )
    for fault in faults:
        assert inject(f'{fault} for=0.2').success
        bench.wait(lambda: not node._faults._plan.pending(), f'the end of {fault}')
    assert inject('reorder for=9 stream=image').success
    bench.wait(lambda: node._faults._plan.counts['reorder'] > 9, 'swapped images')
    assert node.trigger_deactivate() == OK
    counts = node._faults._plan.counts
    # What happens to whole frames does so before the camera counts them.
    expected = (
        node.monitor.frames - counts['unplug'] - counts['cut off'] + counts['duplicate']
    )
    assert node.monitor.received_frames == node.monitor.frames
    bench.wait(lambda: len(images) == expected, f'{expected} images, got {len(images)}: {counts}')


def test_faults_that_are_not_enabled_are_refused_and_not_scheduled(
    camera, bench, images, inject, logged
):
    node = camera(faults__schedule=['stall for=1000'])
    said = 'no fault of faults.schedule is done, as faults.enabled is false'
    bench.wait(lambda: said in [line.msg for line in logged], said)
    assert node.trigger_activate() == OK
    bench.wait(lambda: len(images) > 2, 'images')
    reply = inject('stall')
    assert not reply.success and 'set parameter faults.enabled' in reply.message


def test_what_cannot_be_done_is_refused_with_the_reason(camera, images, inject):
    node = camera(faults__enabled=True)
    reply = inject('stall')
    assert not reply.success and 'the node is not active' in reply.message
    assert node.trigger_activate() == OK
    reply = inject('stal')
    assert not reply.success
    assert "kind is 'stal'; expected one of unplug, stall, slow" in reply.message


@pytest.mark.parametrize('enabled', [True, False])
@pytest.mark.parametrize(('fault', 'expected'), [
    ('stall at=x', "parameter faults.schedule: fault 'stall at=x': at is 'x'"),
    ('no_depth', "fault 'no_depth at=0 for=1': the streams here with depth are none"),
])  # fmt: skip
def test_a_schedule_that_makes_no_sense_fails_to_configure(
    bench, statuses, enabled, fault, expected
):
    node = bench.run(
        csi_camera.make, **CAMERA, faults__enabled=enabled, faults__schedule=[fault])
    assert node.trigger_configure() == FAILED
    bench.wait(lambda: statuses and expected in statuses[-1].message, expected)


def test_faults_of_the_schedule_that_touched_nothing_are_told(camera, bench, images, logged):
    node = camera(faults__enabled=True, faults__schedule=['empty for=1000', 'stall at=1000'])
    assert node.trigger_activate() == OK
    bench.wait(lambda: any(not image.data for image in images), 'the first fault')
    assert node.trigger_deactivate() == OK
    bench.wait(lambda: any('touched nothing' in line.msg for line in logged), 'the warning')
    told, = (line.msg for line in logged if 'touched nothing' in line.msg)
    assert told.startswith(
        "parameter faults.schedule: fault 'stall at=1000 for=1' touched nothing: it begins after"
    )


@pytest.mark.parametrize(('make', 'fault', 'expected'), [
    (csi_camera.make, 'misaligned', 'the streams here with depth are none'),
    (realsense_camera.make, 'no_info stream=color', 'are aligned_info, color_info, depth_info'),
    (realsense_camera.make, 'no_depth stream=color', 'with depth are aligned, depth'),
])  # fmt: skip
def test_a_fault_that_can_touch_nothing_is_refused(bench, make, fault, expected):
    source = CAMERA if make is csi_camera.make else {'source': 'simulated'}
    node = bench.start(make, **source, faults__enabled=True)
    client = bench.probe.create_client(InjectFault, f'{node.get_name()}/inject_fault')
    bench.wait(client.service_is_ready, 'the service')
    reply = client.call_async(InjectFault.Request(fault=fault))
    bench.wait(reply.done, 'the reply')
    assert not reply.result().success and expected in reply.result().message

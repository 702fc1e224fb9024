"""The RealSense node on the SDK's software device: topics, geometry, stamps, life cycle."""

import re
import threading
import time

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from rclpy import Parameter
from rclpy.lifecycle import TransitionCallbackReturn
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from muon_ad.images import to_array
from muon_ad.scene import Scene
from muon_ad.scene import View
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.nodes import realsense_camera
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts import realsense_sdk
from muon_ad_nodes.parts.realsense_frames import Framer
from muon_ad_nodes.parts.realsense_sdk import Profile
from muon_ad_nodes.parts.realsense_sdk import rs
from muon_ad_nodes.parts.realsense_sdk import Wishes
from muon_ad_nodes.parts.realsense_simulated import COLOR_FOV_DEG
from muon_ad_nodes.parts.realsense_simulated import SimulatedCamera
from muon_ad_nodes.parts.source import SourceError
from muon_ad_nodes.parts.stamps import nanoseconds

RUNNING = threading.Event()     # never set
STREAMS = ('color', 'depth')
OK = TransitionCallbackReturn.SUCCESS
FAILED = TransitionCallbackReturn.FAILURE
SIMULATED = {'source': 'simulated', 'rgb_camera__color_profile': '320x240x30',
             'depth_module__depth_profile': '320x240x30'}
IMAGES = {
    'color/image_raw': ('rgb8', 'camera_color_optical_frame'),
    'depth/image_rect_raw': ('16UC1', 'camera_depth_optical_frame'),
    'aligned_depth_to_color/image_raw': ('16UC1', 'camera_color_optical_frame'),
}


def started(bench, **parameters):
    node = bench.run(realsense_camera.make, **{**SIMULATED, **parameters})
    assert node.trigger_configure() == OK
    return node


def rolled_back(statuses):
    return statuses and statuses[-1].message and statuses[-1].state == 'unconfigured'


def listen_to_images(bench):
    return {topic: bench.listen(Image, f'/camera/{topic}', qos.SENSOR) for topic in IMAGES}


def test_every_topic_of_realsense_ros_is_published(bench):
    node = started(bench)
    images = listen_to_images(bench)
    infos = {
        topic: bench.listen(CameraInfo, f'/camera/{topic.rpartition("/")[0]}/camera_info')
        for topic in IMAGES
    }
    extrinsics = bench.listen(TransformStamped, '/camera/extrinsics/depth_to_color', qos.LATCHED)
    assert node.trigger_activate() == OK
    bench.wait(lambda: all(images.values()) and all(infos.values()), 'images and camera_info')
    bench.wait(lambda: extrinsics, 'extrinsics')
    for topic, (encoding, frame_id) in IMAGES.items():
        image, info = images[topic][0], infos[topic][0]
        assert (image.encoding, image.header.frame_id) == (encoding, frame_id)
        assert (image.width, image.height) == (info.width, info.height) == (320, 240)
        assert info.header.frame_id == frame_id
        assert info.distortion_model == 'plumb_bob' and len(info.d) == 5
        assert info.k[0] > 0 and info.p[0] == info.k[0]
    assert extrinsics[0].header.frame_id == 'camera_color_optical_frame'
    assert extrinsics[0].child_frame_id == 'camera_depth_optical_frame'
    assert extrinsics[0].transform.translation.x == pytest.approx(-0.015)
    assert extrinsics[0].transform.rotation.w == pytest.approx(1.0)


def matched(images):
    """Framesets of which every image came, by stamp."""
    by_stamp = [
        {nanoseconds(image.header.stamp): image for image in list(received)}
        for received in images.values()
    ]
    common = sorted(set.intersection(*(set(stamps) for stamps in by_stamp)))
    return [(stamp, *(stamps[stamp] for stamps in by_stamp)) for stamp in common]


def test_aligned_depth_is_true_to_the_scene(bench):
    """One stamp for the set, and aligned depth is what the colour camera itself would measure."""
    node = started(bench)
    images = listen_to_images(bench)
    assert node.trigger_activate() == OK
    bench.wait(lambda: len(matched(images)) >= 3, 'three complete sets')
    scene = Scene(View.from_fov(320, 240, COLOR_FOV_DEG))
    view = scene.view
    errors = []
    for stamp, color, _, aligned in matched(images)[:3]:
        t = stamp * 1e-9
        np.testing.assert_array_equal(to_array(color), scene.rgb(t))
        depth, truth = to_array(aligned) / 1000, scene.depth(t)
        seen = depth > 0
        assert seen.mean() > 0.9
        assert np.median(np.abs(depth - truth)[seen] / truth[seen]) < 0.01
        for found in scene.truth(t):
            x, y, z = found.centre
            u, v = round(view.cx + view.fx * x / z), round(view.cy + view.fy * y / z)
            if 0 <= u < 320 and 0 <= v < 240 and abs(truth[v, u] - z) < 1e-3:
                errors.append(abs(depth[v, u] - z) / z)
    assert len(errors) >= 6
    assert np.median(errors) < 0.02


def test_status_counts_frames_and_stages(bench):
    node = started(bench)
    listen_to_images(bench)
    statuses = bench.listen(TaskStatus, '/camera/status', qos.LATCHED)
    assert node.trigger_activate() == OK
    bench.wait(lambda: statuses and statuses[-1].frames > 5, 'a status with frames')
    status = statuses[-1]
    assert status.state == 'active' and status.message == ''
    assert status.received >= status.frames and status.dropped_invalid == 0
    assert {stage.name for stage in status.stages} == {'capture', 'preprocess', 'publish', 'total'}


def test_streams_can_be_left_out(bench):
    node = started(bench, enable_depth=False)
    color = bench.listen(Image, '/camera/color/image_raw', qos.SENSOR)
    assert node.trigger_activate() == OK
    bench.wait(lambda: color, 'colour alone')
    topics = {name for name, _ in bench.probe.get_topic_names_and_types()}
    assert '/camera/depth/image_rect_raw' not in topics
    assert '/camera/aligned_depth_to_color/image_raw' not in topics


def test_camera_name_is_the_prefix_of_frames(bench):
    node = started(bench, camera_name='head', enable_color=False)
    depth = bench.listen(Image, '/camera/depth/image_rect_raw', qos.SENSOR)
    assert node.trigger_activate() == OK
    bench.wait(lambda: depth, 'depth alone')
    assert depth[0].header.frame_id == 'head_depth_optical_frame'


def test_deactivation_stops_the_stream_and_activation_resumes_it(bench):
    node = started(bench)
    color = bench.listen(Image, '/camera/color/image_raw', qos.SENSOR)
    for _ in range(2):
        color.clear()
        assert node.trigger_activate() == OK
        bench.wait(lambda: len(color) > 2, 'images')
        assert node.trigger_deactivate() == OK
        assert not [t for t in threading.enumerate() if t.name == 'capture']
    frames = node.monitor.frames
    assert node.trigger_cleanup() == OK
    assert node.monitor.frames == frames


def test_simulated_time_gives_the_stamps(bench):
    node = started(bench, use_sim_time=True)
    color = bench.listen(Image, '/camera/color/image_raw', qos.SENSOR)
    clock = bench.probe.create_publisher(Clock, '/clock', 10)
    now = Clock()
    now.clock.sec = 1000
    bench.wait(lambda: clock.get_subscription_count() > 0, 'the clock to be subscribed')
    clock.publish(now)
    bench.wait(lambda: node.get_clock().now().nanoseconds == 1_000_000_000_000, 'simulated time')
    assert node.trigger_activate() == OK
    bench.wait(lambda: color, 'an image')
    assert color[0].header.stamp.sec == 1000


@pytest.mark.parametrize(
    ('parameters', 'expected'),
    [
        ({'rgb_camera__color_profile': '640 by 480'}, 'rgb_camera.color_profile.*640x480x30'),
        ({'depth_module__depth_profile': '0x0x0'}, 'depth_module.depth_profile'),
        ({'rgb_camera__color_profile': '320x240x15'}, 'equal frame rates'),
        ({'enable_color': False, 'enable_depth': False}, 'enable_color and enable_depth'),
    ],
)
def test_bad_parameters_are_named_and_the_node_lives_on(bench, parameters, expected):
    node = bench.run(realsense_camera.make, **{**SIMULATED, **parameters})
    statuses = bench.listen(TaskStatus, '/camera/status', qos.LATCHED)
    assert node.trigger_configure() == FAILED
    bench.wait(lambda: rolled_back(statuses), 'a message in the status')
    assert re.search(expected, statuses[-1].message)
    for name, value in SIMULATED.items():
        node.set_parameters([Parameter(name.replace('__', '.'), value=value)])
    node.set_parameters([Parameter('enable_color', value=True)])
    assert node.trigger_configure() == OK


def test_without_a_camera_the_error_says_so(bench):
    if rs.context().query_devices().size():
        pytest.skip('a RealSense is connected')
    node = bench.run(realsense_camera.make, source='device', serial_no='0123456789')
    statuses = bench.listen(TaskStatus, '/camera/status', qos.LATCHED)
    assert node.trigger_configure() == FAILED
    bench.wait(lambda: rolled_back(statuses), 'a message in the status')
    assert 'no RealSense is connected (looked for 0123456789)' in statuses[-1].message


def test_a_late_camera_stays_synchronised_and_does_not_lag():
    """Gaps of many frames neither split framesets nor leave older ones queued."""
    now = iter(range(10_000, 20_000))
    profile = Profile(96, 72, 60)
    framer = Framer(STREAMS, align=False)
    camera = SimulatedCamera(Wishes(profile, profile), framer, lambda: next(now))
    complete = 0
    for turn in range(12):
        if turn in (5, 6, 9):
            time.sleep(0.1)     # the work of a camera on a busy machine
        frame = camera.read(RUNNING, 1.0)
        if frame is not None:
            complete += 1
            assert set(frame.pictures) == set(STREAMS)
            assert frame.arrival_ns == 10_000 + turn
    camera.close()
    assert complete == 11       # all but the first, from which the SDK learns its streams


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(realsense_sdk, 'rs', None)
    monkeypatch.setattr(realsense_sdk, '_WHY_NOT', 'libusb-1.0.so.0', raising=False)
    with pytest.raises(SourceError, match='libusb-1.0.so.0.*pip install'):
        realsense_sdk.require_sdk()

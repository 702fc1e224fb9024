"""Recordings of Intel's SDK as a source, made here from its software device."""

import gc
import threading
import time

import numpy as np
import pytest
from rcl_interfaces.msg import Log
from rclpy.lifecycle import TransitionCallbackReturn
from realsense_bag import write_bag
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image
from std_srvs.srv import Empty

from muon_ad.images import to_array
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.nodes import realsense_camera
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.metadata_topic import metadata_of
from muon_ad_nodes.parts.realsense_frames import Framer
from muon_ad_nodes.parts.realsense_recorded import RecordedCamera
from muon_ad_nodes.parts.realsense_sdk import Profile
from muon_ad_nodes.parts.realsense_sdk import rs
from muon_ad_nodes.parts.realsense_sdk import Wishes
from muon_ad_nodes.parts.realsense_simulated import SimulatedCamera
from muon_ad_nodes.parts.source import EndOfInput
from muon_ad_nodes.parts.source import SourceError
from muon_ad_nodes.parts.stamps import nanoseconds

OK = TransitionCallbackReturn.SUCCESS
FAILED = TransitionCallbackReturn.FAILURE
RUNNING = threading.Event()     # never set
BOTH = ('color', 'depth')
PROFILE = Profile(96, 72, 30)
FRAMES = 20


def record(path, wishes):
    """Record FRAMES rendered framesets; frame n shows the scene at second n."""
    framer = Framer(tuple(name for name in BOTH if getattr(wishes, name)), align=False)
    camera = SimulatedCamera(wishes, framer, time.time_ns)
    recorder = rs.recorder(str(path), camera._device)
    sensors, queue = recorder.query_sensors(), rs.frame_queue(2 * FRAMES)
    for sensor in sensors:
        sensor.open(sensor.get_stream_profiles())
        sensor.start(queue)
    for number in range(FRAMES):
        for stream in camera._streams:
            stream.push(number * 1_000_000_000, number)
            # The recorder writes in a thread of its own, and drops what comes too fast.
            queue.wait_for_frame(5000)
        time.sleep(1 / PROFILE.fps)     # the recorder stamps with the time of the machine
    for sensor in sensors:
        sensor.stop()
        sensor.close()
    del recorder, sensors, sensor
    gc.collect()    # closes the file
    return path


@pytest.fixture(scope='module')
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp('recording')
    return record(folder / 'both.db3', Wishes(PROFILE, PROFILE))


def play(path, work_s=0.0, streams=BOTH, **options):
    """Read to the end, working on each frame; returns the frames' numbers and the last words."""
    options = {'real_time': False, 'loop': False, **options}
    camera = RecordedCamera(path, Framer(streams, align=False), time.time_ns, **options)
    numbers = []
    try:
        while len(numbers) < 100:
            frame = camera.read(RUNNING, 1.0)
            if frame is not None:
                numbers.append(frame.number)
                time.sleep(work_s)
    except EndOfInput as end:
        return numbers, str(end)
    finally:
        camera.close()
    return numbers, ''


@pytest.mark.parametrize('work_s', [0.0, 0.05])
def test_as_fast_as_possible_means_every_frame_however_slow_the_reader(recording, work_s):
    numbers, end = play(recording, work_s)
    assert numbers == list(range(FRAMES))
    assert end == f'end of input after {FRAMES} frames'


def test_in_real_time_it_takes_as_long_as_it_took(recording):
    begun = time.monotonic()
    numbers, end = play(recording, real_time=True)
    assert time.monotonic() - begun > 0.8 * FRAMES / PROFILE.fps
    assert numbers == sorted(set(numbers)) and len(numbers) > FRAMES // 4
    assert end == f'end of input after {len(numbers)} frames'


def test_a_recording_loops(recording):
    numbers, end = play(recording, loop=True)
    assert numbers[:2 * FRAMES] == 2 * list(range(FRAMES)) and not end


def test_a_frame_is_what_was_recorded(recording):
    framer = Framer(BOTH, align=True)
    camera = RecordedCamera(recording, framer, time.time_ns, real_time=False, loop=False)
    frame = None
    while frame is None or frame.number < 5:
        frame = camera.read(RUNNING, 1.0)
    scene = SimulatedCamera(Wishes(PROFILE, PROFILE), framer, time.time_ns)._streams
    depth, color = (stream.scene for stream in scene)
    truth = np.rint(depth.depth(5.0) * 1000)
    np.testing.assert_array_equal(frame.pictures['depth'].pixels(), truth)
    found = frame.pictures['color'].pixels().astype(float)      # recorded as JPEG
    assert np.mean(np.abs(found - color.rgb(5.0))) < 8
    assert (frame.pictures['aligned'].pixels() > 0).mean() > 0.8
    assert frame.domain == 'hardware_clock'
    assert frame.device_ns == pytest.approx(5e9 / PROFILE.fps, abs=1000)
    assert camera.calibration('color').k[0] == pytest.approx(color.view.fx)
    assert framer.extrinsics.translation[0] == pytest.approx(-0.015)
    camera.close()


def test_a_bag_of_the_older_sdk_plays_with_its_metadata(tmp_path):
    path = write_bag(tmp_path / 'old.bag', FRAMES)
    assert play(path) == (list(range(FRAMES)), f'end of input after {FRAMES} frames')
    framer = Framer(BOTH, align=False)
    camera = RecordedCamera(path, framer, time.time_ns, real_time=False, loop=False)
    frame = None
    while frame is None or frame.number < 7:
        frame = camera.read(RUNNING, 1.0)
    assert np.all(frame.pictures['color'].pixels() == 7)
    assert np.all(frame.pictures['depth'].pixels() == 7 * 0x0101)
    assert frame.domain == 'global_time'
    assert frame.device_ns == pytest.approx(100e9 + 7e9 / 30, abs=1000)
    metadata = metadata_of(frame, 'depth')
    assert metadata['actual_exposure'] == 4000 and metadata['frame_number'] == 7
    assert metadata['clock_domain'] == 'global_time'
    assert metadata['frame_timestamp'] == pytest.approx(100_233.333)
    assert camera.calibration('depth').k[0] == 90.0
    camera.close()


def test_what_is_no_recording_is_named(recording, tmp_path):
    for path, expected in (
        (tmp_path / 'none.db3', 'which is not there; expected a recording'),
        (tmp_path, 'which is a folder; expected a recording'),
        (tmp_path / 'empty.bag', r'the file is empty \(0 bytes\)'),
        (tmp_path / 'text.db3', 'text.db3: the SDK cannot play it.*expected a whole recording'),
        (tmp_path / 'text.bag', 'text.bag: the SDK cannot play it.*expected a whole recording'),
        (tmp_path / 'cut.db3', 'cut.db3: the SDK cannot play it.*malformed'),
        (tmp_path / 'video.mp4', 'ending in .bag or .db3'),
    ):
        if path.stem in ('text', 'video'):
            path.write_text('not a recording\n' * 100)
        if path.stem == 'empty':
            path.touch()
        if path.stem == 'cut':
            whole = recording.read_bytes()
            path.write_bytes(whole[:len(whole) // 2])
        with pytest.raises(SourceError, match=expected):
            play(path)


def test_a_bag_with_damaged_records_is_not_given_to_the_sdk(tmp_path, monkeypatch):
    """Which would look for the next record for ever, and not end by a signal either."""
    whole = bytearray(write_bag(tmp_path / 'whole.bag', 90).read_bytes())
    third = len(whole) // 3
    whole[third:third + 3000] = b'\xff' * 3000
    (tmp_path / 'damaged.bag').write_bytes(whole)
    monkeypatch.setattr(RecordedCamera, '_open', lambda _: pytest.fail('the SDK got it'))
    expected = rf'damaged.bag: the SDK cannot play it .*stopped at byte \d+ of {len(whole)}: no'
    with pytest.raises(SourceError, match=expected):
        play(tmp_path / 'damaged.bag')


def test_there_is_nothing_to_reset_while_a_recording_plays(bench, recording):
    logged = bench.listen(Log, '/rosout', 100)
    color = bench.listen(Image, '/camera/color/image_raw', qos.SENSOR)
    node = bench.start(
        realsense_camera.make, source='recording', path=str(recording), loop=True
    )
    bench.wait(lambda: color, 'images')
    client = bench.probe.create_client(Empty, '/camera/hw_reset')
    bench.wait(client.service_is_ready, 'the service')
    bench.wait(client.call_async(Empty.Request()).done, 'the reply')
    said = 'nothing to reset: plays a recording'
    bench.wait(lambda: any(line.msg == said for line in logged), said)
    color.clear()
    bench.wait(lambda: len(color) > 3, 'more images')
    assert node._capture._source.values()['reopened'] == '0'


def test_a_stream_that_was_not_recorded_is_named(tmp_path):
    path = record(tmp_path / 'depth.db3', Wishes(None, PROFILE))
    with pytest.raises(SourceError, match='recorded without color .*set enable_color to false'):
        play(path)
    assert play(path, streams=('depth',))[0] == list(range(FRAMES))


def test_the_node_plays_a_recording_to_its_end(bench, recording):
    node = bench.run(
        realsense_camera.make, source='recording', path=str(recording), real_time=False
    )
    images = bench.listen(Image, '/camera/color/image_raw', 2 * FRAMES)
    infos = bench.listen(CameraInfo, '/camera/color/camera_info', 2 * FRAMES)
    statuses = bench.listen(TaskStatus, '/camera/status', qos.LATCHED)
    assert node.trigger_configure() == OK
    bench.wait(lambda: node._topics['color'].wanted, 'the subscription to be seen')
    assert node.trigger_activate() == OK
    bench.wait(lambda: statuses and statuses[-1].message.startswith('end of input'), 'the end')
    bench.wait(lambda: len(images) == FRAMES, 'all images')
    assert statuses[-1].message == f'end of input after {FRAMES} frames'
    assert statuses[-1].state == 'active'
    assert (images[0].width, images[0].height) == (infos[0].width, infos[0].height) == (96, 72)
    assert to_array(images[0]).std() > 10
    stamps = [nanoseconds(image.header.stamp) for image in images]
    assert stamps == sorted(set(stamps))
    assert abs(time.time_ns() - stamps[-1]) < 60e9


def test_the_node_needs_a_path(bench):
    node = bench.run(realsense_camera.make, source='recording')
    statuses = bench.listen(TaskStatus, '/camera/status', qos.LATCHED)
    assert node.trigger_configure() == FAILED
    bench.wait(lambda: statuses and 'path is empty' in statuses[-1].message, 'the reason')

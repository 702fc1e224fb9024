"""Lock-step: every image, in order, with the depth of its moment; drops and faults counted."""

import numpy as np
import pytest

from muon_ad.bags import BagWriter
from muon_ad.bags import open_bag
from muon_ad.faults import FaultError
from muon_ad.faults import FaultPlan
from muon_ad.pictures import IMAGE
from muon_ad.replay import messages
from muon_ad.replay.error import ReplayError
from muon_ad.replay.networks import Choice
from muon_ad.replay.networks import load
from muon_ad.replay.pipeline import Replay
from muon_ad.replay.topics import choose
from muon_ad.runtime.package import PackageError
from muon_ad.testing.bags import BEGIN_NS
from muon_ad.testing.bags import camera_info
from muon_ad.testing.bags import write_bag

INFO = 'sensor_msgs/msg/CameraInfo'
STEP_NS = 100_000_000


@pytest.fixture(scope='module')
def networks(negative_package, one_box_package):
    return load(Choice(style_model=str(negative_package), detector_model=str(one_box_package)))


def replay(path, networks, **options):
    """Return the frames of a bag and the run they are of."""
    with open_bag(path) as bag:
        streams, _ = choose(bag)
        run = Replay(bag, streams, networks, **options)
        return list(run.frames()), run


def shades(count, height=48, width=64):
    return [np.full((height, width, 3), 10 * number, np.uint8) for number in range(count)]


def test_every_image_in_order(tmp_path, networks):
    frames, run = replay(write_bag(tmp_path / 'b.mcap', shades(20)), networks)
    assert run.images == 20
    assert [frame.number for frame in frames] == list(range(20))
    assert [frame.stamp_ns for frame in frames] == [BEGIN_NS + n * STEP_NS for n in range(20)]
    for frame in frames:
        assert not frame.dropped
        assert (frame.rgb == 10 * frame.number).all()
        assert (frame.stylised == 255 - 10 * frame.number).all()
        assert frame.detections.header.stamp.sec == frame.stamp_ns // 10**9
        detection, = frame.detections.detections
        assert (detection.label, detection.position_valid) == ('person', False)
        assert set(frame.stages_ms) == {'decode', 'style', 'detect', 'locate'}


def test_part_of_a_bag(tmp_path, networks):
    path = write_bag(tmp_path / 'b.mcap', shades(20))
    frames, _ = replay(path, networks, start_s=0.5, duration_s=0.3)
    assert [int(frame.rgb[0, 0, 0]) // 10 for frame in frames] == [5, 6, 7, 8]


@pytest.mark.parametrize('late', [-1, 1], ids=['before', 'after'])
@pytest.mark.parametrize('info_last', [False, True])
def test_depth_of_the_same_moment(tmp_path, networks, late, info_last):
    """Depth is recorded before or after its image; each image gets its own distance."""
    path = tmp_path / 'b.mcap'
    with BagWriter(path) as bag:
        for number in range(6):
            stamp = BEGIN_NS + number * STEP_NS
            header = messages.header(stamp, 'lens')
            if (number == 3) if info_last else (number == 0):
                bag.write('/camera_info', INFO, stamp, camera_info(60, 64, 48, header))
            depth = np.full((48, 64), 1000 + 500 * number, np.uint16)
            bag.write('/aligned_depth/image_raw', IMAGE, stamp + late * 30_000_000,
                      messages.image(depth, '16UC1', header))
            bag.write('/image_raw', IMAGE, stamp, messages.image(shades(1)[0], 'rgb8', header))
    frames, _ = replay(path, networks)
    found = [frame.detections.detections[0] for frame in frames]
    assert [d.position_valid for d in found] == [True] * 6
    np.testing.assert_allclose([d.position.z for d in found], 1 + 0.5 * np.arange(6))


def test_images_that_cannot_be_used_are_dropped_with_their_reason(tmp_path, networks):
    header = messages.header(BEGIN_NS, 'lens')
    with BagWriter(tmp_path / 'b.mcap') as bag:
        for number in range(3):
            message = messages.image(shades(1)[0], 'rgb8', header)
            if number == 1:
                message.data = message.data[:100]
            bag.write('/image_raw', IMAGE, BEGIN_NS + number, message)
    frames, _ = replay(tmp_path / 'b.mcap', networks)
    assert [bool(frame.dropped) for frame in frames] == [False, True, False]
    assert 'data has 100 bytes' in frames[1].dropped
    assert frames[1].stylised is None and frames[1].detections is None


def test_depth_that_cannot_be_used_is_told(tmp_path, networks):
    path = write_bag(
        tmp_path / 'b.mcap', shades(2), depth=np.full((48, 64), 2000, np.uint16), camera=60.0
    )
    plan = FaultPlan(['short for=9 stream=aligned'])
    frames, run = replay(path, networks, faults=plan)
    assert not any(frame.dropped for frame in frames)
    assert not frames[0].detections.detections[0].position_valid
    note, = run.notes
    assert note.startswith('/image_raw: positions are left out: data has')


def test_faults_lose_nothing_uncounted(tmp_path, networks):
    path = write_bag(tmp_path / 'b.mcap', shades(20))
    plan = FaultPlan(['stall at=0.45 for=0.5', 'short at=1.15 for=0.3 stream=color'])
    frames, _ = replay(path, networks, faults=plan)
    assert plan.counts == {'stall': 5, 'short': 3}
    assert [frame.number for frame in frames] == list(range(20))
    reasons = [frame.dropped for frame in frames if frame.dropped]
    assert [reason.partition(' has')[0] for reason in reasons] == ['lost by a fault'] * 5 + [
        'data'] * 3
    held = FaultPlan(['slow at=1.75 for=9 ms=5000'])
    frames, _ = replay(path, networks, faults=held)
    assert len(frames) == 20, 'what is held back at the end is worked on'
    frames, _ = replay(path, networks, faults=FaultPlan(['duplicate at=0.45 for=0.5 every=1']))
    assert [frame.number for frame in frames if frame.again] == [5, 6, 7, 8, 9]
    assert len({frame.number for frame in frames}) == 20


def test_a_late_message_does_not_wait_for_the_next_of_its_topic(tmp_path, networks):
    path = tmp_path / 'b.mcap'
    with BagWriter(path) as bag:
        for number in range(20):
            stamp = BEGIN_NS + number * STEP_NS
            header = messages.header(stamp, 'lens')
            if number == 0:
                bag.write('/camera_info', INFO, stamp, camera_info(60, 64, 48, header))
            depth = messages.image(np.full((48, 64), 2000, np.uint16), '16UC1', header)
            bag.write('/aligned_depth/image_raw', IMAGE, stamp, depth)
            bag.write('/image_raw', IMAGE, stamp, messages.image(shades(1)[0], 'rgb8', header))
    frames, _ = replay(path, networks, faults=FaultPlan(['late_info ms=950 for=10']))
    located = [frame.detections.detections[0].position_valid for frame in frames]
    # An image waits half a second for its calibration, which comes at the tenth.
    assert located == [False] * 4 + [True] * 16


def test_faults_that_do_nothing_are_told(tmp_path, networks):
    path = write_bag(tmp_path / 'b.mcap', shades(3))
    _, run = replay(path, networks, faults=FaultPlan(['stall at=5']))
    note, = run.notes
    assert note.endswith('touched nothing: it begins after the end, at 0.200 s')
    with pytest.raises(FaultError, match="stream is 'aligned'; the streams here are color$"):
        replay(path, networks, faults=FaultPlan(['no_depth stream=aligned']))


@pytest.mark.parametrize(
    'part, said',
    [
        ({'start_s': 9.0}, 'start is 9 s, after the end; expected at most 0.2 s, the length of '),
        ({'start_s': -1.0}, 'start is -1 s'), ({'duration_s': 0.0}, 'duration is 0 s'),
    ],
)
def test_part_that_is_not_there(tmp_path, networks, part, said):
    with pytest.raises(ReplayError, match=said):
        replay(write_bag(tmp_path / 'b.mcap', shades(3)), networks, **part)


def test_one_task_alone_and_none(tmp_path, one_box_package):
    only = load(Choice(style_model='', detector_model=str(one_box_package)))
    frame, = replay(write_bag(tmp_path / 'b.mcap', shades(1)), only)[0]
    assert frame.stylised is None and frame.detections is not None
    with pytest.raises(ReplayError, match='no network is chosen'):
        load(Choice(style_model='', detector_model=''))
    with pytest.raises(PackageError, match="model is 'unicorn'"):
        load(Choice(style_model='unicorn'))
    with pytest.raises(ReplayError, match='provider'):
        load(Choice(providers=('abacus',)))

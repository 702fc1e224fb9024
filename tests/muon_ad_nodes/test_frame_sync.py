"""The node that pairs images: what it publishes, and how it accounts for what it got."""

import struct

import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.serialization import deserialize_message
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from muon_ad_msgs.msg import SyncStatus
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.nodes import frame_sync
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.images import to_message
from muon_ad_nodes.parts.serialised import SerialisedError
from muon_ad_nodes.parts.serialised import stamp_of
from muon_ad_nodes.parts.serialised import with_stamp
from muon_ad_nodes.parts.stamps import nanoseconds
from muon_ad_nodes.parts.stamps import to_stamp

MS = 1_000_000
PERIOD = 33 * MS
BEGIN = 5_000 * MS


class Cameras:
    """Publishes images of several streams, and hears what comes back."""

    def __init__(self, bench, node, streams):
        self.bench, self.node = bench, node
        self.images = {
            name: bench.probe.create_publisher(Image, f'{name}/image_raw', qos.PUBLISH)
            for name in streams
        }
        self.infos = {
            name: bench.probe.create_publisher(CameraInfo, f'{name}/camera_info', qos.PUBLISH)
            for name in streams
        }
        self.got = {name: bench.listen(Image, f'synced/{name}/image_raw') for name in streams}
        self.got_infos = {
            name: bench.listen(CameraInfo, f'synced/{name}/camera_info') for name in streams
        }
        self.status = bench.listen(SyncStatus, f'{node.get_name()}/sync_status', qos.LATCHED)
        for publisher in (*self.images.values(), *self.infos.values()):
            bench.wait(lambda p=publisher: p.get_subscription_count() > 0, 'the node to listen')
        for stream in node._streams.values():
            bench.wait(
                lambda s=stream: s.images.get_subscription_count()
                and s.infos.get_subscription_count(), 'the probe to listen',
            )

    def send(self, name: str, stamp: int, value: int = 0, encoding: str = 'mono8') -> None:
        """Publish an image, and wait until the node has it: arrival has the order of sending."""
        kind = np.uint16 if encoding == '16UC1' else np.uint8
        message = to_message(np.full((4, 6), value, kind), encoding, to_stamp(stamp), f'{name}_f')
        counts = self.node._synchronizer.counts(name)
        before = counts.received
        self.images[name].publish(message)
        self.bench.wait(lambda: counts.received > before, f'{name} at {stamp}')

    def calibrate(self, name: str, width: int) -> None:
        self.infos[name].publish(CameraInfo(width=width))
        self.bench.wait(lambda: self.node._streams[name].info is not None, 'the calibration')


@pytest.fixture
def cameras(bench):
    """Make the node with these parameters, active, and cameras for its streams."""

    def make(streams=('color', 'depth', 'csi'), **parameters) -> Cameras:
        node = bench.run(frame_sync.make, streams=list(streams), **parameters)
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        return Cameras(bench, node, streams)

    return make


def test_a_set_has_one_stamp_and_is_otherwise_as_it_came(bench, cameras):
    streams = cameras(slop_ms=12.0)
    for name, width in (('color', 640), ('depth', 424), ('csi', 1280)):
        streams.calibrate(name, width)
    for number in range(5):
        at = BEGIN + number * PERIOD
        streams.send('color', at, number)
        streams.send('depth', at + MS, 1000 + number, '16UC1')
        streams.send('csi', at - 7 * MS, 100 + number)
    bench.wait(lambda: all(len(got) == 5 for got in streams.got.values()), 'five sets')
    for number in range(5):
        images = {name: got[number] for name, got in streams.got.items()}
        infos = {name: got[number] for name, got in streams.got_infos.items()}
        at = BEGIN + number * PERIOD
        assert {nanoseconds(m.header.stamp) for m in (*images.values(), *infos.values())} == {at}
        assert {m.header.frame_id for m in images.values()} == {'color_f', 'depth_f', 'csi_f'}
        assert set(images['csi'].data) == {100 + number}
        assert np.frombuffer(images['depth'].data, np.uint16)[0] == 1000 + number
        assert images['depth'].encoding == '16UC1'
        assert {name: info.width for name, info in infos.items()} == {
            'color': 640, 'depth': 424, 'csi': 1280,
        }  # fmt: skip
    bench.wait(lambda: streams.status and streams.status[-1].sets == 5, 'the status')
    status = streams.status[-1]
    assert (status.unmatched_percent, status.slop_ms) == (0.0, 12.0)
    assert status.skew_p50_ms == pytest.approx(8)
    assert [s.skew_p99_ms for s in status.streams] == pytest.approx([0, 1, 7])


def test_every_image_is_accounted_for(bench, cameras):
    streams = cameras(('left', 'right'), slop_ms=12.0, queue_size=4)
    for number in range(4):
        streams.send('left', BEGIN + number * PERIOD)
        streams.send('right', BEGIN + number * PERIOD)
    streams.send('left', BEGIN + 3 * PERIOD)        # the same twice
    streams.send('left', 0)
    streams.send('left', BEGIN + 2 * PERIOD - MS)   # its set is gone
    for number in range(4, 10):                     # right is silent
        streams.send('left', BEGIN + number * PERIOD)
    bench.wait(lambda: streams.status and streams.status[-1].streams[0].received == 13, 'status')
    left, right = streams.status[-1].streams
    assert (left.name, left.topic) == ('left', '/left/image_raw')
    assert (left.matched, right.matched) == (4, 4)
    assert (left.unmatched_invalid, left.unmatched_late) == (2, 1)
    assert left.unmatched_queue_full == 2
    for each in (left, right):
        assert each.received == (
            each.matched + each.unmatched_no_partner + each.unmatched_silent
            + each.unmatched_queue_full + each.unmatched_late + each.unmatched_invalid
            + each.waiting
        )
    statuses = bench.listen(TaskStatus, 'frame_sync/status', qos.LATCHED)
    bench.wait(lambda: statuses and statuses[-1].received == 17, 'the status of the task')
    status = statuses[-1]
    assert (status.frames, status.dropped_invalid, status.dropped_newer) == (4, 2, 2)
    drops = {drop.reason: drop.frames for drop in status.drops}
    assert drops == {frame_sync.PUSHED_OUT: 2, frame_sync.BAD_STAMP: 2}
    assert [stage.name for stage in status.stages] == ['capture', 'decide', 'total']
    assert {value.key for value in status.values} >= {'unmatched (%)', 'jumps back in time'}


def test_when_all_fall_silent_what_waits_is_published(bench, cameras):
    """Without the next images nothing proves that these two are the best pair."""
    streams = cameras(('left', 'right'), slop_ms=25.0, patience_ms=100.0)
    streams.send('left', BEGIN)
    streams.send('right', BEGIN + 15 * MS)
    bench.wait(lambda: streams.got['right'], 'the set')
    assert nanoseconds(streams.got['right'][0].header.stamp) == BEGIN


def test_pairs_go_on_without_an_optional_stream(bench, cameras):
    streams = cameras(optional=['csi'], slop_ms=12.0)
    for number in range(6):
        streams.send('color', BEGIN + number * PERIOD)
        streams.send('depth', BEGIN + number * PERIOD)
    bench.wait(lambda: len(streams.got['depth']) == 6, 'pairs')
    assert streams.got['csi'] == []


def test_a_topic_without_images_is_named(bench, cameras, monkeypatch):
    monkeypatch.setattr(frame_sync, 'SILENCE_S', 0.2)
    cameras(optional=['csi'])
    statuses = bench.listen(TaskStatus, 'frame_sync/status', qos.LATCHED)
    wanted = 'no image for more than 0.2 s on /color/image_raw, /depth/image_raw'
    bench.wait(lambda: statuses and statuses[-1].message == wanted, wanted)


def test_input_is_ignored_while_inactive_and_a_pause_costs_nothing(bench, cameras):
    streams = cameras(('left', 'right'), slop_ms=12.0)
    streams.send('left', BEGIN)
    streams.send('right', BEGIN)
    node = streams.node
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    bench.wait(lambda: len(streams.got['right']) == 1, 'what waited')
    message = to_message(np.zeros((4, 6), np.uint8), 'mono8', to_stamp(BEGIN + PERIOD), 'f')
    heard = bench.listen(Image, 'left/image_raw')
    bench.wait(lambda: streams.images['left'].get_subscription_count() == 2, 'the listener')
    streams.images['left'].publish(message)
    bench.wait(lambda: heard, 'the image to arrive')
    assert node._synchronizer.counts('left').received == 1
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    for number in range(200, 203):
        streams.send('left', BEGIN + number * PERIOD)
        streams.send('right', BEGIN + number * PERIOD)
    bench.wait(lambda: len(streams.got['right']) == 4, 'the pairs afterwards')
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert node._streams == {}


@pytest.mark.parametrize('parameters, said', [
    ({'streams': ['color']}, 'two or more'),
    ({'streams': ['color', 'color']}, 'two or more'),
    ({'streams': ['color', 'a/b']}, 'names such as left_eye'),
    ({'streams': list('abcdefghi')}, '2 to 8 names'),
    ({'streams': ['color', 'depth'], 'optional': ['color']}, 'the reference'),
    ({'streams': ['color', 'depth'], 'optional': ['csi']}, 'optional streams are'),
    ({'optional': ['csi', 'csi']}, 'at most 4 different names'),
    ({'streams': list('abcdef'), 'optional': list('bcdef')}, 'at most 4 different names'),
])  # fmt: skip
def test_bad_streams_are_refused(bench, parameters, said):
    node = bench.run(frame_sync.make, **parameters)
    statuses = bench.listen(TaskStatus, 'frame_sync/status', qos.LATCHED)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    bench.wait(lambda: any(said in status.message for status in statuses), said)


def test_the_stamp_of_serialised_messages():
    image = to_message(np.arange(24, dtype=np.uint8).reshape(4, 6), 'mono8', to_stamp(7), 'lens')
    data = serialize_message(image)
    assert stamp_of(data) == 7
    assert with_stamp(data, 7) is data
    later = deserialize_message(with_stamp(data, 1_234_567_890_123_456_789), Image)
    assert nanoseconds(later.header.stamp) == 1_234_567_890_123_456_789
    assert (later.header.frame_id, later.data) == ('lens', image.data)


def test_either_order_of_bytes():
    big = b'\0\0\0\0' + struct.pack('>iI', 3, 4) + b'rest'
    assert stamp_of(big) == 3_000_000_004
    assert with_stamp(big, 5_000_000_006) == b'\0\0\0\0' + struct.pack('>iI', 5, 6) + b'rest'


@pytest.mark.parametrize('data', [b'', b'\0\1\0\0', b'\0\1\0\0' + bytes(7)])
def test_bytes_without_a_header(data):
    with pytest.raises(SerialisedError, match=f'{len(data)} bytes'):
        stamp_of(data)

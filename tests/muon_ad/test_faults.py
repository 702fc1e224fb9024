"""Faults on purpose: their notation, the plan's time line, and what they do to messages."""

import itertools
from dataclasses import dataclass
from dataclasses import field

import numpy as np
import pytest

from muon_ad.faults import Fault
from muon_ad.faults import FaultError
from muon_ad.faults import FaultPlan
from muon_ad.faults import FaultyMessages
from muon_ad.faults import parse
from muon_ad.faults import random_faults
from muon_ad.faults.fault import DEPTH
from muon_ad.faults.fault import IMAGE
from muon_ad.faults.fault import INFO
from muon_ad.faults.fault import KINDS
from muon_ad.faults.fault import WRAP_NS
from muon_ad.images import ImageError
from muon_ad.images import to_array


@dataclass
class Stamp:
    sec: int
    nanosec: int


@dataclass
class Header:
    stamp: Stamp


@dataclass
class Image:
    """The fields of a sensor_msgs/Image, as `rosbags` has them."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: np.ndarray


@dataclass
class CameraInfo:
    header: Header
    distortion_model: str = 'plumb_bob'
    k: list[float] = field(default_factory=list)


def image(second: float = 10.0, encoding: str = 'rgb8', pixels: np.ndarray | None = None) -> Image:
    if pixels is None:
        pixels = np.full((4, 6, 3), 90, np.uint8)
    height, width = pixels.shape[:2]
    return Image(
        header(second), height, width, encoding, int(pixels.dtype.byteorder == '>'),
        pixels.strides[0], pixels.view(np.uint8).ravel(),
    )


def header(second: float = 10.0) -> Header:
    return Header(Stamp(int(second), round(second % 1 * 1e9)))


def seconds(message) -> float:
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9


class Rig:
    """A plan whose time the test sets, and the messages it tampers with."""

    def __init__(self, *schedule: str, seed: int = 0, beside_source: bool = False) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.plan = FaultPlan(schedule, seed, self.lines.append)
        self.messages = FaultyMessages(self.plan, lambda: self.now, beside_source)

    def send(self, message, at: float | None = None, stream: str = 'color') -> list:
        self.now = self.now if at is None else at
        return self.messages.apply(stream, message)

    def order(self, count: int, period: float = 0.1) -> list[int]:
        """Send numbered images and return the numbers in the order in which they came out."""
        sent = [self.send(image(number), number * period) for number in range(count)]
        return [int(seconds(message)) for message in itertools.chain(*sent)]


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_is_read_with_its_defaults_and_written_back(kind):
    fault = parse(kind)
    assert (fault.kind, fault.at_s, fault.for_s, fault.stream) == (kind, 0.0, 1.0, '')
    assert set(fault.amounts) == set(KINDS[kind].amounts)
    assert parse(str(fault)) == fault


def test_a_fault_is_read_in_full():
    fault = parse(' drift  at=1.5 ppm=-40 stream=color* for=60 ')
    assert fault == Fault('drift', 1.5, 60.0, 'color*', {'ppm': -40.0})
    assert str(fault) == 'drift at=1.5 for=60 ppm=-40 stream=color*'
    assert fault.end_s == 61.5
    assert fault.concerns('color_info') and not fault.concerns('depth')
    assert not fault.of_source and parse('drift').of_source and not parse('corrupt').of_source


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('stal at=5', "kind is 'stal'; expected one of unplug, stall, slow"),
        ('', "kind is ''"),
        ('stall ms=5', "'ms=5' is not understood; stall takes at=, for=, stream="),
        ('slow 200', "'200' is not understood; slow takes at=, for=, stream=, ms="),
        ('slow ms=', "'ms=' is not understood"),
        ('slow ms=fast', "ms is 'fast'; expected a number from 1 to 10000"),
        ('slow ms=nan', "ms is 'nan'"),
        ('slow ms=0', "ms is '0'"),
        ('stall for=0', "for is '0'; expected a number from 0.001"),
        ('stall at=-1', "at is '-1'; expected a number from 0 "),
        ('stall at=1 at=2', 'at= is given twice'),
        ('reorder every=1', 'expected a whole number from 2'),
        ('duplicate every=1.5', "every is '1.5'; expected a whole number from 1 to 1e+06"),
    ],
)
def test_a_text_that_makes_no_sense_is_named_with_what_is_accepted(text, expected):
    with pytest.raises(FaultError) as caught:
        parse(text)
    assert expected in str(caught.value)
    assert repr(text) in str(caught.value)


def test_faults_begin_and_end_in_time_and_are_announced_with_what_they_touched():
    rig = Rig('stall at=1 for=2')
    assert [len(rig.send(image(), at)) for at in (0.9, 1.0, 2.9, 3.0)] == [1, 0, 0, 1]
    assert rig.lines == [
        'fault begins: stall at=1 for=2', 'fault ends: stall at=1 for=2, touched 2',
    ]
    assert rig.plan.counts == {'stall': 2}
    assert rig.plan.pending() == []


def test_a_fault_that_nothing_saw_is_announced_too():
    rig = Rig('stall at=1 for=2')
    rig.plan.advance(5.0)
    assert rig.lines[-1] == 'fault ends: stall at=1 for=2, touched 0'


def test_injected_faults_count_from_now_and_clear_ends_all():
    rig = Rig('stall at=100')
    rig.now = 50.0
    assert rig.plan.inject('stall at=2 for=10', 50.0) == 'fault accepted: stall at=2 for=10'
    assert len(rig.send(image(), 51.9)) == 1
    assert len(rig.send(image(), 52.1)) == 0
    assert rig.plan.inject(' clear ', 53.0) == '2 faults ended'
    assert len(rig.send(image(), 53.1)) == 1
    assert len(rig.send(image(), 100.5)) == 1
    assert len(rig.lines) == 2      # the one to come never began
    with pytest.raises(FaultError, match='expected one of .*; or clear'):
        rig.plan.inject('clean', 101.0)


@pytest.mark.parametrize('kind', ['unplug', 'stall'])
def test_nothing_comes_while_the_camera_is_gone(kind):
    rig = Rig(f'{kind} at=0.15 for=0.2')
    assert rig.order(6) == [0, 1, 4, 5]
    assert rig.plan.counts == {kind: 2}


def test_duplicates_and_swapped_messages():
    rig = Rig('duplicate for=0.55 every=3')
    assert rig.order(7) == [0, 1, 2, 2, 3, 4, 5, 5, 6]
    rig = Rig('reorder for=0.55 every=2')
    assert rig.order(8) == [0, 2, 1, 4, 3, 6, 5, 7]
    assert rig.plan.counts == {'reorder': 3}


def test_a_message_held_back_at_the_end_is_given_out_or_counted():
    rig = Rig('reorder every=2')
    assert rig.order(2) == [0]
    (stream, message), = rig.messages.rest()
    assert (stream, seconds(message)) == ('color', 1.0)
    assert rig.messages.rest() == []
    rig = Rig('slow ms=500 for=9')
    assert rig.order(3) == []
    rig.messages.drop_rest()
    assert rig.plan.counts == {'slow': 3, 'cut off': 3}


def test_what_is_held_back_can_be_had_when_it_is_due():
    rig = Rig('slow ms=250', 'reorder every=2 stream=depth')
    assert rig.messages.next_s is None and rig.messages.due() == []
    for stream, at in (('color', 0.0), ('color_info', 0.1), ('color', 0.2)):
        assert rig.send(image(at), at, stream) == []
    assert rig.messages.next_s == 0.25
    rig.now = 0.4
    assert [name for name, _ in rig.messages.due()] == ['color', 'color_info']
    assert rig.messages.due() == [] and rig.messages.next_s == pytest.approx(0.45)
    assert [name for name, _ in rig.messages.rest()] == ['color']


def test_slow_messages_come_late_and_in_order():
    rig = Rig('slow ms=250 for=0.35')
    out = {n: [int(seconds(m)) for m in rig.send(image(n), n * 0.1)] for n in range(8)}
    # 0.3 s + 250 ms: message 4 came in time, but not before message 3.
    assert out == {0: [], 1: [], 2: [], 3: [0], 4: [1], 5: [2], 6: [3, 4, 5, 6], 7: [7]}


def test_camera_info_is_missing_or_late_and_images_are_not():
    rig = Rig('no_info for=1', 'late_info ms=500 at=2')
    assert rig.send(CameraInfo(header(0)), 0.5, 'color_info') == []
    assert len(rig.send(image(), 0.5)) == 1
    assert rig.send(CameraInfo(header(2)), 2.1, 'color_info') == []
    assert len(rig.send(image(), 2.1)) == 1
    late = rig.send(CameraInfo(header(3)), 3.2, 'color_info')
    assert [seconds(info) for info in late] == [2, 3]
    assert rig.plan.counts == {'no_info': 1, 'late_info': 1}


def test_clock_faults_shift_stamps_and_a_drift_keeps_what_it_gained():
    rig = Rig('jump ms=-2000 at=1', 'drift ppm=1000 at=10 for=100', 'wrap at=200')
    shifts = {
        at: seconds(rig.send(image(1e6), at)[0]) - 1e6 for at in (0.5, 1.5, 2.5, 60.0, 150.0)
    }
    assert shifts == pytest.approx({0.5: 0, 1.5: -2.0, 2.5: 0, 60.0: 0.05, 150.0: 0.1})
    wrapped = seconds(rig.send(image(1e6), 200.5)[0])
    assert wrapped == pytest.approx(1e6 + 0.1 - WRAP_NS * 1e-9)
    assert rig.plan.counts == {'jump': 1, 'drift': 1, 'wrap': 1}


def test_a_drift_that_is_cleared_keeps_what_it_gained_until_then():
    rig = Rig('drift ppm=1000 for=100')
    rig.plan.clear(20.0)
    assert rig.plan.offset_ns(90.0) == 20_000_000
    assert rig.plan.offset_ns(90.0, 'color', beside_source=True) == 0


def test_a_stamp_never_lies_before_its_epoch():
    rig = Rig('wrap')
    message, = rig.send(image(10.0))
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (0, 0)


def test_corrupt_bytes_follow_from_the_seed():
    pixels = np.zeros((100, 100, 3), np.uint8)
    first, same, other = (
        Rig('corrupt percent=20', seed=seed).send(image(pixels=pixels))[0].data
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, same) and not np.array_equal(first, other)
    # A random byte is 0, as it was, once in 256.
    assert np.mean(first != 0) == pytest.approx(0.2 * 255 / 256, abs=0.01)
    assert not pixels.any()


@pytest.mark.parametrize(
    ('fault', 'refusal'),
    [
        ('short percent=50', 'data has 36 bytes'),
        ('encoding', "encoding is 'bogus8'"),
        ('encoding as=rgba8', 'step is 18 bytes'),
        ('empty', 'size is 0x0'),
    ],
)
def test_broken_images_are_refused_by_who_reads_them(fault, refusal):
    rig = Rig(fault)
    whole = image()
    broken, = rig.send(whole)
    with pytest.raises(ImageError, match=refusal):
        to_array(broken)
    assert to_array(whole).shape == (4, 6, 3)
    assert rig.plan.counts == {fault.split()[0]: 1}


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize(('encoding', 'dtype', 'unknown'), [
    ('16UC1', 'u2', 0), ('32FC1', 'f4', np.nan),
])
def test_depth_is_misaligned_or_gone(order, encoding, dtype, unknown):
    depth = np.arange(1, 25).reshape(4, 6).astype(order + dtype)
    moved, = Rig('misaligned px=2').send(image(encoding=encoding, pixels=depth))
    back, = Rig('misaligned px=-2').send(image(encoding=encoding, pixels=depth))
    gone, = Rig('no_depth').send(image(encoding=encoding, pixels=depth))
    beyond, = Rig('misaligned px=99').send(image(encoding=encoding, pixels=depth))
    assert np.array_equal(to_array(moved)[:, 2:], depth[:, :-2])
    assert np.array_equal(to_array(back)[:, :-2], depth[:, 2:])
    for pixels in (to_array(moved)[:, :2], to_array(back)[:, -2:], to_array(gone),
                   to_array(beyond)):
        assert np.array_equal(pixels, np.full_like(pixels, unknown), equal_nan=dtype == 'f4')


def test_faults_of_depth_and_images_leave_others_alone():
    rig = Rig('misaligned', 'no_depth', 'short')
    info = CameraInfo(header())
    assert rig.send(info, stream='color_info') == [info]
    colour, = Rig('misaligned', 'no_depth').send(image())
    assert np.array_equal(to_array(colour), to_array(image()))
    assert rig.plan.counts == {}


def test_streams_are_chosen_by_pattern():
    rig = Rig('stall stream=color*')
    sent = {name: len(rig.send(image(), stream=name)) for name in ('color', 'color_info', 'depth')}
    assert sent == {'color': 0, 'color_info': 0, 'depth': 1}


def test_beside_a_source_only_faults_of_messages_and_of_one_stream_are_done():
    rig = Rig('stall', 'jump', 'slow', beside_source=True)
    message = image()
    assert rig.send(message) == [message]
    assert rig.send(message, stream='depth') == [message]
    rig.plan.inject('jump ms=-1000 stream=depth', rig.now)
    assert seconds(rig.send(message)[0]) == 10.0
    assert seconds(rig.send(message, stream='depth')[0]) == 9.0


def test_messages_of_rclpy_are_treated_alike():
    messages = pytest.importorskip('sensor_msgs.msg')
    from builtin_interfaces.msg import Time

    from muon_ad_nodes.parts.images import to_message

    whole = to_message(np.full((4, 6), 7, np.uint16), '16UC1', Time(sec=10), 'optical')
    rig = Rig('no_depth', 'corrupt at=2', 'jump ms=-500')
    gone, = rig.send(whole)
    assert isinstance(gone, messages.Image) and not to_array(gone).any()
    assert (gone.header.stamp.sec, gone.header.stamp.nanosec) == (9, 500_000_000)
    assert gone.header.frame_id == 'optical'
    corrupt, = rig.send(whole, 2.0)
    assert np.any(to_array(corrupt) != 7)
    assert np.all(to_array(whole) == 7) and whole.header.stamp.sec == 10
    info = messages.CameraInfo(distortion_model='plumb_bob')
    assert Rig('no_info').send(info, stream='color_info') == []


def test_random_faults_follow_from_the_seed_and_leave_time_to_recover():
    faults = random_faults(7, minutes=10)
    assert faults == random_faults(7, minutes=10) != random_faults(8, minutes=10)
    assert {fault.kind for fault in faults} == set(KINDS)
    assert faults[-1].end_s <= 600 < faults[-1].end_s + 12
    for before, after in itertools.pairwise(faults):
        assert after.at_s - before.end_s >= 1.99
    assert [parse(str(fault)) for fault in faults] == faults
    assert {fault.kind for fault in random_faults(1, 5, kinds=('stall', 'slow'))} == {
        'stall', 'slow'}


def test_what_is_never_touched_is_told():
    plan = FaultPlan(['stall at=1 for=0.5', 'stall at=9', 'no_info at=1 for=0.5 stream=color'])
    messages = FaultyMessages(plan, lambda: 1.2)
    messages.apply('color', image())
    messages.apply('aligned', image())
    assert messages.lost == {'color': 1, 'aligned': 1}
    assert plan.idle(end_s=2.0) == [
        "fault 'stall at=9 for=1' touched nothing: it begins after the end, at 2.000 s",
        "fault 'no_info at=1 for=0.5 stream=color' touched nothing",
    ]


def test_what_touches_nothing_is_told_of_each_run_anew():
    plan = FaultPlan(['stall for=1'])
    messages = FaultyMessages(plan, lambda: 0.5)
    messages.apply('color', image())
    assert plan.idle(2.0) == []
    plan.restart()
    assert plan.idle(2.0) == ["fault 'stall at=0 for=1' touched nothing"]


@pytest.mark.parametrize(('text', 'expected'), [
    ('stall stream=nosuch', "stream is 'nosuch'; the streams here are color, color_info, depth"),
    ('stall stream=[', "stream is '['; the streams here are"),
    ('no_info stream=color', "stream is 'color'; the streams here with camera_info are color_inf"),
    ('corrupt stream=*_info', 'the streams here with images are color, depth'),
    ('no_depth stream=color', 'the streams here with depth are depth'),
    ('misaligned stream=c*', 'the streams here with depth are depth'),
])  # fmt: skip
def test_a_fault_that_can_touch_nothing_is_refused(text, expected):
    streams = {'color': (IMAGE,), 'color_info': (INFO,), 'depth': (IMAGE, DEPTH)}
    plan = FaultPlan()
    plan.expect_streams(streams)
    for refused in (
        lambda: plan.inject(text, 1.0), lambda: FaultPlan([text]).expect_streams(streams),
    ):
        with pytest.raises(FaultError) as caught:
            refused()
        assert expected in str(caught.value)
    assert plan.pending() == []
    for fine in ('stall', 'no_info', 'no_depth', 'empty stream=d*', 'slow stream=*_info'):
        plan.inject(fine, 1.0)


def test_a_fault_of_what_is_nowhere_is_refused():
    plan = FaultPlan(['no_depth'])
    with pytest.raises(FaultError, match="'no_depth at=0 for=1': the streams here with depth are"):
        plan.expect_streams({'image': (IMAGE,), 'image_info': (INFO,)})


def test_streams_that_are_not_there():
    plan = FaultPlan(['stall', 'stall stream=col*'])
    plan.expect_streams(['color', 'color_info'])
    with pytest.raises(FaultError, match=r"'col\*'; the streams here are aligned, depth"):
        plan.expect_streams(['depth', 'aligned'])

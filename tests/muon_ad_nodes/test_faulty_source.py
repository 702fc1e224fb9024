"""A source that fails on purpose: what a camera node gets from it."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from muon_ad.faults import FaultPlan
from muon_ad.faults.fault import WRAP_NS
from muon_ad_nodes.parts.faulty_source import FaultySource
from muon_ad_nodes.parts.faulty_source import refuse_unplugged
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import Picture
from muon_ad_nodes.parts.source import SourceError

PICTURE = Picture('rgb8', lambda: np.zeros((2, 3, 3), np.uint8), (3, 2))


class Camera:
    """Gives a numbered frame at each call; each takes a tenth of a second of `now`."""

    def __init__(self, device_clock: bool = False) -> None:
        self.now = 0.0
        self.number = 0
        self.closed = False
        self._device_clock = device_clock

    def read(self, _stopping: threading.Event, _timeout_s: float) -> Frame:
        frame = Frame({'image': PICTURE}, round(self.now * 1e9), self.number)
        if self._device_clock:
            frame = replace(frame, domain='hardware_clock', device_ns=frame.arrival_ns)
        self.now = round(self.now + 0.1, 3)
        self.number += 1
        return frame

    def calibration(self, stream: str) -> str:
        return f'calibration of {stream}'

    def close(self) -> None:
        self.closed = True


class Rig:
    """A camera with faults; the plan's time is the camera's."""

    def __init__(self, *schedule: str, device_clock: bool = False) -> None:
        self.camera = Camera(device_clock)
        self.plan = FaultPlan(schedule)
        self.source = FaultySource(self.camera, self.plan, lambda: self.camera.now)
        self.stopping = threading.Event()

    def read(self, timeout_s: float = 5.0) -> Frame | None:
        return self.source.read(self.stopping, timeout_s)

    def numbers(self, count: int) -> list[int]:
        return [self.read().number for _ in range(count)]


def test_without_faults_frames_pass():
    rig = Rig()
    assert rig.numbers(3) == [0, 1, 2]
    assert rig.source.calibration('image') == 'calibration of image'
    rig.source.close()
    assert rig.camera.closed and not rig.plan.counts


def test_a_stall_swallows_frames_and_counts_them():
    rig = Rig('stall at=0.15 for=0.3')
    assert rig.numbers(3) == [0, 4, 5]
    assert rig.plan.counts == {'stall': 3}


def test_an_unplugged_camera_is_gone_and_stays_closed_until_it_is_back():
    rig = Rig('unplug at=0.15 for=0.3')
    rig.numbers(2)
    with pytest.raises(SourceError, match=r'unplugged \(injected fault: unplug at=0.15 for=0.3\)'):
        rig.read()
    with pytest.raises(SourceError, match='unplugged'):
        refuse_unplugged(rig.plan, 0.4)
    refuse_unplugged(rig.plan, 0.5)


def test_duplicates_and_swapped_frames():
    assert Rig('duplicate for=9 every=3').numbers(7) == [0, 1, 2, 2, 3, 4, 5]
    assert Rig('reorder for=9 every=3').numbers(7) == [0, 1, 3, 2, 4, 6, 5]


def test_a_slow_camera_gives_late_frames_and_fewer():
    plan = FaultPlan(['slow for=60 ms=40'])
    camera = Camera()
    source = FaultySource(camera, plan, time.monotonic)
    plan.inject('slow for=60 ms=40', time.monotonic())
    stopping = threading.Event()
    assert source.read(stopping, 0.001) is None     # does not wait longer than it was told
    begun = time.monotonic()
    frames = [source.read(stopping, 5.0) for _ in range(3)]
    assert time.monotonic() - begun >= 0.1
    assert [frame.number for frame in frames] == [0, 1, 2]
    assert camera.number == 3
    for frame in frames:        # the camera said when it took them; they came in later
        assert frame.arrival_ns - round(frame.number * 1e8) >= 39_000_000


def test_waiting_for_a_slow_frame_ends_when_the_node_stops():
    plan = FaultPlan()
    source = FaultySource(Camera(), plan, time.monotonic)
    plan.inject('slow for=60 ms=10000', time.monotonic())
    stopping = threading.Event()
    threading.Timer(0.05, stopping.set).start()
    assert source.read(stopping, 60.0) is None
    source.close()
    assert plan.counts == {'slow': 1, 'cut off': 1}


def test_a_camera_without_a_clock_is_given_one():
    rig = Rig('jump at=0.15 for=0.1 ms=5000')
    before, there, back = (rig.read() for _ in range(3))
    assert {frame.domain for frame in (before, there, back)} == {'hardware_clock'}
    assert before.device_ns % 1000 == 0
    assert before.device_ns < back.device_ns < there.device_ns
    assert there.device_ns - before.device_ns == pytest.approx(5e9, abs=1e9)


def test_a_device_clock_jumps_drifts_and_wraps():
    rig = Rig('jump at=0.1 for=0.1 ms=-50', 'drift at=0.3 for=1 ppm=1000', 'wrap at=2',
              device_clock=True)
    wrong = {}
    for number in range(25):
        frame = rig.read()
        assert frame.number == number
        wrong[number] = frame.device_ns - number * 100_000_000
    # A frame counts as taken when it was read, a tenth of a second later.
    assert wrong[0] == -50_000_000 and wrong[1] == 0
    assert [wrong[n] for n in (3, 7, 12, 18)] == [100_000, 500_000, 1_000_000, 1_000_000]
    assert wrong[19] == wrong[24] == 1_000_000 - WRAP_NS
    assert rig.plan.counts == {'jump': 1, 'drift': 10, 'wrap': 6}


def test_faults_of_messages_and_of_one_stream_leave_the_frames_alone():
    rig = Rig('stall stream=color', 'corrupt', 'jump stream=depth', device_clock=True)
    frame = rig.read()
    assert (frame.number, frame.device_ns) == (0, 0)
    assert not rig.plan.counts

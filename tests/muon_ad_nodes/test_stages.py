"""What a task measures of itself."""

import threading

import pytest

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts.frame_times import FrameTimes
from muon_ad_nodes.parts.percentiles import ACCURACY
from muon_ad_nodes.parts.stages import TaskMonitor

MS = 1_000_000


def filled(monitor) -> TaskStatus:
    status = TaskStatus()
    monitor.fill(status)
    return status


def times_of(capture_ms: float, infer_ms: float) -> FrameTimes:
    """The way of a frame through two stages."""
    times = FrameTimes(stamp_ns=0, begun_ns=1000 * MS)
    times.mark('capture', round((1000 + capture_ms) * MS))
    times.mark('infer', round((1000 + capture_ms + infer_ms) * MS))
    return times


def test_percentiles_and_deadline():
    monitor = TaskMonitor(lambda: 0)
    monitor.deadline_ms = 50.0
    for age_ms in range(1, 101):
        monitor.published(times_of(age_ms / 4, age_ms * 3 / 4))
    status = filled(monitor)
    stages = {stage.name: stage for stage in status.stages}
    assert list(stages) == ['capture', 'infer', 'total']
    total = stages['total']
    found = (total.p50_ms, total.p95_ms, total.p99_ms)
    assert found == pytest.approx((50, 95, 99), rel=ACCURACY)
    assert total.max_ms == pytest.approx(100)
    assert stages['infer'].p50_ms == pytest.approx(37.5, rel=ACCURACY)
    assert status.deadline_misses == 50
    assert status.frames == 100
    assert status.fps > 0


def test_capture_is_from_the_stamp_until_the_frame_came():
    """Also where it came some time ago, and in a clock that has nothing to do with steady time."""
    monitor = TaskMonitor(lambda: 5000 * MS)
    fresh = monitor.begin(4970 * MS)
    assert fresh.stages_ms()['capture'] == pytest.approx(30)
    at_ns = fresh.ends_ns[0][1]
    late = monitor.begin(4970 * MS, at_ns=at_ns)
    assert late.ends_ns == [('capture', at_ns)]
    assert late.stages_ms()['capture'] <= 30


def test_nothing_measured():
    status = filled(TaskMonitor(lambda: 0))
    assert (status.frames, status.fps, list(status.stages)) == (0, 0.0, [])


def test_every_way_is_told_with_the_reason_of_its_drop():
    told = []
    monitor = TaskMonitor(lambda: 0, lambda times, dropped: told.append((times.stamp_ns, dropped)))
    monitor.published(monitor.begin(1))
    monitor.dropped_newer('replaced', monitor.begin(2))
    monitor.dropped_invalid('no rows; expected some', monitor.begin(3))
    monitor.dropped_invalid('no rows')
    assert told == [(1, ''), (2, 'replaced'), (3, 'no rows; expected some')]
    drops = {drop.reason: drop.frames for drop in filled(monitor).drops}
    assert drops == {'replaced': 1, 'no rows': 2}


def test_counters_from_many_threads():
    monitor = TaskMonitor(lambda: 0)

    def work():
        for _ in range(500):
            monitor.received()
            monitor.dropped_newer('replaced', monitor.begin(0))
            monitor.dropped_invalid('bad')
            monitor.published(monitor.begin(0))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = filled(monitor)
    counted = (status.received, status.dropped_newer, status.dropped_invalid, status.frames)
    assert counted == (2000,) * 4
    assert sum(drop.frames for drop in status.drops) == 4000
    monitor.reset()
    assert filled(monitor).received == 0
    assert not filled(monitor).drops

"""What a task measures of itself."""

import threading

import pytest

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts.stages import TaskMonitor


def filled(monitor) -> TaskStatus:
    status = TaskStatus()
    monitor.fill(status)
    return status


def test_percentiles_and_deadline():
    now = [0]
    monitor = TaskMonitor(lambda: now[0])
    monitor.deadline_ms = 50.0
    for age in range(1, 101):
        now[0] = 1_000_000 * (1000 + age)
        monitor.published(1_000_000_000, infer=age / 2)
    status = filled(monitor)
    stages = {stage.name: stage for stage in status.stages}
    assert stages['total'].p50_ms == pytest.approx(50.5)
    assert stages['total'].p99_ms == pytest.approx(99.01)
    assert stages['total'].max_ms == pytest.approx(100)
    assert stages['infer'].p50_ms == pytest.approx(25.25)
    assert status.deadline_misses == 50
    assert status.frames == 100
    assert status.fps > 0


def test_nothing_measured():
    status = filled(TaskMonitor(lambda: 0))
    assert (status.frames, status.fps, list(status.stages)) == (0, 0.0, [])


def test_counters_from_many_threads():
    monitor = TaskMonitor(lambda: 0)

    def work():
        for _ in range(500):
            monitor.received()
            monitor.dropped_newer()
            monitor.dropped_invalid()
            monitor.published(0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = filled(monitor)
    counted = (status.received, status.dropped_newer, status.dropped_invalid, status.frames)
    assert counted == (2000,) * 4
    monitor.reset()
    assert filled(monitor).received == 0

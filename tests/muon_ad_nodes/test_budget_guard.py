"""The guard of a real-time class: with a kernel that takes notes, and with the real one."""

import os
import subprocess
import sys

import psutil
import pytest
from support import wait_until

from muon_ad_nodes.parts import budget_guard
from muon_ad_nodes.parts.budget import Budget
from muon_ad_nodes.parts.budget_guard import BudgetGuard
from muon_ad_nodes.parts.realtime import RealtimeSettings

SETTINGS = RealtimeSettings('fifo', 80, fallback='batch')


class Classes:
    """What class the process was given, by the calls; and a clock of CPU time to be set."""

    def __init__(self, monkeypatch) -> None:
        self.given: list[tuple[str, int]] = []
        self.watchers: list[int] = []
        self.spent_s = 0.0
        monkeypatch.setattr(
            budget_guard.realtime, 'set_class', lambda *given: self.given.append(given)
        )
        monkeypatch.setattr(
            os, 'sched_setscheduler',
            lambda _thread, _policy, parameter: self.watchers.append(parameter.sched_priority),
        )
        monkeypatch.setattr(budget_guard.time, 'process_time', lambda: self.spent_s)


@pytest.fixture
def classes(monkeypatch):
    return Classes(monkeypatch)


@pytest.fixture
def guarded(classes):
    """A guard of 50 ms, 2 frames to lose and 3 to regain the class; and what it told."""
    told = []
    guard = BudgetGuard(SETTINGS, Budget(50.0, 2, 3), lambda: told.append(guard.message))
    yield guard, told
    guard.close()


def work(classes: Classes, guard: BudgetGuard, *frames_ms: float) -> None:
    for spent_ms in frames_ms:
        with guard.frame():
            classes.spent_s += spent_ms * 1e-3


def test_over_budget_it_leaves_its_class_and_returns(classes, guarded):
    guard, told = guarded
    work(classes, guard, 60, 40, 60)
    assert (classes.given, told, guard.message) == ([], [], '')
    work(classes, guard, 60)
    assert classes.given == [('batch', 0)]
    assert 'out of fifo' in told[0] and '50 ms' in told[0] and 'realtime.budget_ms' in told[0]
    work(classes, guard, 40, 40)
    assert len(classes.given) == 1
    work(classes, guard, 40)
    assert classes.given == [('batch', 0), ('fifo', 80)]
    assert told[1:] == [''] and guard.message == ''
    # Above the others from the start, and again after they all were given one class.
    wait_until(lambda: classes.watchers == [81, 81], 5, 'the watcher to rise')


def test_a_frame_that_raises_counts(classes, guarded):
    guard, _ = guarded
    for _ in range(2):
        with pytest.raises(OSError), guard.frame():
            classes.spent_s += 0.06
            raise OSError
    assert classes.given == [('batch', 0)]


def test_a_frame_that_does_not_end_is_seen_by_another_thread(classes, guarded):
    guard, told = guarded
    with guard.frame():
        classes.spent_s += 0.101
        wait_until(lambda: told, 5, 'the guard to speak')
        assert classes.given == [('batch', 0)]


def test_closing_gives_the_class_back(classes):
    guard = BudgetGuard(SETTINGS, Budget(50.0, 1, 3), lambda: None)
    work(classes, guard, 60)
    guard.close()
    assert classes.given == [('batch', 0), ('fifo', 80)]


RUNAWAY = """
import os, sys, threading
from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts.budget import Budget
from muon_ad_nodes.parts.budget_guard import BudgetGuard
core = min(os.sched_getaffinity(0))
asked = realtime.RealtimeSettings('fifo', 3, cpus=(core,))
if realtime.apply(asked)[1]:
    print('refused')
    sys.exit()
guard = BudgetGuard(asked, Budget(20.0, 5, 10), lambda: None)
print(core, flush=True)
with guard.frame():
    while True:
        pass
"""
NEIGHBOUR = 'import os; os.sched_setaffinity(0, ({},))\nwhile True: pass'


@pytest.fixture
def started():
    """A function that runs code in a process, which ends with the test."""
    processes = []

    def start(code: str) -> subprocess.Popen:
        processes.append(subprocess.Popen(
            [sys.executable, '-c', code], stdout=subprocess.PIPE, text=True,
            env={**os.environ, 'PYTHONPATH': ':'.join(sys.path)},
        ))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def policies(process: subprocess.Popen) -> set[int]:
    return {os.sched_getscheduler(thread.id) for thread in psutil.Process(process.pid).threads()}


def cpu_s(process: subprocess.Popen) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def test_a_task_that_runs_away_cannot_starve_its_neighbours(started):
    """Throttling alone leaves them a twentieth of what the runaway takes."""
    runaway = started(RUNAWAY)
    core = runaway.stdout.readline().strip()
    if core == 'refused':
        pytest.skip('no permission for SCHED_FIFO on this machine')
    neighbour = started(NEIGHBOUR.format(core))
    wait_until(lambda: policies(runaway) == {os.SCHED_OTHER}, 20, 'the guard to step in')
    before = cpu_s(runaway), cpu_s(neighbour)
    wait_until(lambda: cpu_s(neighbour) - before[1] > 0.1, 60, 'the neighbour to work')
    assert cpu_s(neighbour) - before[1] > (cpu_s(runaway) - before[0]) / 4

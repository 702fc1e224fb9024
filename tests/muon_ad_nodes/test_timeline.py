"""The time of a recording that is played, against a clock that the tests turn."""

import threading
import time

import pytest
from support import wait_until

from muon_ad_nodes.parts import timeline
from muon_ad_nodes.parts.timeline import between_rounds_s
from muon_ad_nodes.parts.timeline import Timeline

S = 1_000_000_000


class Steady:
    """A steady clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 5 * S

    def monotonic_ns(self) -> int:
        """The time."""
        return self.now


@pytest.fixture
def steady(monkeypatch) -> Steady:
    """The clock by which a Timeline goes."""
    clock = Steady()
    monkeypatch.setattr(timeline, 'time', clock)
    return clock


def test_time_goes_at_the_rate_and_a_new_rate_does_not_jump(steady):
    line = Timeline(2.0, False, lambda: 0)
    line.begin(100 * S)
    steady.now += 3 * S
    assert line.late_s(106 * S) == 0.0 and line.late_s(104 * S) == 1.0
    line.set_rate(0.5)
    assert line.late_s(106 * S) == 0.0
    steady.now += 4 * S
    assert line.late_s(106 * S) == 4.0


def test_a_message_passes_when_its_time_has_come(steady):
    line = Timeline(1.0, False, lambda: 0)
    line.begin(100 * S)
    steady.now += S
    assert line.wait(100 * S) and line.wait(101 * S)
    passed = []
    thread = threading.Thread(target=lambda: passed.append(line.wait(103 * S)))
    thread.start()
    assert not passed
    line.stop()
    thread.join(5)
    assert passed == [False]
    assert not line.wait(100 * S)


def test_a_wait_ends_early_where_something_else_is_to_be_done(steady):
    line = Timeline(1.0, False, lambda: 0)
    line.begin(100 * S)
    assert not line.wait(103 * S, 0.0)
    ended = []
    thread = threading.Thread(target=lambda: ended.append(line.wait(103 * S, 1.0)))
    thread.start()
    line.set_paused(True)
    steady.now += 2 * S
    line.set_rate(2.0)      # wakes it
    assert thread.is_alive()
    line.set_paused(False)
    thread.join(5)
    assert ended == [False]


@pytest.mark.parametrize(
    ('counts', 'duration_s', 'rate', 'expected_s'),
    [
        ([31, 4], 3.0, 1.0, 0.1),       # of the busiest topic
        ([31], 3.0, 0.5, 0.2),
        ([1], 0.0, 1.0, 1.0),           # nothing tells: never a flood
        ([2], 3600.0, 1.0, 1.0),
        ([100], 0.0, 10.0, 0.001),      # all at once
    ],
)
def test_the_last_of_a_round_stands_as_long_as_others(counts, duration_s, rate, expected_s):
    assert between_rounds_s(counts, duration_s, rate) == pytest.approx(expected_s)


def test_the_clock_never_passes_a_message_that_was_not_sent(steady):
    line = Timeline(1.0, False, lambda: 0)
    line.begin(100 * S)
    steady.now += 5 * S
    assert line.clock_ns() == 100 * S
    assert line.wait(102 * S)
    assert line.clock_ns() == 102 * S


def test_a_pause_stops_time_and_steps_let_one_pass(steady):
    line = Timeline(1.0, True, lambda: 0)
    line.begin(100 * S)
    steady.now += 50 * S
    assert line.paused and line.late_s(100 * S) == 0.0
    passed = []

    def play() -> None:
        for message in (101 * S, 102 * S, 103 * S):
            passed.append(line.wait(message) and message)

    thread = threading.Thread(target=play)
    thread.start()
    assert line.step()
    wait_until(lambda: passed == [101 * S], 5, 'the first message')
    assert line.clock_ns() == 101 * S
    assert line.step()
    wait_until(lambda: passed == [101 * S, 102 * S], 5, 'the second message')
    steady.now += 50 * S
    line.set_paused(False)
    assert not line.step()
    assert passed[2:] == [] and line.late_s(102 * S) == 0.0
    line.stop()
    thread.join(5)


def test_new_stamps_keep_their_distances(steady):
    line = Timeline(2.0, False, lambda: 1000 * S + steady.now)
    line.begin(100 * S)
    assert line.wall_time(100 * S) == 1005 * S
    steady.now += S
    assert line.wall_time(100 * S) == 1005 * S and line.wall_time(106 * S) == 1008 * S


def test_no_message_comes_before_its_time():
    line = Timeline(10.0, False, lambda: 0)
    line.begin(0)
    begun = time.monotonic()
    for number in range(1, 21):
        assert line.wait(number * S // 10)
        assert time.monotonic() - begun >= number / 100

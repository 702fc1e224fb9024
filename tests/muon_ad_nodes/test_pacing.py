"""Turns at a frame rate, in a time that the test makes pass."""

import pytest

from muon_ad_nodes.parts import pacing
from muon_ad_nodes.parts.pacing import Pacer

FPS = 25.0


class Clock:
    """Stands in for the module `time` and for an Event: waiting takes `late_s` too long."""

    def __init__(self, late_s):
        self.now = 100.0
        self.late_s = late_s

    def monotonic(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds + self.late_s
        return False


@pytest.mark.parametrize('skip', [True, False])
def test_turns_do_not_drift_though_every_one_is_late(monkeypatch, skip):
    clock = Clock(late_s=0.003)
    monkeypatch.setattr(pacing, 'time', clock)
    pacer = Pacer(FPS, skip)
    for turn in range(1000):
        assert pacer.wait(clock)
        assert clock.now == pytest.approx(100.003 + turn / FPS)


def test_who_is_very_late_loses_turns_of_a_camera_but_none_of_a_file(monkeypatch):
    for skip, expected in ((True, 100.16), (False, 100.19)):
        clock = Clock(late_s=0.0)
        monkeypatch.setattr(pacing, 'time', clock)
        pacer = Pacer(FPS, skip)
        pacer.wait(clock)
        clock.now += 0.15       # nearly four periods
        assert pacer.wait(clock)
        assert clock.now == pytest.approx(100.15)
        assert pacer.wait(clock)
        assert clock.now == pytest.approx(expected)

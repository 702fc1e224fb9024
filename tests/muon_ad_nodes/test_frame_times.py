"""The way of a frame: stages without gaps."""

import pytest

from muon_ad_nodes.parts.frame_times import FrameTimes

MS = 1_000_000


def test_stages_add_up_to_the_total():
    times = FrameTimes(stamp_ns=7, begun_ns=100 * MS)
    for stage, at_ms in (('capture', 103), ('infer', 123), ('publish', 124)):
        times.mark(stage, at_ms * MS)
    assert times.stages_ms() == pytest.approx(
        {'capture': 3.0, 'infer': 20.0, 'publish': 1.0, 'total': 24.0}
    )


def test_a_stage_ends_now():
    times = FrameTimes(stamp_ns=0, begun_ns=0)
    times.mark('capture')
    times.mark('infer')
    assert 0 < times.ends_ns[0][1] <= times.ends_ns[1][1]

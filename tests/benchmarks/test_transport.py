"""Figures of an image link, from what was sent and received."""

import numpy as np
import pytest
import transport
from hypothesis import given
from hypothesis import strategies as st

MS = 1_000_000
FRAME = 33 * MS


def sent(count: int) -> list[tuple[int, int]]:
    return [(FRAME * index, MS) for index in range(count)]


def test_a_link_that_delivers_all_after_the_same_time():
    frames = sent(100)
    found = transport.figures(frames, [(stamp, stamp + 4 * MS) for stamp, _ in frames])
    assert found['delivered'] == 1.0
    assert found['p50_ms'] == found['p99_ms'] == pytest.approx(4)
    assert found['fill_ms'] == pytest.approx(1)
    # Between two frames the newest one ages from 4 ms to 4 + 33.
    assert found['age_p50_ms'] == pytest.approx(4 + 33 / 2, abs=1)
    assert found['age_p99_ms'] == pytest.approx(4 + 33, abs=1)


def test_losing_frames_ages_the_newest_but_not_the_latency():
    frames = sent(300)
    received = [(stamp, stamp + 4 * MS) for stamp, _ in frames]
    all_of_them, every_third = (
        transport.figures(frames, received[::step]) for step in (1, 3)
    )
    assert every_third['delivered'] == pytest.approx(1 / 3)
    assert every_third['p50_ms'] == all_of_them['p50_ms']
    assert every_third['age_p99_ms'] == pytest.approx(4 + 3 * 33, abs=2)


def test_a_link_that_delivers_nothing_has_an_age_and_no_latency():
    found = transport.figures(sent(11), [])
    assert found['delivered'] == 0
    assert found['p50_ms'] is found['p99_ms'] is None
    assert found['age_p50_ms'] == pytest.approx(5 * 33, abs=1)


def test_few_frames_have_no_99th_percentile():
    frames = sent(transport.ENOUGH - 1)
    found = transport.figures(frames, [(stamp, stamp + MS) for stamp, _ in frames])
    assert found['p50_ms'] == pytest.approx(1)
    assert found['p99_ms'] is None


@given(st.permutations(range(12)))
def test_frames_out_of_order_never_make_the_newest_older(order):
    received = [(FRAME * number, FRAME * 12 + MS * at) for at, number in enumerate(order)]
    ages = transport.ages_ms(received, 0, FRAME * 13)
    newest = np.arange(len(ages)) - ages
    assert (np.diff(newest) >= -1e-6).all()
    assert newest[-1] == pytest.approx(FRAME * 11 / MS)


def test_ratios_are_made_round_by_round_for_each_camera_and_peer():
    def rounds(*delivered: float) -> list[dict]:
        return [dict.fromkeys(transport.FIGURES, value) for value in delivered]

    measured = {
        name: {size: rounds(*values) for size in transport.CAMERAS}
        for name, values in {
            'suite': (1.0, 1.0), 'reliable': (0.5, 1.0), 'best_effort': (0.25, 0.0),
        }.items()
    }
    found = transport.compare(measured)
    assert found['delivered_1280x720']['median'] == 1.0
    assert found['delivered_640x480_vs_reliable']['rounds'] == [2.0, 1.0]
    assert found['p99_640x480_vs_best_effort']['rounds'] == [4.0, None]

"""The camera of known timing, ages and misses, and the ratios of four benchmarks with nodes."""

import _ages
import numpy as np
import overload
import priority
import pytest
import scale
import stream
from _camera import Schedule
from _identity_package import write_identity_package
from hypothesis import given
from hypothesis import strategies as st

from muon_ad.runtime.package import load_package
from muon_ad.runtime.style import StyleModel

MS = 1_000_000


def test_frames_are_due_at_equal_distances():
    schedule = Schedule(30.0, 5 * MS)
    due = []
    for _ in range(4):
        due.append(schedule.due_ns())
        schedule.advance(due[-1] + MS)
    assert due == [5 * MS + round(n * 1e9 / 30) for n in range(4)]


def test_a_late_camera_goes_on_with_the_newest_frame_and_its_moment():
    schedule = Schedule(100.0, 0)
    schedule.advance(47 * MS)
    assert schedule.due_ns() == 40 * MS
    schedule.advance(48 * MS)
    assert schedule.due_ns() == 50 * MS


@given(st.floats(0.1, 500), st.lists(st.integers(0, 10 ** 10), min_size=1))
def test_no_frame_is_sent_twice_or_back_in_time(fps, moments):
    schedule = Schedule(fps, 0)
    due = []
    for now in sorted(moments):
        due.append(schedule.due_ns())
        schedule.advance(max(now, due[-1]))
    assert due == sorted(set(due))


def test_ages_are_those_of_frames_due_in_the_window():
    results = [(0, 9 * MS), (10 * MS, 50 * MS), (20 * MS, 22 * MS), (30 * MS, 31 * MS)]
    assert _ages.ages_ms(results, 10 * MS, 30 * MS).tolist() == [40, 2]


def test_late_lost_and_skipped_frames_are_missed():
    ages = np.array([10.0] * 6 + [67.0, 500.0])
    found = _ages.figures(ages, 1.0, 10.0, 66.0)
    assert found['missed_percent'] == pytest.approx(40)
    assert found['fps'] == 8 and found['p50_ms'] == 10
    nothing = _ages.figures(np.array([]), 1.0, 10.0, 66.0)
    assert nothing['missed_percent'] == 100 and nothing['p99_ms'] is None


def test_priority_sums_up_phases_and_compares_round_by_round():
    def phase(age: float) -> tuple[np.ndarray, dict]:
        ages = np.full(75, age)
        return ages, {**_ages.figures(ages, 2.5, 30.0, 66.0), 'detector_fps': 30.0}

    ages_of = {'other': 120.0, 'control': 100.0, 'classes': 20.0, 'alone': 25.0}
    rounds = {name: [priority.summed([phase(age)] * 2)] for name, age in ages_of.items()}
    found = {name: ratio['median'] for name, ratio in priority.compare(rounds).items()}
    assert found == {
        'p99_other_over_classes': 6.0, 'p99_other_over_control': 1.2,
        'p99_joint_over_alone': 0.8, 'missed_percent_classes': 0.0,
        'missed_percent_other': 100.0, 'detector_fps_classes': 30.0,
    }


def test_a_set_up_that_delivers_nothing_has_no_ratio():
    nothing = np.array([]), {**_ages.figures(np.array([]), 2.5, 30.0, 66.0), 'detector_fps': 0.0}
    rounds = {name: [priority.summed([nothing])] for name in priority.SET_UPS}
    assert priority.compare(rounds)['p99_other_over_classes']['median'] is None


def test_stream_is_held_against_its_aims():
    case = stream.Case('dense_640x480', True)
    rounds = {'fps': {'rounds': [12.0]}, 'p99_ms': {'rounds': [33.0]}, 'detector_fps': {}}
    found = stream.compare({case: rounds})
    assert found['fps_dense_640x480_classes_over_aim']['median'] == 0.5
    assert found['p99_dense_640x480_classes_over_aim']['median'] == 0.5


def test_overload_compares_the_most_with_the_least_and_counts_what_is_missing():
    def rounds(age: float, unaccounted: int, *memory: float) -> list[dict]:
        return [
            {'p50_ms': age, 'p99_ms': age, 'fps': 30.0, 'unaccounted': unaccounted, 'memory_mb': m}
            for m in memory
        ]

    found = overload.compare({
        1: rounds(40.0, 0, 100.0, 100.0), 2: rounds(40.0, 0, 100.0, 150.0),
        4: rounds(40.0, -1, 100.0, 100.0), 8: rounds(60.0, 1, 100.0, 100.0),
    })
    assert found['age_p50_8x_over_1x']['rounds'] == [1.5, 1.5]
    assert found['unaccounted_frames']['median'] == 4
    assert found['memory_growth']['median'] == 1.5


def test_scale_compares_the_cost_of_a_camera():
    measured = {
        count: [{'cpu_percent': cost, 'delivered': 1.0}]
        for count, cost in ((1, 4.0), (2, 4.0), (4, 5.0), (8, 2.0))
    }
    found = {name: ratio['median'] for name, ratio in scale.compare(measured).items()}
    assert found == {
        'cost_2_over_line': 1.0, 'cost_4_over_line': 1.25, 'cost_8_over_line': 0.5,
        'delivered_8': 1.0,
    }


def test_the_identity_package_hands_the_image_on(tmp_path):
    model = StyleModel(load_package(write_identity_package(tmp_path, (64, 48))))
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    assert (model.stylise(frame) == frame).all()

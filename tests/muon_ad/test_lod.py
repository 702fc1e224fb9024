"""The choice of a variant: in time whenever that can be, never too good, never restless."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from muon_ad.runtime.lod import CameraPeriod
from muon_ad.runtime.lod import LodController
from muon_ad.runtime.lod import LodSettings
from muon_ad.runtime.lod import LONGEST_PATIENCE
from muon_ad.runtime.lod import measured_costs_ms
from muon_ad.runtime.lod import SceneDemand
from muon_ad.runtime.lod import WARM_UP_ROUNDS
from muon_ad.runtime.lod import WINDOW

COSTS = (60.0, 25.0, 10.0)
LAST = len(COSTS) - 1
PATIENCE = LodSettings.patience
MOST_LOAD = 100 / COSTS[LAST]       # under which something is in time for a deadline of 100 ms

FEW = settings(max_examples=25)      # of those that give a controller hundreds of frames
LOADS = st.lists(st.floats(0.5, 12.0), min_size=1, max_size=300)
# A load that stays for a while, then another.
PHASES = st.lists(st.tuples(st.floats(0.5, 12.0), st.integers(1, 80)), min_size=1, max_size=8).map(
    lambda phases: [load for load, frames in phases for _ in range(frames)]
)


def run(controller, loads, costs=COSTS, wanted=0, **given):
    """Give the controller a frame for each load; return the variants it chose."""
    given.setdefault('left_ms', 100.0)
    chosen = []
    for load in loads:
        level = controller.choose(wanted=wanted, **given)
        controller.observe(costs[level] * load)
        chosen.append(level)
    return chosen


def changes(chosen):
    """Return (frame, step) of each change; steps up are negative."""
    return [
        (index, after - before)
        for index, (before, after) in enumerate(zip(chosen, chosen[1:], strict=False), 1)
        if after != before
    ]


def in_time(load):
    """The best variant that is in time for a deadline of 100 ms, or the last one."""
    return next((i for i, cost in enumerate(COSTS) if cost * load <= 100), LAST)


def test_the_best_is_used_as_long_as_it_is_in_time():
    controller = LodController(COSTS)
    assert set(run(controller, [1.5] * 200)) == {0}
    assert controller.switches == 0


def test_the_first_frame_already_gets_what_is_in_time():
    assert LodController(COSTS).choose(30.0) == 1
    assert LodController(COSTS).choose(5.0) == LAST
    assert LodController(COSTS).choose(-20.0) == LAST


@given(PHASES, st.integers(0, LAST))
@FEW
def test_it_never_picks_above_the_wanted_level(loads, wanted):
    assert min(run(LodController(COSTS), loads, wanted=wanted)) >= wanted


@given(st.floats(0.2, MOST_LOAD), PHASES)
@FEW
def test_it_meets_the_deadline_whenever_any_variant_can(load, before):
    """Whatever was before: as soon as the window knows the load."""
    controller = LodController(COSTS)
    run(controller, before)
    chosen = run(controller, [load] * 3 * WINDOW)[WINDOW:]
    assert all(COSTS[level] * load <= 100 for level in chosen)


@given(st.floats(1.8, MOST_LOAD))
@FEW
def test_it_steps_down_within_a_few_frames_of_a_load(load):
    controller = LodController(COSTS)
    run(controller, [1.0] * 100)
    late = [level for level in run(controller, [load] * 50) if COSTS[level] * load > 100]
    assert len(late) <= WINDOW // 4


def test_a_single_slow_frame_is_not_a_load():
    controller = LodController(COSTS)
    assert set(run(controller, ([1.0] * 29 + [9.0]) * 10)) == {0}


def test_the_load_of_the_variant_in_use_is_that_of_the_others():
    controller = LodController(COSTS, level=LAST)
    assert set(run(controller, [3.0] * 300)) == {LAST, 1}, 'dense would take 180 ms'


@given(st.lists(st.floats(0.5, 12.0), max_size=200))
@FEW
def test_it_recovers_the_best_when_the_load_goes_away(loads):
    patience = 5
    controller = LodController(COSTS, LodSettings(patience=patience))
    run(controller, loads)
    longest = LONGEST_PATIENCE * patience
    assert run(controller, [1.0] * (WINDOW + longest + 1))[-1] == 0


def test_it_recovers_soon_from_a_load_that_came_once():
    controller = LodController(COSTS)
    run(controller, [1.0] * 100 + [5.0] * 100)
    chosen = run(controller, [1.0] * 100)
    assert chosen.index(0) <= WINDOW + PATIENCE


@given(LOADS, st.integers(1, 40))
def test_a_step_up_is_earned_in_patience_frames(loads, patience):
    """Between a step down for want of time and the next step up, and before the first."""
    controller = LodController(COSTS, LodSettings(patience=patience), level=LAST)
    fell = 0
    for at, step in changes(run(controller, loads)):
        assert step > 0 or at - fell >= patience - 1
        fell = at if step > 0 else fell


@given(LOADS)
def test_so_the_switches_are_bounded(loads):
    controller = LodController(COSTS)
    run(controller, loads)
    assert controller.switches <= 2 * LAST * (1 + len(loads) / PATIENCE)


def test_a_variant_that_never_holds_is_tried_ever_more_rarely():
    """The costs are wrong: the best takes twice what is expected of it."""
    controller = LodController((40.0, 20.0))
    chosen = run(controller, [1.0] * 3000, costs=(200.0, 20.0))
    ups = [at for at, step in changes(chosen) if step < 0]
    waits = [after - before for before, after in zip(ups, ups[1:], strict=False)]
    assert waits == sorted(waits)
    assert waits[-1] >= LONGEST_PATIENCE * PATIENCE
    assert len(ups) <= math.log2(LONGEST_PATIENCE) + 3000 / (LONGEST_PATIENCE * PATIENCE) + 1


def test_after_one_that_holds_the_patience_is_as_set():
    controller = LodController((40.0, 20.0))
    run(controller, [1.0] * 500, costs=(200.0, 20.0))
    run(controller, [1.0] * 3 * LONGEST_PATIENCE * PATIENCE, costs=(40.0, 20.0))
    run(controller, [4.0] * 30)
    chosen = run(controller, [1.0] * 100)
    assert chosen.index(0) <= WINDOW + PATIENCE


@given(PHASES, st.floats(1.0, 300.0), st.floats(0.0, 300.0))
@FEW
def test_more_time_never_means_a_worse_variant(loads, left_ms, more_ms):
    """Where a variant that is tried holds; a failed trial costs patience."""
    tight, loose = (LodController(COSTS, LodSettings(patience=4)) for _ in range(2))
    settled = [loads[-1]] * (2 * WINDOW + 4 * LONGEST_PATIENCE)
    run(tight, loads, left_ms=left_ms)
    run(loose, loads, left_ms=left_ms + more_ms)
    worse = run(tight, settled, left_ms=left_ms)[-1]
    assert run(loose, settled, left_ms=left_ms + more_ms)[-1] <= worse


def test_a_better_variant_needs_margin_and_the_one_in_use_does_not():
    nearly = [0.95 * 100 / COSTS[0]] * 200
    assert set(run(LodController(COSTS), nearly)) == {0}
    assert set(run(LodController(COSTS, level=1), nearly)) == {1}


@given(st.floats(0.3, 8.0))
@FEW
def test_under_a_steady_load_it_comes_to_rest(load):
    controller = LodController(COSTS)
    run(controller, [load] * 300)
    before = controller.switches
    chosen = run(controller, [load] * 300)
    assert controller.switches == before
    assert chosen[0] in (in_time(load), in_time(load * 1.2))


def test_it_degrades_before_it_drops_frames():
    """All are in time, but only the second is as fast as the camera."""
    controller = LodController(COSTS)
    assert set(run(controller, [1.0] * 100, period_ms=33.3)) == {1}
    assert set(run(LodController(COSTS), [1.0] * 100, period_ms=5.0)) == {LAST}


def test_one_slow_frame_does_not_make_a_variant_slower_than_the_camera():
    loads = ([1.0] * 7 + [2.0]) * 20
    assert set(run(LodController(COSTS), loads, left_ms=1000.0, period_ms=70.0)) == {0}


def test_other_work_and_the_age_of_the_frame_count():
    controller = LodController(COSTS)
    for _ in range(100):
        controller.observe(COSTS[controller.choose(100.0)], rest_ms=50.0)
    assert controller.level == 1
    assert controller.predicted_ms == pytest.approx(25 + 50)
    assert controller.choose(60.0) == LAST


def test_without_a_deadline_the_wanted_variant_is_used():
    assert set(run(LodController(COSTS), [50.0] * 50, left_ms=math.inf, wanted=1)) == {1}


def test_what_the_scene_wants_is_no_failure():
    """A plain scene lowers the variant at once; a rich one gets the better one back at once."""
    controller = LodController(COSTS)
    run(controller, [1.0] * 100)
    for _ in range(5):
        assert run(controller, [1.0] * 20, wanted=LAST) == [LAST] * 20
        assert run(controller, [1.0] * 20, wanted=0) == [0] * 20


def test_one_variant_is_always_the_one():
    assert set(run(LodController([30.0]), [1.0, 9.0] * 50, costs=[30.0])) == {0}


@given(st.integers(1, 6), st.lists(st.floats(0, 1), min_size=1, max_size=100))
@FEW
def test_the_demand_is_a_variant(levels, entropies):
    demand = SceneDemand(levels)
    assert all(0 <= demand.update(value) < levels for value in entropies)


@given(st.integers(1, 6), st.floats(0, 1), st.floats(0, 1))
def test_a_richer_scene_never_wants_a_worse_variant(levels, low, high):
    low, high = sorted((low, high))
    plain, rich = (SceneDemand(levels).update(value) for value in (low, high))
    assert rich <= plain


def test_blank_scenes_want_the_last_and_rich_ones_the_best():
    demand = SceneDemand(3)
    assert demand.update(0.9) == 0
    assert [demand.update(0.1) for _ in range(60)][-1] == LAST
    middle = (LodSettings.plain + LodSettings.rich) / 2
    assert [demand.update(middle) for _ in range(60)][-1] == 1


def test_a_scene_at_the_edge_does_not_flicker():
    demand = SceneDemand(2)
    edge = (LodSettings.plain + LodSettings.rich) / 2
    wanted = [demand.update(edge + (0.05 if frame % 2 else -0.05)) for frame in range(200)]
    assert len(changes(wanted)) == 0


def test_equal_bounds_make_two_kinds_of_scenes():
    always = LodSettings(plain=0.0, rich=0.0)
    assert SceneDemand(3, always).update(0.0) == 0
    half = LodSettings(plain=0.5, rich=0.5)
    assert [SceneDemand(3, half).update(value) for value in (0.49, 0.5)] == [LAST, 0]


def test_the_period_counts_frames_that_were_not_worked_on():
    period = CameraPeriod()
    assert period.update(0.0, 1) == math.inf
    # Every third frame is worked on; the camera has 30 a second.
    found = [period.update(0.1 * index, 1 + 3 * index) for index in range(1, 20)]
    assert found[0] == math.inf
    assert found[-1] == pytest.approx(100 / 3)


def test_costs_are_medians_of_runs_that_take_turns_after_the_first_ones(monkeypatch):
    now, ran = [0.0], []
    monkeypatch.setattr(time, 'perf_counter', lambda: now[0])

    def takes(name, seconds):
        def run():
            ran.append(name)
            now[0] += 9.0 if len(ran) <= 2 * WARM_UP_ROUNDS else seconds
        return run

    costs = measured_costs_ms([takes('a', 0.02), takes('b', 0.01)], rounds=3)
    assert ran == ['a', 'b'] * (WARM_UP_ROUNDS + 3)
    assert costs == pytest.approx([20, 10])

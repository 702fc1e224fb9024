"""The model of a node that the benchmark of the level of detail replays traces through."""

import _lod_record
import lod
import numpy as np
import pytest

QUALITIES = (1.0, 0.25)


def trace(*phases: tuple[float, float, float]) -> lod.Trace:
    """Phases of seconds and of what the two variants take in them, sampled every 0.1 s."""
    counts = [round(seconds * 10) for seconds, *_ in phases]
    ms = np.repeat([times for _, *times in phases], counts, axis=0)
    return lod.Trace(np.arange(1, len(ms) + 1) / 10, ms)


def figures(outcome: lod.Outcome, of: lod.Trace) -> dict[str, float]:
    return outcome.figures(QUALITIES, of.seconds)


IDLE, BUSY = (20.0, 60.0, 20.0), (20.0, 150.0, 50.0)


def test_a_variant_faster_than_the_camera_has_all_frames_in_time():
    steady = trace(IDLE)
    found = figures(lod.fixed(0)(steady, 10.0, 100.0), steady)
    assert found == {
        'in_time_percent': 100, 'late_percent': 0, 'dropped_percent': 0, 'quality': 1,
        'switches_per_minute': 0,
    }
    assert figures(lod.fixed(1)(steady, 10.0, 100.0), steady)['quality'] == 0.25


def test_results_are_as_old_as_all_that_was_done_for_them():
    outcome = lod.fixed(0)(trace(IDLE), 10.0, 100.0)
    expected = 60 + 1e3 * (lod.ARRIVAL_S + lod.REST_S)
    assert outcome.ages_ms == pytest.approx([expected] * outcome.offered)
    late = lod.fixed(0)(trace(IDLE), 10.0, expected - 1)
    assert figures(late, trace(IDLE))['late_percent'] == 100


def test_a_variant_slower_than_the_camera_drops_frames_and_works_on_the_newest():
    slow = trace((20.0, 197.0, 20.0))
    outcome = lod.fixed(0)(slow, 10.0, 1000.0)
    assert figures(outcome, slow)['dropped_percent'] == pytest.approx(50, abs=1)
    assert max(outcome.ages_ms) < 197 + 100 + 10


def test_the_choice_keeps_the_deadline_under_load_and_the_quality_without():
    changing = trace(IDLE, BUSY, IDLE)
    ours, large, small, best = (
        figures(simulate(changing, 10.0, 100.0), changing)
        for simulate in (lod.chosen, lod.fixed(0), lod.fixed(1), lod.possible)
    )
    assert small['in_time_percent'] == best['in_time_percent'] == 100
    assert large['in_time_percent'] < 70
    assert ours['in_time_percent'] > 98
    assert ours['quality'] > 0.9 * best['quality'] > small['quality']
    assert best['quality'] >= ours['quality']
    assert ours['switches_per_minute'] == pytest.approx(2, abs=0.1)


def test_ratios_are_those_of_the_choice_over_single_variants():
    traces = [trace(IDLE, BUSY), trace(BUSY, IDLE)]
    found = lod.measure({'dense': 1.0, 'pruned': 0.25}, traces, 100.0)
    assert list(found) == ['dense', 'pruned', lod.CHOSEN, lod.POSSIBLE]
    ratios = lod.compare(found)
    assert ratios['in_time_vs_large']['rounds'] == [
        ours / large for ours, large in zip(
            *(found[who]['in_time_percent']['rounds'] for who in (lod.CHOSEN, 'dense')),
            strict=True,
        )
    ]
    assert ratios['quality_vs_small']['median'] > 1
    assert ratios['quality_of_possible']['median'] <= 1


def test_the_recorded_traces_have_all_loads_and_two_variants():
    qualities, traces, about = lod.load()
    assert [*qualities.values()] == pytest.approx([1.0, 0.25], abs=0.01)
    assert len(traces) == _lod_record.TRACES
    for each in traces:
        assert (np.diff(each.at_s) > 0).all()
        assert each.ms.shape == (len(each.at_s), 2) and (each.ms > 0).all()
    assert about['made_by'].endswith('_lod_record.py')


def test_each_trace_has_every_load_once_in_an_order_of_its_own():
    orders = [_lod_record.phases(number) for number in range(_lod_record.TRACES)]
    for order in orders:
        assert sorted(order[1::2]) == sorted(_lod_record.LOADS)
        assert set(order[::2]) == {'nothing'}
    assert len(set(map(tuple, orders))) == len(orders)

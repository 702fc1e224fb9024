"""Medians, spread and ratios as the benchmarks report them."""

import json

import _common
import pytest
from hypothesis import given
from hypothesis import strategies as st

FIGURES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=9)


@given(FIGURES)
def test_the_median_lies_within_the_spread_and_the_rounds_are_kept(values):
    found = _common.spread(values)
    assert found['min'] <= found['median'] <= found['max']
    assert found['rounds'] == values


def test_rounds_without_a_figure_are_left_out_of_the_median():
    found = _common.spread([3.0, None, 1.0, 8.0])
    assert (found['median'], found['min'], found['max']) == (3.0, 1.0, 8.0)
    assert found['rounds'] == [3.0, None, 1.0, 8.0]


def test_nothing_measured_is_not_zero():
    assert _common.spread([None, None])['median'] is None
    assert _common.shown(_common.spread([None])) == '-'


@given(FIGURES, st.floats(0.1, 10))
def test_what_slows_both_in_a_round_does_not_change_the_ratio(values, factor):
    slowed = [value * factor for value in values]
    assert _common.ratio(slowed, values)['median'] == pytest.approx(factor)


def test_a_ratio_needs_both_and_never_divides_by_zero():
    found = _common.ratio([1.0, None, 1.0, 6.0], [0.0, 1.0, None, 3.0])
    assert found['rounds'] == [None, None, None, 2.0]
    with pytest.raises(ValueError):
        _common.ratio([1.0], [1.0, 2.0])


@pytest.mark.parametrize(('values', 'text'), [
    ([2.0, 1.0, 4.0], '2.0 (1.0-4.0)'),
    ([2.04], '2.0'),
])  # fmt: skip
def test_figures_are_shown_with_their_spread(values, text):
    assert _common.shown(_common.spread(values)) == text


def test_the_report_has_headline_machine_and_versions(tmp_path, monkeypatch):
    monkeypatch.setattr(_common, 'ROOT', tmp_path)
    monkeypatch.setattr(_common, 'OUT', tmp_path / 'out' / 'bench')
    table = _common.table('Title', 'who', 'figure')
    ratios = {'a_over_b': _common.spread([1.23456, 1.5]), 'lost': _common.spread([None])}
    _common.finish('trial', table, ratios, {'a': 1}, settings={'rounds': 2})
    report = json.loads((tmp_path / 'out' / 'bench' / 'trial.json').read_text())
    assert report['headline'] == {'a_over_b': 1.37, 'lost': None}
    assert report['ratios']['a_over_b']['rounds'] == [1.23456, 1.5]
    assert report['settings'] == {'rounds': 2}
    assert report['machine']['cpu'] and report['machine']['cores'] >= 1
    assert 'numpy' in report['versions']

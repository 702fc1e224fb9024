"""The curriculum: phases, rates, balance and pruning thresholds, and its plan as a picture."""

import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muon_ad.cli import main
from muon_ad.train.curriculum import Balance
from muon_ad.train.curriculum import Curriculum

PLAN = Curriculum()


@pytest.mark.parametrize(('step', 'phase'), [
    (0, 0), (499, 0), (500, 1), (1499, 1), (1500, 2), (2999, 2), (9999, 2),
])
def test_the_paper_s_phases_end_where_it_says(step, phase):
    assert PLAN.phase(step) == phase


@given(st.integers(1, 20000))
def test_phases_scale_to_any_length(steps):
    ends = Curriculum(steps).ends
    assert ends[-1] == steps
    assert list(ends) == sorted(ends)
    assert abs(ends[0] - steps / 6) <= 0.5
    assert abs(ends[1] - steps / 2) <= 0.5


def test_the_rate_holds_for_two_phases_and_falls_to_a_tenth():
    assert PLAN.learning_rate(0) == PLAN.learning_rate(1500) == 1e-3
    assert PLAN.learning_rate(2999) == pytest.approx(1e-4)
    rates = [PLAN.learning_rate(step) for step in range(1500, 3000)]
    assert rates == sorted(rates, reverse=True)
    assert PLAN.learning_rate(5000) == pytest.approx(1e-4)


def test_the_rate_rises_over_the_warm_up():
    plan = Curriculum(3000, warm_up=4)
    assert [plan.learning_rate(step) for step in range(5)] == pytest.approx(
        [2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])


def test_style_parameters_are_frozen_in_the_last_phase_alone():
    frozen = [PLAN.style_frozen(step) for step in (0, 1499, 1500, 2999)]
    assert frozen == [False, False, True, True]


def test_the_style_weighs_four_times_the_content_at_the_start():
    assert PLAN.weights(PLAN.start()) == pytest.approx({'style': 0.8, 'content': 0.2})
    assert PLAN.factors(PLAN.start()) == {'style': 1, 'content': 1}
    assert PLAN.factors(Balance(0.6)) == pytest.approx({'style': 0.75, 'content': 2})


def test_one_validation_applies_the_paper_s_rule():
    plan = Curriculum(window=1, eta=0.5)
    before = Balance(0.8, (math.log(0.3 / 0.5),))
    after = plan.validated(before, 700, style_loss=0.5, content_loss=0.36)
    assert after.style == pytest.approx(0.8 * math.exp(-0.5 * math.log(1.2)))
    assert after.trend == pytest.approx((math.log(0.36 / 0.5),))


@pytest.mark.parametrize(('style', 'content', 'sign'), [
    (1.0, 1.1, -1), (1.1, 1.0, 1), (1.1, 1.1, 0), (0.5, 0.5, 0), (0.9, 1.0, -1),
])
def test_what_falls_behind_in_validation_gains_weight(style, content, sign):
    balance = PLAN.validated(PLAN.start(), 480, 1.0, 1.0)
    balance = PLAN.validated(balance, 500, style, content)
    assert np.sign(round(balance.style - 0.8, 9)) == sign


@pytest.mark.parametrize('step', [100, 1500, 2900])
def test_the_balance_moves_in_the_middle_phase_alone(step):
    balance = PLAN.validated(PLAN.start(), 0, 1.0, 1.0)
    balance = PLAN.validated(balance, step, 1.0, 9.0)
    assert balance.style == 0.8
    assert balance.trend == pytest.approx((0, math.log(9)))


@given(st.lists(st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)), max_size=30))
def test_the_balance_stays_within_its_limits_and_survives_json(losses):
    plan = Curriculum(eta=3.0)
    balance = plan.start()
    for style, content in losses:
        balance = plan.validated(balance, 1000, style, content)
        assert 0.5 <= balance.style <= 0.95
        assert len(balance.trend) <= plan.window
        assert Balance.from_dict(json.loads(json.dumps(balance.to_dict()))) == balance


def test_one_outlier_moves_the_balance_for_a_window_only():
    balance = PLAN.start()
    for content in (1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1):
        balance = PLAN.validated(balance, 1000, 1.0, content)
    assert balance.style == pytest.approx(0.8)


def test_thresholds_are_the_paper_s():
    assert [PLAN.threshold(step, 2.0, 0.5) for step in (0, 500, 1500)] == [1.25, 2.25, 2.6]


def test_the_keep_rate_falls_from_95_to_40_percent_and_leaves_time_to_recover():
    rates = [PLAN.keep_rate(step) for step in range(3000)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 0.95
    assert (rates[499], rates[1499]) == pytest.approx((0.7, 0.6))
    assert rates[1500] == pytest.approx(0.6)
    assert rates[2250] == pytest.approx(0.4)
    assert rates[2200] > 0.4
    assert rates[-1] == pytest.approx(0.4)


@given(st.integers(1, 400), st.integers(0, 2999), st.integers(0, 10**6))
def test_no_cutoff_prunes_more_than_the_keep_rate_allows(count, step, seed):
    scores = np.random.default_rng(seed).lognormal(size=count)
    kept = scores >= PLAN.cutoff(step, scores)
    assert kept.mean() >= PLAN.keep_rate(step)


def test_the_cutoff_is_the_threshold_where_that_spares_enough():
    scores = np.random.default_rng(0).normal(5, 1, 10000)
    assert PLAN.cutoff(400, scores) == pytest.approx(
        PLAN.threshold(400, scores.mean(), scores.std()))
    assert (scores >= PLAN.cutoff(2999, scores)).mean() == pytest.approx(0.4, abs=1e-3)


def test_equal_scores_are_all_kept():
    assert (np.ones(8) >= PLAN.cutoff(2999, np.ones(8))).all()


@pytest.mark.parametrize(('setting', 'said'), [
    ({'steps': 0}, 'steps is 0'), ({'style': 0.99}, 'style is 0.99.*0.5..0.95'),
    ({'eta': -1}, 'eta is -1'), ({'limits': (0.9, 0.6)}, 'limits'), ({'rate': 0}, 'rate is 0'),
    ({'decay': 2}, 'decay is 2.*at most'), ({'window': 0}, 'window is 0'),
    ({'keep': 0.5}, 'keep is 0.5'), ({'recovery': 1}, 'recovery is 1'),
    ({'warm_up': -1}, 'warm_up is -1'), ({'rate': math.nan}, 'rate is nan'),
])
def test_settings_that_make_no_sense_are_named(setting, said):
    with pytest.raises(ValueError, match=said):
        Curriculum(**setting)


def test_arguments_that_make_no_sense_are_named():
    with pytest.raises(ValueError, match='step is -1'):
        PLAN.phase(-1)
    with pytest.raises(ValueError, match='style_loss is nan'):
        PLAN.validated(PLAN.start(), 0, math.nan, 1.0)
    with pytest.raises(ValueError, match='content_loss is 0'):
        PLAN.validated(PLAN.start(), 0, 1.0, 0)
    with pytest.raises(ValueError, match='deviation is -1'):
        PLAN.threshold(0, 0, -1)
    for scores in (np.array([]), np.array([1, np.inf])):
        with pytest.raises(ValueError, match='importance has'):
            PLAN.cutoff(0, scores)


def test_the_plan_is_printed_and_drawn(tmp_path, capsys):
    out = tmp_path / 'new' / 'plan.png'
    assert main(['train', '--plan', '--steps', '600', '-o', str(out)]) == 0
    shown = capsys.readouterr().out
    rows = [line for line in shown.splitlines() if line[:1].isdigit()]
    assert '0-99' in rows[0] and '100-299' in rows[1] and '300-599' in rows[2]
    assert '0.001 -> 0.0001' in rows[2] and 'frozen' in rows[2] and 'frozen' not in rows[1]
    assert cv2.imread(str(out)).shape == (1200, 960, 3)


@pytest.mark.parametrize('steps', [1, 2, 7])
def test_a_plan_of_few_steps_has_only_phases_that_take_place(steps, tmp_path, capsys):
    assert main(['train', '--plan', '--steps', str(steps), '-o', str(tmp_path / 'p.png')]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()]
    assert len(rows) == min(3, steps)


def test_a_plan_that_cannot_be_made_is_one_line(tmp_path, capsys):
    for wrong in (['--steps', '0'], ['--rate', '0'], ['-o', str(tmp_path / 'plan')]):
        assert main(['train', '--plan', *wrong]) == 2
        said = capsys.readouterr().err
        assert said.startswith('muon-ad train: ') and said.count('\n') == 1

"""Which channels go: multiples, floors, budgets and thresholds, for any scores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muon_ad.prune.plan import Plan
from muon_ad.prune.select import absolute
from muon_ad.prune.select import Budget
from muon_ad.prune.select import by_deviation
from muon_ad.prune.select import global_ratio
from muon_ad.prune.select import Limits
from muon_ad.prune.select import select
from muon_ad.prune.select import Tensor
from muon_ad.prune.select import uniform
from muon_ad.train.curriculum import Curriculum

SIZES = st.dictionaries(st.sampled_from('abcd'), st.integers(1, 96), min_size=1)
SEEDS = st.integers(0, 2 ** 16)
LIMITS = st.builds(Limits, st.floats(0.05, 1), st.sampled_from([1, 4, 8, 16]))


def chain(sizes):
    """The budget of a chain of 3x3 convolutions, a group each, from 3 channels to 2."""
    names = list(sizes)
    shapes = zip([*names, None], [None, *names], strict=True)
    return Budget(tuple(
        Tensor((sizes.get(after, 2), sizes.get(before, 3), 3, 3),
               ({after: 1} if after else {}, {before: 1} if before else {}, {}, {}))
        for after, before in shapes
    ))


def drawn(sizes, seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(3, 1, count) ** 2 for name, count in sizes.items()}


@given(SIZES)
def test_a_budget_counts_parameters_exactly(sizes):
    gone = {name: count // 3 for name, count in sizes.items()}
    left = [3, *(sizes[name] - gone[name] for name in sizes), 2]
    expected = sum(9 * a * b for a, b in zip(left[:-1], left[1:], strict=True))
    assert chain(sizes).parameters(gone) == expected


@given(SIZES, SEEDS, LIMITS, st.floats(0.05, 0.95), st.booleans())
def test_floors_and_multiples_hold_whatever_the_scores(sizes, seed, limits, ratio, comparable):
    budget, scores = chain(sizes), drawn(sizes, seed)
    target = round(budget.parameters({}) * (1 - ratio))
    for removed in (
        select(scores, sizes, global_ratio(limits), limits, budget, target, comparable),
        uniform(scores, sizes, limits, budget, target),
    ):
        for name, gone in removed.items():
            left = sizes[name] - len(gone)
            assert len(set(gone)) == len(gone) > 0
            assert left % limits.multiple == 0
            assert left >= limits.keep * sizes[name] - 1e-6
            kept = np.delete(scores[name], gone)
            assert scores[name][gone].max() <= kept.min()


@given(SIZES, SEEDS, st.floats(0.05, 0.6))
def test_the_budget_is_missed_by_no_more_than_a_channel(sizes, seed, ratio):
    budget, scores, limits = chain(sizes), drawn(sizes, seed), Limits(0.01, 1)
    whole = budget.parameters({})
    target = round(whole * (1 - ratio))
    removed = select(scores, sizes, global_ratio(limits), limits, budget, target, True)
    gone = {name: len(each) for name, each in removed.items()}
    left = budget.parameters(gone)
    if any(gone.get(name, 0) < count - 1 for name, count in sizes.items()):
        largest = max(left - budget.parameters({**gone, name: gone.get(name, 0) + 1})
                      for name in sizes)
        assert abs(left - target) <= max(largest, whole - budget.parameters(
            {max(sizes, key=sizes.get): 1}))


def test_the_cheapest_channels_for_what_they_save_go_first():
    sizes = {'a': 8, 'b': 8}
    scores = {'a': np.full(8, 1.0), 'b': np.full(8, 10.0)}
    scores['b'][3] = 0.1
    budget, limits = chain(sizes), Limits(0.1, 1)
    first = select(scores, sizes, global_ratio(limits), limits, budget,
                   budget.parameters({'b': 1}), True)
    assert first == {'b': [3]}
    then = select(scores, sizes, global_ratio(limits), limits, budget,
                  budget.parameters({'a': 2, 'b': 1}), True)
    assert (then['b'], len(then['a'])) == ([3], 2)


def test_scores_of_other_scales_are_compared_within_their_group():
    sizes = {'a': 8, 'b': 8}
    scores = {'a': np.arange(1, 9) * 1e-6, 'b': np.arange(1, 9) * 1e6}
    budget, limits = chain(sizes), Limits(0.1, 1)
    removed = select(scores, sizes, global_ratio(limits), limits, budget,
                     budget.parameters({'a': 2, 'b': 2}), False)
    assert removed == {'a': [0, 1], 'b': [0, 1]}


@given(SEEDS, st.integers(0, 299))
def test_by_deviation_takes_what_the_curriculum_lets(seed, step):
    curriculum, limits = Curriculum(300), Limits(0.4, 1)
    scores = np.random.default_rng(seed).normal(1, 0.2, 64)
    allowed = by_deviation(curriculum, step, limits)(scores, 64)
    below = int((scores < curriculum.threshold(step, scores.mean(), scores.std())).sum())
    assert allowed == min(below, 64 - math.ceil(round(64 * curriculum.keep_rate(step), 9)))


def test_an_absolute_threshold_empties_one_layer_down_to_the_floor_and_leaves_another():
    limits, end = Limits(0.4, 8), 299
    allowed = absolute(0.5, Curriculum(300), end, limits)
    assert allowed(np.full(64, 0.1), 64) == 32       # 40 % of 64 in multiples of 8 is 32
    assert allowed(np.full(64, 0.9), 64) == 0


@given(st.floats(0.05, 0.9), st.integers(20, 3000))
def test_a_plan_asks_for_less_and_less_and_ends_at_its_ratio(ratio, steps):
    plan = Plan(steps, ratio)
    targets = [plan.target(step, 100_000) for step in range(0, steps, max(1, steps // 50))]
    assert targets == sorted(targets, reverse=True)
    assert plan.target(steps, 100_000) == round(100_000 * (1 - ratio))
    recovery = math.ceil(0.76 * steps)
    assert plan.target(recovery, 100_000) == plan.target(steps, 100_000)


@pytest.mark.parametrize(('settings', 'message'), [
    ({'ratio': 1.0}, 'ratio is 1.0'), ({'ratio': 0.0}, 'ratio is 0.0'), ({'steps': 0}, 'steps'),
    ({'threshold': 'tau'}, 'tau is None'), ({'tau': 0.3}, 'tau is 0.3'),
    ({'keep': 0.0}, 'keep is 0.0'), ({'multiple': 0}, 'multiple is 0'),
    ({'method': 'magic'}, 'method'), ({'score': 'magic'}, 'score'),
])  # fmt: skip
def test_a_plan_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Plan(**settings)


def test_scores_that_are_not_finite_are_refused():
    sizes, limits = {'a': 4}, Limits()
    with pytest.raises(ValueError, match='a: 3 of 4 scores are finite'):
        select({'a': np.array([1, 2, np.nan, 4])}, sizes, global_ratio(limits), limits,
               chain(sizes), 1, True)

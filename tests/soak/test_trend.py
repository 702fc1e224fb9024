"""What is a growing trend and what is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.soak.trend import LEAST_SAMPLES
from tools.soak.trend import theil_sen
from tools.soak.trend import trend

TIMES = np.arange(0.0, 600.0, 2.0)


def noise(seed: int, scale: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, len(TIMES))


@given(st.integers(0, 1000), st.floats(0.02, 1.0))
def test_a_leak_is_seen_through_noise(seed, per_second):
    found = trend(TIMES, 200 + per_second * TIMES + noise(seed, 1.0), 5.0)
    assert found.grows
    assert found.growth == pytest.approx(per_second * TIMES[-1], rel=0.1)
    assert found.per_hour == pytest.approx(per_second * 3600, rel=0.1)


@given(st.integers(0, 1000), st.floats(0.0, 20.0))
def test_noise_alone_is_no_trend(seed, scale):
    assert not trend(TIMES, 200 + noise(seed, scale), 5.0).grows


@given(st.integers(0, 1000))
def test_outliers_neither_make_nor_hide_a_trend(seed):
    chance = np.random.default_rng(seed)
    wild = chance.random(len(TIMES)) < 0.2
    flat = np.where(wild, chance.uniform(0, 1000, len(TIMES)), 200.0)
    rising = np.where(wild, chance.uniform(0, 1000, len(TIMES)), 200 + 0.1 * TIMES)
    assert not trend(TIMES, flat, 5.0).grows
    assert trend(TIMES, rising, 5.0).grows


@pytest.mark.parametrize('values', [
    200 + np.minimum(TIMES, 150) * 0.2,         # a cache that fills up
    200 - TIMES * 0.1,
    200 + TIMES * 0.005,                        # 3 in all: tolerated
    200 + 30.0 * (TIMES > 300),                 # one step
    np.full(len(TIMES), 7),
])  # fmt: skip
def test_what_is_no_leak(values):
    assert not trend(TIMES, values, 5.0).grows


def test_steps_that_go_on_are_a_leak():
    """A handle lost every minute."""
    assert trend(TIMES, 20 + TIMES // 60, 4).grows


def test_few_samples_are_not_judged():
    short = TIMES[:LEAST_SAMPLES - 1]
    assert trend(short, short, 1.0) is None
    assert trend(TIMES[:LEAST_SAMPLES], TIMES[:LEAST_SAMPLES], 1.0).grows


def test_days_of_samples_are_thinned_out():
    times = np.arange(0.0, 3 * 86400, 2.0)
    found = trend(times, 200 + times * 1e-4, 5.0)
    assert found.growth == pytest.approx(26, rel=0.05)


@given(st.floats(-5, 5), st.floats(-100, 100))
def test_the_slope_of_a_line_is_its_slope(slope, offset):
    assert theil_sen(TIMES, offset + slope * TIMES) == pytest.approx(slope, abs=1e-6)

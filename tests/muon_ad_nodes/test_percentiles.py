"""Percentiles from a histogram, against numpy's from the values themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muon_ad_nodes.parts.percentiles import ACCURACY
from muon_ad_nodes.parts.percentiles import LatencyWindow

PERCENTS = (1, 50, 95, 99, 100)
MICROSECOND_MS = 1e-3
latencies = st.floats(0, 1e6) | st.floats(1, 40)


def window_of(values: list[float], half: int) -> LatencyWindow:
    window = LatencyWindow(half)
    for value in values:
        window.add(value)
    return window


@given(st.lists(latencies, min_size=1, max_size=80), st.integers(1, 50))
def test_as_numpy_says_of_the_newest_values(values, half):
    window = window_of(values, half)
    assert len(values) == len(window) or half < len(window) <= 2 * half
    newest = values[-len(window):]
    expected = np.percentile(newest, PERCENTS, method='inverted_cdf')
    found = window.percentiles(*PERCENTS)
    assert found == pytest.approx(expected, rel=ACCURACY * 1.0001, abs=MICROSECOND_MS)
    assert window.maximum == max(newest)
    assert found == sorted(found) and found[-1] <= window.maximum


def test_old_values_leave():
    window = window_of([1000.0] * 10 + [1.0] * 20, half=10)
    assert window.maximum == 1.0
    assert window.percentiles(99) == pytest.approx([1.0], rel=ACCURACY)


def test_values_beyond_the_scale():
    window = window_of([-5.0, 0.0, 1e9], half=10)
    assert window.percentiles(1, 50) == [0.0, 0.0]
    assert window.percentiles(99) == pytest.approx([1e6], rel=ACCURACY)
    assert window.maximum == 1e9
    assert window_of([-5.0], half=10).percentiles(50) == [0.0]


def test_copy_stays_as_it_was():
    window = window_of([1.0, 2.0], half=2)
    copy = window.copy()
    for _ in range(4):
        window.add(500.0)
    assert (copy.maximum, len(copy)) == (2.0, 2)
    assert copy.percentiles(50, 99) == pytest.approx([1.0, 2.0], rel=ACCURACY)

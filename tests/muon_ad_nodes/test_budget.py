"""When a task loses its real-time class, and when it gets it back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muon_ad_nodes.parts.budget import Budget

FRAMES = st.lists(st.floats(0, 100))


def after(frames: list[float], over: int = 3, within: int = 5) -> Budget:
    budget = Budget(50.0, over, within)
    for spent_ms in frames:
        budget.finished(spent_ms)
    return budget


@pytest.mark.parametrize('frames, kept', [
    ([], True),
    ([51] * 2, True),
    ([51] * 3, False),
    ([50] * 9, True),
    ([51, 51, 50] * 5, True),
    ([51] * 3 + [50] * 4, False),
    ([51] * 3 + [50] * 5, True),
    ([51] * 3 + [50, 50, 50, 50, 51] * 5, False),
    ([51] * 3 + [50] * 5 + [51] * 2, True),
    ([51] * 3 + [50] * 5 + [51] * 3, False),
])  # fmt: skip
def test_frames_in_a_row_decide(frames, kept):
    assert after(frames).kept == kept


def test_a_change_is_told_once():
    budget = after([])
    assert [budget.finished(51) for _ in range(5)] == [False, False, True, False, False]
    assert [budget.finished(1) for _ in range(7)] == [False] * 4 + [True] + [False] * 2


def test_a_frame_that_never_ends_counts_as_many():
    budget = after([51, 51])
    assert not budget.under_way(150)
    assert budget.under_way(151)
    assert not budget.kept and not budget.under_way(9999)
    budget.finished(9999)
    assert not budget.kept
    assert [budget.finished(1) for _ in range(5)][-1] and budget.kept


@given(FRAMES, st.integers(1, 5), st.integers(1, 5))
def test_what_was_heard_last_decides(frames, over, within):
    assert after([*frames, *[99] * over], over, within).kept is False
    assert after([*frames, *[1] * within], over, within).kept is True

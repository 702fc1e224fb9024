"""Line charts: what is drawn lies where it should."""

import numpy as np
import pytest

from muon_ad.chart import bar_chart
from muon_ad.chart import COLOURS
from muon_ad.chart import line_chart


def where(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.nonzero((picture[60:] == colour).all(axis=-1))


def test_a_rising_line_rises_and_a_falling_one_falls():
    picture = line_chart('t', 'x', 'y', {'up': ([0, 10], [0, 5]), 'down': ([0, 10], [5, 0])})
    assert picture.shape == (540, 960, 3) and picture.dtype == np.uint8
    for colour, sign in zip(COLOURS[:2], (-1, 1), strict=True):
        rows, columns = where(picture, colour)
        assert len(rows) > 100
        assert np.sign(np.corrcoef(rows, columns)[0, 1]) == sign


@pytest.mark.parametrize('y', [[3, 3], [0, 0], [-4, -1], [1e9, 2e9], [1e-6, 3e-6]])
def test_any_range_fits(y):
    rows, _ = where(line_chart('t', 'x', 'y', {'a': ([5, 5.001], y)}), COLOURS[0])
    assert len(rows)


def test_what_is_not_finite_is_left_out():
    holes = {'a': ([0, 1, 2], [1.0, np.nan, 2.0]), 'none': ([], [])}
    line_chart('t', 'x', 'y', holes)
    with pytest.raises(ValueError, match="nothing to draw in 't'"):
        line_chart('t', 'x', 'y', {'a': ([1], [np.inf])})


def test_marks_show_points_and_one_that_stands_alone():
    lines = {'line': ([0, 10], [0, 5]), 'alone': ([5], [1])}
    plain, marked = (line_chart('t', 'x', 'y', lines, marks=marks) for marks in (False, True))
    assert not len(where(plain, COLOURS[1])[0])
    assert len(where(marked, COLOURS[1])[0]) > 50
    assert len(where(marked, COLOURS[0])[0]) > len(where(plain, COLOURS[0])[0])


def test_bars_are_as_long_as_their_values_and_the_marked_ones_differ():
    picture = bar_chart('t', 'x', {'a': 10.0, 'b': 5.0, 'c': float('nan')}, marked={'b'})

    def pixels(colour):
        return (picture == np.array(colour)).all(axis=2).sum()

    assert pixels(COLOURS[0]) == pytest.approx(2 * pixels(COLOURS[1]), rel=0.02)
    with pytest.raises(ValueError, match='nothing to draw'):
        bar_chart('t', 'x', {})

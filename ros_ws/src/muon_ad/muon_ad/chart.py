"""Charts as pictures, for reports of programs that run where no plotting library is."""

import math
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

import cv2
import numpy as np

COLOURS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (255, 127, 14), (148, 103, 189),
           (140, 86, 75), (227, 119, 194), (127, 127, 127))
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 20, 52, 56
_LEGEND_ROW = 22
_UP_ROW = 18
_INK, _GRID, _PAPER = (40, 40, 40), (225, 225, 225), 255

Line = tuple[Sequence[float], Sequence[float]]


def line_chart(
    title: str, across: str, up: str, lines: Mapping[str, Line],
    size: tuple[int, int] = (960, 540), marks: bool = False,
) -> np.ndarray:
    """Draw named lines (x, y) into an rgb8 image [H, W, 3] of `size` (width, height).

    With `marks` there is a dot at each point. The vertical axis begins at 0, or at the least
    value below. Points that are not finite are left out. Raises ValueError where nothing is left.
    """
    points = {name: _finite(line) for name, line in lines.items()}
    drawn = [each for each in points.values() if len(each)]
    if not drawn:
        raise ValueError(f'nothing to draw in {title!r}')
    every = np.concatenate(drawn)
    xs = _ticks(every[:, 0].min(), every[:, 0].max())
    ys = _ticks(min(0.0, every[:, 1].min()), every[:, 1].max())
    picture = np.full((size[1], size[0], 3), _PAPER, np.uint8)
    top = _TOP + _LEGEND_ROW * math.ceil(len(lines) / 3) + _UP_ROW
    box = _LEFT, top, size[0] - _RIGHT, size[1] - _BOTTOM
    _draw_axes(picture, box, xs, ys, across, up)
    _text(picture, title, (_LEFT, 28), 0.6)
    for number, (name, line) in enumerate(points.items()):
        colour = COLOURS[number % len(COLOURS)]
        place = _LEFT + number % 3 * (size[0] - _LEFT) // 3, _TOP + number // 3 * _LEGEND_ROW
        cv2.line(picture, (place[0], place[1]), (place[0] + 22, place[1]), colour, 3)
        _text(picture, name, (place[0] + 28, place[1] + 5))
        if len(line):
            where = np.round(_placed(line, box, xs, ys)).astype(np.int32)
            cv2.polylines(picture, [where.reshape(-1, 1, 2)], False, colour, 2, cv2.LINE_AA)
            for x, y in where.tolist() if marks else ():
                cv2.circle(picture, (x, y), 5, colour, -1, cv2.LINE_AA)
    return picture


def bar_chart(
    title: str, across: str, bars: Mapping[str, float], marked: Collection[str] = (),
    width: int = 960,
) -> np.ndarray:
    """Draw a bar to the right for each name into an rgb8 image [H, W, 3], `width` pixels wide.

    Bars begin at 0; those of the names in `marked` have the second colour. Values below 0 or not
    finite have none. Raises ValueError where there is no name.
    """
    if not bars:
        raise ValueError(f'nothing to draw in {title!r}')
    lengths = {name: max(0.0, value) if math.isfinite(value) else 0.0
               for name, value in bars.items()}
    left = min(width // 2, 24 + 9 * max(map(len, bars)))
    picture = np.full((_TOP + _LEGEND_ROW * len(bars) + _BOTTOM, width, 3), _PAPER, np.uint8)
    xs = _ticks(0.0, max(lengths.values()) or 1.0)
    box = left, _TOP, width - 3 * _RIGHT, picture.shape[0] - _BOTTOM
    _draw_axes(picture, box, xs, np.array([0.0, 1.0]), across, '', ups=False)
    _text(picture, title, (_RIGHT, 28), 0.6)
    for row, (name, length) in enumerate(lengths.items()):
        y = _TOP + row * _LEGEND_ROW
        end = int(_placed(np.array([[length, 0.0]]), box, xs, np.array([0.0, 1.0]))[0, 0])
        cv2.rectangle(picture, (left, y + 4), (end, y + _LEGEND_ROW - 4),
                      COLOURS[int(name in marked)], -1)
        _text(picture, name, (_RIGHT, y + 15))
        _text(picture, f'{bars[name]:.3g}', (end + 6, y + 15))
    return picture


def _finite(line: Line) -> np.ndarray:
    points = np.column_stack([np.asarray(each, np.float64) for each in line])
    return points[np.isfinite(points).all(axis=1)]


def _ticks(low: float, high: float) -> np.ndarray:
    """Return round numbers from at most `low` to at least `high`, five to ten of them."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(power * each for each in (1, 2, 5, 10) if span / (power * each) <= 9)
    return np.arange(math.floor(low / step), math.ceil((low + span) / step) + 1) * step


def _placed(
    points: np.ndarray, box: tuple[int, int, int, int], xs: np.ndarray, ys: np.ndarray
) -> np.ndarray:
    left, top, right, bottom = box
    share = (points - (xs[0], ys[0])) / (xs[-1] - xs[0], ys[-1] - ys[0])
    return np.array([left, bottom]) + share * np.array([right - left, top - bottom])


def _draw_axes(
    picture: np.ndarray, box: tuple[int, int, int, int], xs: np.ndarray, ys: np.ndarray,
    across: str, up: str, ups: bool = True,
) -> None:
    left, top, right, bottom = box
    for x in xs:
        at = int(_placed(np.array([[x, ys[0]]]), box, xs, ys)[0, 0])
        cv2.line(picture, (at, top), (at, bottom), _GRID, 1)
        _text(picture, f'{x:g}', (at - 5 * len(f'{x:g}'), bottom + 20))
    for y in ys if ups else ():
        at = int(_placed(np.array([[xs[0], y]]), box, xs, ys)[0, 1])
        cv2.line(picture, (left, at), (right, at), _GRID, 1)
        _text(picture, f'{y:g}', (left - 10 - 9 * len(f'{y:g}'), at + 5))
    cv2.rectangle(picture, (left, top), (right, bottom), _INK, 1)
    _text(picture, across, ((left + right) // 2 - 4 * len(across), bottom + 44))
    _text(picture, up, (8, top - 10))


def _text(picture: np.ndarray, text: str, at: tuple[int, int], scale: float = 0.45) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)

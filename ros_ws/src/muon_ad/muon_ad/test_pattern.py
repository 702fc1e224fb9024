"""Colour bars and a frame number that programs can read back, drawn into a picture's last rows.

A lost, repeated or reordered frame shows in the number, whatever stamps say; wrong colour order
shows in the bars.
"""

import cv2
import numpy as np

BITS = 24
MIN_WIDTH = 4 * BITS
_BARS = (
    (235, 235, 235), (235, 235, 16), (16, 235, 235), (16, 235, 16),
    (235, 16, 235), (235, 16, 16), (16, 16, 235), (16, 16, 16),
)


def strip_height(height: int) -> int:
    """Return how many of the last rows of a picture `height` rows tall the strip takes."""
    return max(height // 20, 8)


def draw_strip(rgb: np.ndarray, number: int) -> None:
    """Draw colour bars (left third) and `number` modulo 2**24 (blocks, then digits), in place.

    `rgb` is uint8 [H, W, 3]; at least MIN_WIDTH pixels wide, or ValueError is raised.
    """
    strip, edges = _layout(rgb)
    third = rgb.shape[1] // 3
    bars = np.linspace(0, third, len(_BARS) + 1).astype(int)
    for colour, left, right in zip(_BARS, bars, bars[1:], strict=False):
        strip[:, left:right] = colour
    for bit, (left, right) in enumerate(zip(edges, edges[1:], strict=False)):
        strip[:, left:right] = 235 if number >> (BITS - 1 - bit) & 1 else 16
    text = strip[:, edges[-1]:]
    text[:] = 16
    rows = strip.shape[0]
    cv2.putText(text, f'{number % (1 << BITS):08d}', (rows // 4, rows - max(rows // 4, 1)),
                cv2.FONT_HERSHEY_SIMPLEX, rows / 36, (235, 235, 235), 1, cv2.LINE_AA)


def read_number(rgb: np.ndarray) -> int:
    """Return the number that `draw_strip` drew; scaling and compression may have come between."""
    strip, edges = _layout(rgb)
    middle = strip[strip.shape[0] // 2].mean(axis=1)
    number = 0
    for left, right in zip(edges, edges[1:], strict=False):
        number = number << 1 | int(middle[(left + right) // 2] > 127)
    return number


def _layout(rgb: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return the strip, a view of `rgb`, and the edges of the blocks in its middle third."""
    height, width = rgb.shape[:2]
    if width < MIN_WIDTH:
        raise ValueError(f'picture is {width} pixels wide; the strip needs {MIN_WIDTH}')
    edges = np.linspace(width // 3, 2 * width // 3, BITS + 1).astype(int).tolist()
    return rgb[height - strip_height(height):], edges

"""Composes scenes of pictures: few photographs become many scenes.

Pictures are zoomed, put side by side, or hung as tilted boards into one another.
"""

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

# How often which kind of scene is made.
KINDS = {'letterbox': 0.25, 'view': 0.3, 'mosaic': 0.15, 'boards': 0.3}


@dataclass(frozen=True)
class Placed:
    """Where a picture lies in a scene.

    `matrix` [3, 3] takes its pixels to the scene's, in perspective; it is seen within `part`
    (x_min, y_min, x_max, y_max), as far as nothing placed later hides it.
    """

    matrix: np.ndarray
    part: tuple[int, int, int, int]


def compose(
    rng: np.random.Generator, draw: Callable[[np.random.Generator], np.ndarray], width: int,
    height: int, kinds: Mapping[str, float] = KINDS,
) -> tuple[np.ndarray, list[Placed]]:
    """Return a random scene, uint8 [height, width, 3] RGB: view, mosaic or boards in a view.

    `draw` gives a picture, uint8 [H, W, 3], for each place in it; where they came to lie is
    returned in the order drawn.
    """
    canvas = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    kind = rng.choice(list(kinds), p=list(kinds.values()))
    whole = (0, 0, width, height)
    if kind == 'letterbox':
        return canvas, [_letterbox(canvas, draw(rng))]
    if kind == 'mosaic':
        x, y = rng.integers(width // 4, width * 3 // 4), rng.integers(height // 4, height * 3 // 4)
        parts = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
        return canvas, [_view(rng, canvas, part, draw(rng)) for part in parts]
    placed = [_view(rng, canvas, whole, draw(rng))]
    for _ in range(rng.integers(1, 5) if kind == 'boards' else 0):
        placed.append(_board(rng, canvas, draw(rng)))
    return canvas, placed


def _letterbox(canvas: np.ndarray, picture: np.ndarray) -> Placed:
    """Put a whole picture into the upper left, as the detector sees its frames."""
    height, width = canvas.shape[:2]
    canvas[:] = 114
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    canvas[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    matrix = np.diag([size[0] / picture.shape[1], size[1] / picture.shape[0], 1.0])
    return Placed(matrix, (0, 0, *size))


def _view(
    rng: np.random.Generator, canvas: np.ndarray, part: tuple[int, int, int, int],
    picture: np.ndarray,
) -> Placed:
    """Fill a part of the canvas with a picture, zoomed and shifted."""
    left, top, right, bottom = part
    width, height = right - left, bottom - top
    cover = max(width / picture.shape[1], height / picture.shape[0])
    size = cover * np.exp(rng.uniform(-0.6, 0.6)) * np.array(picture.shape[1::-1])
    size *= np.exp(rng.uniform(-0.15, 0.15, 2))
    spare = np.array([width, height]) - size
    corner = spare * rng.uniform(0, 1, 2)
    quad = corner + size * [[0, 0], [1, 0], [1, 1], [0, 1]]
    matrix = _paste(canvas[top:bottom, left:right], picture, quad)
    shift = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])
    return Placed(shift @ matrix, part)


def _board(rng: np.random.Generator, canvas: np.ndarray, picture: np.ndarray) -> Placed:
    """Hang a picture into the canvas as a board, tilted in perspective."""
    extent = np.array(canvas.shape[1::-1])
    scale = np.exp(rng.uniform(np.log(0.2), np.log(0.9)))
    size = scale * min(extent / picture.shape[1::-1]) * np.array(picture.shape[1::-1])
    corner = rng.uniform(-0.2 * size, extent - 0.8 * size)
    quad = corner + size * [[0, 0], [1, 0], [1, 1], [0, 1]]
    matrix = _paste(canvas, picture, quad + rng.normal(0, 0.04, (4, 2)) * size)
    return Placed(matrix, (0, 0, *canvas.shape[1::-1]))


def _paste(canvas: np.ndarray, picture: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """Warp a picture onto the corners `quad` [4, 2] (x, y; clockwise from the upper left).

    Returns the matrix [3, 3] from the picture's pixels to the canvas's.
    """
    whole = picture.shape[1::-1]
    sides = np.linalg.norm(quad - np.roll(quad, 1, axis=0), axis=1)
    shrink = min(whole[0] / max(sides[1], sides[3]), whole[1] / max(sides[0], sides[2]))
    if shrink > 2:  # the warp samples four pixels only, and would alias
        picture = cv2.resize(picture, None, fx=1 / shrink, fy=1 / shrink,
                             interpolation=cv2.INTER_AREA)
    height, width = picture.shape[:2]
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    matrix = cv2.getPerspectiveTransform(corners, quad.astype(np.float32))
    size = canvas.shape[1::-1]
    warped = cv2.warpPerspective(picture, matrix, size)
    inside = cv2.warpPerspective(np.full((height, width), 255, np.uint8), matrix, size)
    np.copyto(canvas, warped, where=(inside > 127)[:, :, None])
    return matrix @ np.diag([width / whole[0], height / whole[1], 1.0])


def disturb(rng: np.random.Generator, scene: np.ndarray) -> np.ndarray:
    """Change sharpness, colours and noise of a scene as cameras and lamps do; returns a copy."""
    soft = rng.uniform(-0.3, 0.8)
    scene = cv2.addWeighted(scene, 1 - soft, cv2.blur(scene, (3, 3)), soft, 0)
    grey = cv2.cvtColor(cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    colour = rng.uniform(0.4, 1.4)
    scene = cv2.addWeighted(scene, colour, grey, 1 - colour, 0)
    level = np.linspace(0, 1, 256)[:, None] - 0.5
    level = level * rng.uniform(0.75, 1.25) + 0.5 + rng.uniform(-0.1, 0.1)
    level = np.clip(level * rng.uniform(0.9, 1.1, 3), 0, 1) ** np.exp(rng.uniform(-0.3, 0.3))
    scene = cv2.LUT(scene, (255 * level).round().astype(np.uint8)[None])
    noise = np.empty(scene.shape, np.int16)
    cv2.setRNGSeed(int(rng.integers(2**31)))
    cv2.randn(noise, 0, rng.uniform(0, 8))
    return cv2.add(scene, noise, dtype=cv2.CV_8U)

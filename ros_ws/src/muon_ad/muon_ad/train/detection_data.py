"""Scenes to learn detection from: composed from unlabelled pictures, labelled by a teacher.

Few photographs become many scenes: pictures, and crops of the objects in them, are zoomed, put
side by side, or hung as tilted boards into one another. The teacher looks at the finished scene,
on a grid that coincides with the student's, so its output at every cell, soft scores and boxes,
is the target as it stands: nothing has to be matched, and what the teacher does not see in an
artificial scene is not asked of the student.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from muon_ad.runtime.decoders import grid
from muon_ad.runtime.detection import Detector
from muon_ad.train.teacher import STRIDES
from muon_ad.train.teacher import Teacher


@dataclass(frozen=True)
class Library:
    """Pictures to compose from, how often to draw each, and how many objects the teacher saw."""

    pictures: list[np.ndarray]
    weights: np.ndarray
    counts: Counter


def library(pictures: Sequence[np.ndarray], teacher: Detector, classes: Sequence[str]) -> Library:
    """Add crops of the objects that the teacher finds, and draw rare classes more often.

    Half of the probability is spread evenly, half goes to each class in equal parts.
    """
    labels: list[set[str]] = []
    crops: list[tuple[np.ndarray, str]] = []
    for picture in pictures:
        found = teacher.detect(picture)
        names = [teacher.classes[index] for index in found.class_ids]
        labels.append(set(names) & set(classes))
        crops += [
            (_crop(picture, box, margin=0.2), name)
            for box, name in zip(found.boxes, names, strict=True)
            if name in classes and min(box[2:] - box[:2]) >= 32
        ]
    everything = [*pictures, *(crop for crop, _ in crops)]
    labels += [{name} for _, name in crops]
    counts = Counter(name for _, name in crops)
    holders = Counter(name for names in labels for name in names)
    rare = [sum(1 / holders[name] for name in names) for names in labels]
    even = np.full(len(everything), 1 / len(everything))
    weights = even if not holders else even / 2 + np.array(rare) / len(holders) / 2
    return Library(everything, weights / weights.sum(), counts)


def _crop(picture: np.ndarray, box: np.ndarray, margin: float) -> np.ndarray:
    border = margin * (box[2:] - box[:2])
    low = np.maximum(box[:2] - border, 0).astype(int)
    high = np.ceil(box[2:] + border).astype(int)
    return np.ascontiguousarray(picture[low[1]:high[1], low[0]:high[0]])


def compose(rng: np.random.Generator, source: Library, width: int, height: int) -> np.ndarray:
    """Return a random scene, uint8 [height, width, 3] RGB: view, mosaic or boards in a view."""
    canvas = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    kind = rng.choice(['letterbox', 'view', 'mosaic', 'boards'], p=[0.25, 0.3, 0.15, 0.3])
    if kind == 'letterbox':
        canvas[:] = 114
        picture = _draw(rng, source)
        scale = min(width / picture.shape[1], height / picture.shape[0])
        size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        canvas[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    elif kind == 'mosaic':
        x, y = rng.integers(width // 4, width * 3 // 4), rng.integers(height // 4, height * 3 // 4)
        for part in (canvas[:y, :x], canvas[:y, x:], canvas[y:, :x], canvas[y:, x:]):
            _view(rng, part, _draw(rng, source))
    else:
        _view(rng, canvas, _draw(rng, source))
        for _ in range(rng.integers(1, 5) if kind == 'boards' else 0):
            _board(rng, canvas, _draw(rng, source))
    return canvas


def _draw(rng: np.random.Generator, source: Library) -> np.ndarray:
    return source.pictures[rng.choice(len(source.pictures), p=source.weights)]


def _view(rng: np.random.Generator, part: np.ndarray, picture: np.ndarray) -> None:
    """Fill a part of the canvas with a picture, zoomed and shifted."""
    height, width = part.shape[:2]
    cover = max(width / picture.shape[1], height / picture.shape[0])
    size = cover * np.exp(rng.uniform(-0.6, 0.6)) * np.array(picture.shape[1::-1])
    size *= np.exp(rng.uniform(-0.15, 0.15, 2))
    spare = np.array([width, height]) - size
    corner = spare * rng.uniform(0, 1, 2)
    _paste(part, picture, corner + size * [[0, 0], [1, 0], [1, 1], [0, 1]])


def _board(rng: np.random.Generator, canvas: np.ndarray, picture: np.ndarray) -> None:
    """Hang a picture into the canvas as a board, tilted in perspective."""
    extent = np.array(canvas.shape[1::-1])
    scale = np.exp(rng.uniform(np.log(0.2), np.log(0.9)))
    size = scale * min(extent / picture.shape[1::-1]) * np.array(picture.shape[1::-1])
    corner = rng.uniform(-0.2 * size, extent - 0.8 * size)
    quad = corner + size * [[0, 0], [1, 0], [1, 1], [0, 1]]
    _paste(canvas, picture, quad + rng.normal(0, 0.04, (4, 2)) * size)


def _paste(canvas: np.ndarray, picture: np.ndarray, quad: np.ndarray) -> None:
    """Warp a picture onto the corners `quad` [4, 2] (x, y; clockwise from the upper left)."""
    height, width = picture.shape[:2]
    sides = np.linalg.norm(quad - np.roll(quad, 1, axis=0), axis=1)
    shrink = min(width / max(sides[1], sides[3]), height / max(sides[0], sides[2]))
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


@dataclass(frozen=True)
class Scenes:
    """Scenes with the teacher's view of them, as arrays that share the first index.

    `images` uint8 [S, H, W, 3]; `boxes` float16 [S, N, 4] corners in pixels; `objectness` float16
    [S, N] and `labels` float16 [S, N, classes] are probabilities; `features` float16 [S, N, F] is
    what the teacher's head works on (F = 0: nothing of it). N cells as in the network.
    """

    images: np.ndarray
    boxes: np.ndarray
    objectness: np.ndarray
    labels: np.ndarray
    features: np.ndarray


class Pool:
    """The newest `capacity` scenes of an endless, numbered sequence.

    Scene i depends on the seed and on i alone, so that a training taken up again sees the same
    scenes as one that was never interrupted.
    """

    def __init__(
        self, source: Library, teacher: Teacher, size: tuple[int, int], capacity: int, seed: int
    ) -> None:
        width, height = size
        cells = len(grid(width, height, STRIDES)[0])
        self._source, self._teacher = source, teacher
        self._size, self._seed, self.capacity = size, seed, capacity
        self._end = 0
        self.scenes = Scenes(
            np.empty((capacity, height, width, 3), np.uint8),
            np.empty((capacity, cells, 4), np.float16),
            np.empty((capacity, cells), np.float16),
            np.empty((capacity, cells, len(teacher.columns)), np.float16),
            np.empty((capacity, cells, teacher.channels), np.float16),
        )

    def reach(self, end: int) -> None:
        """Have the `capacity` scenes before number `end`; makes those that are not there yet."""
        missing = range(max(self._end, end - self.capacity), end)
        for index in tqdm(missing, desc='composing scenes', disable=len(missing) < self.capacity):
            self.make(index)
        self._end = max(self._end, end)

    def make(self, index: int) -> None:
        """Compose scene number `index`, have it labelled, and store it over the oldest."""
        rng = np.random.default_rng([self._seed, index])
        scene = compose(rng, self._source, *self._size)
        slot = index % self.capacity
        parts = (self.scenes.images, self.scenes.boxes, self.scenes.objectness,
                 self.scenes.labels, self.scenes.features)
        for part, value in zip(parts, (scene, *self._teacher.label(scene)), strict=True):
            part[slot] = value

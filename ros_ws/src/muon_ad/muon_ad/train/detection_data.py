"""Scenes to learn detection from: composed from unlabelled pictures, labelled by a teacher.

Few photographs, and crops of the objects in them, become many scenes (compose.py). The teacher
looks at the finished scene, on a grid that coincides with the student's, so its output at every
cell, soft scores and boxes, is the target as it stands: nothing has to be matched, and what the
teacher does not see in an artificial scene is not asked of the student.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from muon_ad.runtime.decoders import grid
from muon_ad.runtime.detection import Detector
from muon_ad.train.compose import compose
from muon_ad.train.teacher import STRIDES
from muon_ad.train.teacher import Teacher
from muon_ad.train.teacher import Teachers


@dataclass(frozen=True)
class Library:
    """Pictures to compose from, how often to draw each, and how many objects the teacher saw."""

    pictures: list[np.ndarray]
    weights: np.ndarray
    counts: Counter

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return a random picture."""
        return self.pictures[rng.choice(len(self.pictures), p=self.weights)]


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
        self, source: Library, teacher: Teacher | Teachers, size: tuple[int, int],
        capacity: int, seed: int,
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
        scene = compose(rng, self._source.draw, *self._size)[0]
        slot = index % self.capacity
        parts = (self.scenes.images, self.scenes.boxes, self.scenes.objectness,
                 self.scenes.labels, self.scenes.features)
        for part, value in zip(parts, (scene, *self._teacher.label(scene)), strict=True):
            part[slot] = value

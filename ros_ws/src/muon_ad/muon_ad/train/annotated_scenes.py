"""Scenes to learn detection from, composed of annotated pictures: their boxes move with them."""

from collections.abc import Sequence

import cv2
import numpy as np
from tqdm import tqdm

from muon_ad.metrics.detection import Truth
from muon_ad.runtime.boxes import area
from muon_ad.train.annotations import Annotated
from muon_ad.train.compose import compose
from muon_ad.train.compose import disturb
from muon_ad.train.compose import Placed
from muon_ad.train.images import DataError

# No boards: what they hide would still be annotated.
KINDS = {'letterbox': 0.3, 'view': 0.4, 'mosaic': 0.3}
VISIBLE = 0.3       # an object of which less is left in a scene is not asked for
SMALLEST = 4.0      # pixels; nor is one with a shorter side


class AnnotatedScenes:
    """Draws batches of scenes. Batch i depends on the seed, on i and on the pictures alone.

    Pictures that cannot be decoded are told once, counted in `unreadable`, and not drawn again.
    """

    def __init__(self, pictures: Sequence[Annotated], size: tuple[int, int], seed: int) -> None:
        self._pictures = list(pictures)
        self._size, self._seed = size, seed
        self.unreadable: set[int] = set()

    def batch(self, index: int, count: int) -> tuple[np.ndarray, list[Truth]]:
        """Return scenes, uint8 [count, H, W, 3] RGB, and what is in each.

        Raises DataError where no picture can be decoded.
        """
        rng = np.random.default_rng([self._seed, 2, index])
        scenes, truths = zip(*(self._scene(rng) for _ in range(count)), strict=True)
        return np.stack(scenes), list(truths)

    def _scene(self, rng: np.random.Generator) -> tuple[np.ndarray, Truth]:
        drawn: list[Truth] = []

        def draw(rng: np.random.Generator) -> np.ndarray:
            picture, truth = self._draw(rng)
            drawn.append(truth)
            return picture

        scene, places = compose(rng, draw, *self._size, KINDS)
        truth = joined([moved(each, place) for each, place in zip(drawn, places, strict=True)])
        if rng.random() < 0.5:
            scene, truth = np.ascontiguousarray(scene[:, ::-1]), mirrored(truth, self._size[0])
        return disturb(rng, scene), truth

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, Truth]:
        while len(self.unreadable) < len(self._pictures):
            index = int(rng.integers(len(self._pictures)))
            if index in self.unreadable:
                continue
            each = self._pictures[index]
            picture = cv2.imread(str(each.path), cv2.IMREAD_COLOR)
            if picture is not None:
                return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), each.truth
            self.unreadable.add(index)
            tqdm.write(f'{each.path}: cannot be decoded as an image; left out')
        raise DataError(f'none of {len(self._pictures)} pictures can be decoded as an image')


def moved(truth: Truth, place: Placed) -> Truth:
    """Return the objects of a picture as they lie in a scene that it was placed in.

    Boxes, the smallest around the moved corners, are cut at the part of the scene that shows the
    picture. An object that is cut too much or too small to be asked for is ignored, one that is
    outside is dropped.
    """
    if not len(truth.boxes):
        return truth
    x_min, y_min, x_max, y_max = truth.boxes.T
    corners = np.stack([x_min, y_min, x_max, y_min, x_max, y_max, x_min, y_max], 1)
    there = cv2.perspectiveTransform(corners.reshape(-1, 1, 2).astype(np.float64), place.matrix)
    there = there.reshape(-1, 4, 2)
    boxes = np.concatenate([there.min(axis=1), there.max(axis=1)], 1).astype(np.float32)
    whole = area(boxes)
    low, high = np.float32(place.part[:2] * 2), np.float32(place.part[2:] * 2)
    boxes = np.clip(boxes, low, high)
    left = area(boxes)
    poor = (left < VISIBLE * whole) | ((boxes[:, 2:] - boxes[:, :2]).min(axis=1) < SMALLEST)
    ignored = poor if truth.ignored is None else poor | truth.ignored
    seen = left > 0
    return Truth(boxes[seen], truth.class_ids[seen], ignored[seen])


def joined(truths: Sequence[Truth]) -> Truth:
    """Return all objects of several truths of one scene."""
    ignored = [np.zeros(len(each.boxes), bool) if each.ignored is None else each.ignored
               for each in truths]
    return Truth(np.concatenate([each.boxes for each in truths]),
                 np.concatenate([each.class_ids for each in truths]), np.concatenate(ignored))


def mirrored(truth: Truth, width: int) -> Truth:
    """Return the objects of a scene of that width mirrored from left to right."""
    x_min, y_min, x_max, y_max = truth.boxes.T
    boxes = np.stack([width - x_max, y_min, width - x_min, y_max], 1)
    return Truth(boxes, truth.class_ids, truth.ignored)

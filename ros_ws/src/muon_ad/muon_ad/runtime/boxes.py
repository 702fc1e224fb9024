"""Geometry of boxes: fitting a frame into a network's input, overlap, and suppression.

Boxes are float32 arrays [N, 4] of x_min, y_min, x_max, y_max in pixels, with the origin at the
upper left corner of the upper left pixel.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fit:
    """Where a frame lies in the network's input: from the upper left corner, `width` x `height`.

    `scale_x` and `scale_y` are network pixels per source pixel.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float

    def to_source(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes [N, 4] from the network's input back to the frame."""
        return boxes / np.float32([self.scale_x, self.scale_y, self.scale_x, self.scale_y])

    def to_network(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes [N, 4] from the frame into the network's input."""
        return boxes * np.float32([self.scale_x, self.scale_y, self.scale_x, self.scale_y])


def fit(source: tuple[int, int], target: tuple[int, int], resize: str) -> Fit:
    """Place a frame of `source` (width, height) in a network's input of `target` (width, height).

    `resize` is stretch (fills the input) or letterbox (keeps the aspect; the rest is padding at
    the right or at the bottom).
    """
    scale_x, scale_y = target[0] / source[0], target[1] / source[1]
    if resize == 'stretch':
        return Fit(target[0], target[1], scale_x, scale_y)
    scale = min(scale_x, scale_y)
    width = min(target[0], max(1, round(source[0] * scale)))
    height = min(target[1], max(1, round(source[1] * scale)))
    # Rounding to whole pixels shifts the scale a little; the boxes follow what was really done.
    return Fit(width, height, width / source[0], height / source[1])


def area(boxes: np.ndarray) -> np.ndarray:
    """Return the area [N] of boxes [N, 4]; an inverted box has none."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return intersection over union [N, M] of boxes [N, 4] and [M, 4]; 0 where both are empty."""
    upper_left = np.maximum(first[:, None, :2], second[None, :, :2])
    lower_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.prod(np.maximum(lower_right - upper_left, 0), axis=2)
    union = area(first)[:, None] + area(second)[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def suppress(
    boxes: np.ndarray,
    scores: np.ndarray,
    class_ids: np.ndarray,
    iou_threshold: float,
    limit: int,
    candidates: int = 1000,
) -> np.ndarray:
    """Return the indices of at most `limit` boxes to keep, highest score first.

    Greedy non-maximum suppression within each class: a box goes when it overlaps a better one of
    its class by more than `iou_threshold`. Only the `candidates` best boxes are looked at, which
    bounds the time a noisy frame can take.
    """
    order = np.argsort(-scores, kind='stable')[:candidates]
    rivals = iou(boxes[order], boxes[order]) > iou_threshold
    rivals &= class_ids[order][:, None] == class_ids[order][None]
    alive = np.ones(len(order), bool)
    kept: list[int] = []
    for index in range(len(order)):
        if not alive[index]:
            continue
        kept.append(index)
        if len(kept) == limit:
            break
        alive &= ~rivals[index]
    return order[kept]

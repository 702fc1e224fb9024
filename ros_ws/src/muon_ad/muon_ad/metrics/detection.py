"""Average precision of detections against annotated boxes, as in the PASCAL VOC challenge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from muon_ad.runtime.boxes import iou
from muon_ad.runtime.detection import Detections


@dataclass(frozen=True)
class Truth:
    """What is in one image: boxes float32 [N, 4] in pixels and their class_ids [N].

    `ignored`, bool [N], marks what may be found or not: VOC's difficult objects, COCO's crowds.
    None: nothing is ignored.
    """

    boxes: np.ndarray
    class_ids: np.ndarray
    ignored: np.ndarray | None = None

    def of(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the boxes of a class, and which of them are ignored."""
        mine = self.class_ids == index
        ignored = np.zeros(len(mine), bool) if self.ignored is None else self.ignored
        return self.boxes[mine], ignored[mine]


@dataclass(frozen=True)
class Precision:
    """Average precision of one class, how many objects there are, and how many were found."""

    average: float
    objects: int
    found: int


def average_precisions(
    truths: Sequence[Truth], found: Sequence[Detections], threshold: float = 0.5
) -> dict[int, Precision]:
    """Return the precision of each class that the truths contain.

    A detection is right where it overlaps a box of its image and class by at least `threshold`
    (IoU) and no better-scored detection took that box (Everingham et al., The PASCAL VOC
    Challenge, 2010, section 4.2; area under the interpolated curve at all points, as from 2010
    on). One that is right for an ignored box is neither right nor wrong. Raises ValueError where
    the two sequences differ in length.
    """
    if len(truths) != len(found):
        raise ValueError(f'{len(truths)} truths and {len(found)} results; expected one for one')
    classes = sorted({
        int(index) for truth in truths for index in np.unique(truth.class_ids)
        if not truth.of(index)[1].all()
    })
    return {index: _precision(truths, found, index, threshold) for index in classes}


def mean(precisions: dict[int, Precision]) -> float:
    """Return the mean average precision over classes; raises ValueError where there are none."""
    if not precisions:
        raise ValueError('no class to take the mean of: the truths contain no box')
    return float(np.mean([value.average for value in precisions.values()]))


def _precision(
    truths: Sequence[Truth], found: Sequence[Detections], index: int, threshold: float
) -> Precision:
    scores, right, objects = [], [], 0
    for truth, result in zip(truths, found, strict=True):
        boxes, ignored = truth.of(index)
        of_class = result.class_ids == index
        objects += int((~ignored).sum())
        mine = result.scores[of_class]
        hits, counts = _matches(boxes, ignored, result.boxes[of_class], mine, threshold)
        scores.append(mine[counts])
        right.append(hits[counts])
    order = np.argsort(-np.concatenate(scores), kind='stable')
    right = np.concatenate(right)[order]
    return Precision(_area(right, objects), objects, int(right.sum()))


def _matches(
    boxes: np.ndarray, ignored: np.ndarray, found: np.ndarray, scores: np.ndarray,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the detections are right, and which count at all, both bool [N]."""
    right, counts = np.zeros(len(found), bool), np.ones(len(found), bool)
    if not len(boxes):
        return right, counts
    overlap = iou(found, boxes)
    taken = np.zeros(len(boxes), bool)
    for index in np.argsort(-scores, kind='stable'):
        # VOC compares with the best box alone: a second detection of it is wrong.
        best = overlap[index].argmax()
        hit = overlap[index, best] >= threshold
        counts[index] = not (hit and ignored[best])
        right[index] = hit and not ignored[best] and not taken[best]
        taken[best] |= right[index]
    return right, counts


def _area(right: np.ndarray, objects: int) -> float:
    """Return the area under the precision-recall curve, made non-increasing from the right."""
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * right).sum() / objects)

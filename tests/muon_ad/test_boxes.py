"""Fitting frames, overlap, and suppression."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from muon_ad.runtime.boxes import fit
from muon_ad.runtime.boxes import iou
from muon_ad.runtime.boxes import suppress

SIZES = st.tuples(st.integers(1, 4000), st.integers(1, 4000))
COORDINATES = hnp.arrays(np.float32, st.tuples(st.integers(0, 12), st.just(4)),
                         elements=st.floats(0, 500, width=32))


def corners(values: np.ndarray) -> np.ndarray:
    """Turn any four numbers a row into a box with its corners in order."""
    return np.hstack([np.minimum(values[:, :2], values[:, 2:]),
                      np.maximum(values[:, :2], values[:, 2:])])


@given(SIZES, SIZES, st.sampled_from(['stretch', 'letterbox']))
def test_a_fitted_frame_lies_inside_and_touches_both_borders_or_one(source, target, resize):
    placed = fit(source, target, resize)
    assert 1 <= placed.width <= target[0]
    assert 1 <= placed.height <= target[1]
    assert placed.width == target[0] or placed.height == target[1]


@given(SIZES, SIZES, st.sampled_from(['stretch', 'letterbox']), COORDINATES)
def test_to_source_undoes_to_network(source, target, resize, values):
    placed = fit(source, target, resize)
    back = placed.to_source(placed.to_network(values))
    np.testing.assert_allclose(back, values, rtol=1e-4, atol=1e-3)


def test_letterbox_keeps_the_aspect_and_stretch_does_not():
    assert fit((1280, 720), (320, 256), 'letterbox').height == 180
    assert fit((1280, 720), (320, 256), 'stretch').height == 256


@given(COORDINATES, COORDINATES)
def test_overlap_is_symmetric_and_between_0_and_1(first, second):
    first, second = corners(first), corners(second)
    overlap = iou(first, second)
    assert ((overlap >= 0) & (overlap <= 1 + 1e-5)).all()
    np.testing.assert_allclose(overlap, iou(second, first).T, rtol=1e-5)


@given(COORDINATES)
def test_a_box_overlaps_itself_fully_unless_it_is_empty(values):
    boxes = corners(values)
    full = (boxes[:, 2:] - boxes[:, :2] > 0.01).all(axis=1)
    np.testing.assert_allclose(np.diag(iou(boxes, boxes))[full], 1, rtol=1e-4)


def test_overlap_of_known_boxes():
    boxes = np.float32([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(iou(boxes[:1], boxes), [[1, 1 / 3, 0]], rtol=1e-6)


@given(COORDINATES, st.floats(0, 1), st.integers(1, 20), st.randoms(use_true_random=False))
def test_what_is_kept_is_the_best_and_does_not_overlap(values, threshold, limit, random):
    boxes = corners(values)
    scores = np.float32([random.random() for _ in boxes])
    class_ids = np.array([random.randrange(3) for _ in boxes], np.int64)
    kept = suppress(boxes, scores, class_ids, threshold, limit)
    assert len(kept) <= limit
    assert (np.diff(scores[kept]) <= 0).all()
    rivals = (iou(boxes[kept], boxes[kept]) > threshold) & ~np.eye(len(kept), dtype=bool)
    assert not (rivals & (class_ids[kept][:, None] == class_ids[kept])).any()
    if len(boxes):
        assert scores[kept[0]] == scores.max()


@given(COORDINATES, st.randoms(use_true_random=False))
def test_what_is_dropped_has_a_better_rival_that_is_kept(values, random):
    boxes = corners(values)
    scores = np.float32([random.random() for _ in boxes])
    class_ids = np.array([random.randrange(2) for _ in boxes], np.int64)
    kept = suppress(boxes, scores, class_ids, 0.5, len(boxes) or 1)
    for index in set(range(len(boxes))) - set(kept):
        rivals = iou(boxes[[index]], boxes[kept])[0] > 0.5
        rivals &= (class_ids[kept] == class_ids[index]) & (scores[kept] >= scores[index])
        assert rivals.any()


def test_boxes_of_different_classes_do_not_suppress_each_other():
    boxes = np.float32([[0, 0, 10, 10]] * 3)
    kept = suppress(boxes, np.float32([0.5, 0.9, 0.7]), np.array([0, 1, 0]), 0.5, 10)
    assert kept.tolist() == [1, 2]


@pytest.mark.parametrize('count', [0, 1])
def test_few_boxes(count):
    kept = suppress(np.ones((count, 4), np.float32), np.ones(count), np.zeros(count), 0.5, 10)
    assert kept.tolist() == list(range(count))


def test_a_noisy_frame_is_bounded_to_the_best_candidates():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 5000, (5000, 2))
    boxes = np.hstack([corner, corner + 5]).astype(np.float32)
    scores = rng.random(5000).astype(np.float32)
    kept = suppress(boxes, scores, np.zeros(5000, int), 0.5, 5000, candidates=50)
    assert len(kept) <= 50
    assert scores[kept].min() >= np.sort(scores)[-50]

"""Average precision, against values worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muon_ad.metrics.detection import average_precisions
from muon_ad.metrics.detection import mean
from muon_ad.metrics.detection import Truth
from muon_ad.runtime.detection import Detections

NOTHING = np.empty((0, 4), np.float32)


def box(x: float) -> list[float]:
    return [x, 0, x + 10, 10]


def truth(*places: float, class_id: int = 0) -> Truth:
    return Truth(np.float32([box(x) for x in places]).reshape(-1, 4),
                 np.full(len(places), class_id))


def found(*scored: tuple[float, float], class_id: int = 0) -> Detections:
    return Detections(np.float32([box(x) for x, _ in scored]).reshape(-1, 4),
                      np.float32([score for _, score in scored]), np.full(len(scored), class_id))


def average(truths: list[Truth], results: list[Detections]) -> float:
    return average_precisions(truths, results)[0].average


def test_all_found_is_1_and_nothing_found_is_0():
    assert average([truth(0, 50)], [found((0, 0.9), (51, 0.8))]) == 1
    assert average([truth(0, 50)], [found()]) == 0


def test_a_wrong_detection_costs_only_what_comes_after_it():
    # right, wrong, right: precision 1 up to recall 1/2, then 2/3.
    truths = [truth(0, 50)]
    results = [found((0, 0.9), (200, 0.8), (50, 0.7))]
    assert average(truths, results) == pytest.approx(5 / 6)
    assert average(truths, [found((0, 0.9), (50, 0.8), (200, 0.7))]) == 1


def test_precision_is_made_monotonous():
    # wrong, right, right: 1/2 and 2/3, of which the envelope is 2/3 throughout.
    results = [found((200, 0.9), (0, 0.8), (50, 0.7))]
    assert average([truth(0, 50)], results) == pytest.approx(2 / 3)


def test_a_box_is_matched_once_and_by_the_best_score():
    precision = average_precisions([truth(0)], [found((1, 0.5), (0, 0.9))])[0]
    assert (precision.average, precision.objects, precision.found) == (1, 1, 1)


def test_images_do_not_mix_and_scores_order_across_them():
    truths = [truth(0), truth(100)]
    assert average(truths, [found((100, 0.9)), found((0, 0.9))]) == 0
    results = [found((0, 0.5)), found((300, 0.9), (100, 0.4))]
    assert average(truths, results) == pytest.approx(2 / 3)


def test_classes_are_counted_apart():
    truths = [truth(0), truth(0, class_id=3)]
    precisions = average_precisions(truths, [found((0, 0.9)), found((0, 0.9))])
    assert {index: value.average for index, value in precisions.items()} == {0: 1, 3: 0}
    assert mean(precisions) == 0.5


def test_overlap_just_under_the_threshold_does_not_count():
    assert average([truth(0)], [found((3.3, 0.9))]) == 1
    assert average([truth(0)], [found((3.4, 0.9))]) == 0


@given(st.integers(0, 10000))
def test_average_precision_is_between_0_and_recall(seed):
    rng = np.random.default_rng(seed)
    truths = [truth(*(20.0 * rng.permutation(6)[: rng.integers(0, 5)])) for _ in range(4)]
    results = [found(*zip(rng.uniform(0, 120, 5), rng.random(5), strict=True)) for _ in range(4)]
    for value in average_precisions(truths, results).values():
        assert 0 <= value.average <= value.found / value.objects <= 1


def test_bad_input_is_an_error():
    with pytest.raises(ValueError, match='1 truths and 0 results'):
        average_precisions([truth(0)], [])
    with pytest.raises(ValueError, match='no box'):
        mean(average_precisions([Truth(NOTHING, np.empty(0, int))], [found()]))

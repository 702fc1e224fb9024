"""Results against stored ones: each tolerance at its limit, and what has no counterpart."""

from pathlib import Path

import numpy as np
import pytest

from muon_ad.bags import message_class
from muon_ad.pictures import IMAGE
from muon_ad.replay import messages
from muon_ad.replay.compare import changes
from muon_ad.replay.compare import compare_detections
from muon_ad.replay.compare import compare_pictures
from muon_ad.replay.compare import compare_recordings
from muon_ad.replay.compare import Comparer
from muon_ad.replay.compare import Tolerances
from muon_ad.replay.record import Recorded
from muon_ad.replay.record import Recording
from muon_ad.replay.report import comparison_lines

DEFAULT = Tolerances()
NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def found(box=(10, 10, 30, 50), score=0.8, label='person', z=None):
    return message_class('muon_ad_msgs/msg/Detection')(
        *map(float, box), class_id=0, label=label, score=score, position_valid=z is not None,
        position=message_class('geometry_msgs/msg/Point')(0.0, 0.0, z or 0.0),
        position_variance=np.zeros(3),
    )


def array(*detections, stamp_ns=0):
    return message_class(messages.DETECTIONS)(
        header=messages.header(stamp_ns, 'lens'), image_width=60, image_height=40,
        detections=list(detections),
    )


def outcome(expected, got, threshold=0.4, tolerances=DEFAULT):
    """Return the names of the measures beyond their limits, and the problems."""
    measures, problems = compare_detections(expected, got, tolerances, threshold)
    return [measure.name for measure in measures if measure.worse > 1], problems


@pytest.mark.parametrize(
    'got, beyond',
    [
        (found(), []),
        (found(box=(10.5, 10, 30.5, 50)), []),              # IoU 0.95
        (found(box=(12, 10, 32, 50)), ['box IoU']),         # 0.82
        (found(score=0.76), []),
        (found(score=0.74), ['score']),
    ],
)
def test_boxes_and_scores(got, beyond):
    assert outcome(array(found()), array(got)) == (beyond, [])


def test_positions():
    assert outcome(array(found(z=2.0)), array(found(z=2.05))) == ([], [])
    assert outcome(array(found(z=2.0)), array(found(z=2.2))) == (['position m'], [])
    assert outcome(array(found(z=2.0)), array(found())) == (
        [], ['position of person is valid: False'])


def test_what_is_no_number_differs():
    assert outcome(array(found(score=0.8)), array(found(score=np.nan))) == (['score'], [])
    assert outcome(array(found(score=np.nan)), array(found(score=0.8))) == (['score'], [])
    assert outcome(array(found(z=2.0)), array(found(z=np.nan))) == (['position m'], [])
    assert outcome(array(), array(found(score=np.nan))) == ([], ['person of score nan is new'])
    lost = found(box=(np.nan, 10, 30, 50))
    assert outcome(array(found()), array(lost))[1] == [
        'person of score 0.80 is not found', 'person of score 0.80 is new']


def test_missing_and_new_detections_count_unless_they_are_at_the_threshold():
    sure, doubtful = found(score=0.8), found(score=0.43)
    assert outcome(array(sure), array()) == ([], ['person of score 0.80 is not found'])
    assert outcome(array(), array(sure)) == ([], ['person of score 0.80 is new'])
    assert outcome(array(doubtful), array()) == ([], [])
    assert outcome(array(), array(doubtful)) == ([], [])
    assert outcome(array(found(label='cup')), array(sure))[1] == [
        'cup of score 0.80 is not found', 'person of score 0.80 is new']


def test_each_is_paired_with_its_own():
    left, right = found(box=(0, 0, 10, 40)), found(box=(30, 0, 40, 40), score=0.7)
    assert outcome(array(left, right), array(right, left)) == ([], [])


def test_pictures():
    def beyond(got, tolerances=DEFAULT):
        measures, problems = compare_pictures(NOISE, got, tolerances)
        return [m.name for m in measures if m.worse > 1], problems

    assert beyond(NOISE) == ([], [])
    near = np.clip(NOISE.astype(int) + 1, 0, 255).astype(np.uint8)
    assert beyond(near) == ([], [])
    assert beyond(np.roll(NOISE, 1, axis=1)) == (['mean difference', 'SSIM'], [])
    assert beyond(near, Tolerances(mean_abs=0.0)) == (['mean difference'], [])
    assert beyond(NOISE[:, :50]) == ([], ['is uint8 of 50x40; expected uint8 of 60x40'])
    tiny = np.zeros((2, 2, 3), np.uint8)
    assert [m.name for m in compare_pictures(tiny, tiny, DEFAULT)[0]] == ['mean difference']


def test_depth_is_compared_in_millimetres():
    metres = np.full((20, 20), 2.0, np.float32)
    holed = metres.copy()
    holed[0, 0] = np.nan
    assert compare_pictures(holed, holed, DEFAULT)[0][0].value == 0
    assert compare_pictures(metres, metres + np.float32(0.003), DEFAULT)[0][0].worse > 1
    assert compare_pictures(metres, holed, DEFAULT)[0][0].value == pytest.approx(5.0)


def golden(count=3, every=1):
    stamps = [n * 10**9 for n in range(count)]
    return Recording(Path('g.mcap'), {'every': every, 'detector': {'score_threshold': 0.4}}, {
        '/detections': [
            Recorded(ns, messages.DETECTIONS, array(found(), stamp_ns=ns)) for ns in stamps
        ],
        '/style': [
            Recorded(ns, IMAGE, messages.image(NOISE, 'rgb8', messages.header(ns, '')))
            for ns in stamps[::every]
        ],
    })


def compare(stamps, every=1, tolerances=DEFAULT, got=None):
    stored = golden(every=every)
    comparer = Comparer(stored, tolerances, stored.about)
    for number, ns in enumerate(stamps):
        comparer.add('/detections', number, ns, got or array(found()))
        comparer.add('/style', number, ns, NOISE)
    return comparer.finish()


def test_counts_and_stamps():
    assert compare([0, 10**9, 2 * 10**9]).same
    short = compare([0, 10**9])
    assert not short.same
    assert '/detections: 1 missing, 0 extra; first at stamps 2.000 s' in comparison_lines(short)
    assert compare([0, 10**9], tolerances=Tolerances(count=1)).same
    assert not compare([0, 10**9, 2 * 10**9, 3 * 10**9]).same
    late = [ns + 2_000_000 for ns in (0, 10**9, 2 * 10**9)]
    assert not compare(late).same
    assert compare(late, tolerances=Tolerances(stamp_ms=2.0)).same
    assert not compare(late, tolerances=Tolerances(stamp_ms=1.0)).same


def test_golden_that_keeps_some_pictures():
    assert compare([0, 10**9, 2 * 10**9], every=2).same
    assert not compare([10**9, 2 * 10**9], every=2).same


def test_pictures_too_many_count_where_a_golden_keeps_some():
    longer = compare([n * 10**9 for n in range(5)], every=2)
    assert (longer.topics['/style'].got, longer.topics['/style'].extra) == (3, 1)


def test_golden_that_keeps_some_pictures_of_equal_stamps_is_the_same_as_itself():
    pictures = [np.full((12, 16, 3), 60 * number, np.uint8) for number in range(4)]
    stored = Recording(Path('g.mcap'), {'every': 2}, {'/style': [
        Recorded(0, IMAGE, messages.image(picture, 'rgb8', messages.header(0, '')))
        for picture in pictures[::2]
    ]})
    assert compare_recordings(stored, stored, DEFAULT).same
    comparer = Comparer(stored, DEFAULT, stored.about)
    for number, picture in enumerate(pictures):
        comparer.add('/style', number, 0, picture)
    assert comparer.finish().same


def test_worst_frame_is_named():
    outcome = compare([0, 10**9, 2 * 10**9], got=array(found(score=0.5)))
    assert not outcome.same
    assert outcome.worst.topic == '/detections'
    line = comparison_lines(outcome)[0]
    assert line.startswith('worst frame: number 0 of /detections, stamp 0.000 s: score 0.3')
    assert 'limit 0.05' in line


def test_what_changed_is_said():
    before = {'style': {'sha256': 'a' * 64, 'style': 'waves'}, 'versions': {'numpy': '1'},
              'every': 5}
    now = {'style': {'sha256': 'b' * 64, 'style': 'waves'}, 'versions': {'numpy': '2'}}
    assert changes(before, now) == [
        'style sha256: aaaaaaaaaaaa... in the golden, bbbbbbbbbbbb... here',
        'versions numpy: 1 in the golden, 2 here',
    ]

"""Limits of the pytest plugin: each passes and fails where it shall, and says what was worst."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from muon_ad.bags import BagWriter
from muon_ad.bags import message_class
from muon_ad.replay import messages
from muon_ad.replay.error import ReplayError
from muon_ad.replay.record import ABOUT
from muon_ad.testing.result import Outcome
from muon_ad.testing.result import Result
from muon_ad.testing.result import stored

POINT = 'geometry_msgs/msg/PointStamped'


def person(score, z=None):
    position = SimpleNamespace(x=0.0, y=0.0, z=z or 0.0)
    return SimpleNamespace(
        label='person', score=score, position_valid=z is not None, position=position
    )


@pytest.fixture
def result():
    """Ten images of 10 to 100 ms; the last one dropped; a person in five, surer and farther."""
    outcomes = [
        Outcome('/image_raw', n, n * 10**8, n * 10**8, 10.0 * (n + 1), '', {
            '/detections': SimpleNamespace(
                detections=[person(0.1 * n, z=float(n))] if n >= 4 else []
            )
        })
        for n in range(10)
    ]
    outcomes[9].dropped, outcomes[9].outputs = 'data is a damaged picture', {}
    return Result(
        Path('a.mcap'), Path('r.mcap'), outcomes, notes=['the bag is cut'], score_threshold=0.4
    )


def said(check, *arguments, **limits):
    """Return what an assertion says, or None where it passes."""
    try:
        check(*arguments, **limits)
    except AssertionError as failed:
        return str(failed).splitlines()
    return None


def test_drops(result):
    assert said(result.assert_no_drops, at_most=1) is None
    assert said(result.assert_no_drops) == [
        '1 of 10 images were dropped; the limit is 0',
        '1 of them: data is a damaged picture',
        'first: image 9 of /image_raw (stamp 0.900 s)',
        'the bag is cut',
    ]


def test_latency(result):
    assert said(result.assert_latency, p50_ms=50, p99_ms=90, max_ms=90) is None
    assert said(result.assert_latency, p50_ms=49)[0] == (
        'latency p50 is 50.0 ms; the limit is 49 ms')
    assert said(result.assert_latency, p99_ms=80, max_ms=200) == [
        'latency p99 is 89.2 ms; the limit is 80 ms',
        'worst: image 8 of /image_raw (stamp 0.800 s), 90.0 ms',
    ]
    assert said(result.assert_latency, max_ms=89)[0] == (
        'latency maximum is 90.0 ms; the limit is 89 ms')


def test_rate(result):
    assert result.rate_hz == pytest.approx(20)
    assert said(result.assert_rate, 19.9) is None
    assert said(result.assert_rate, 21) == [
        'rate is 20.0 images a second; the limit is 21',
        'slowest: image 8 of /image_raw (stamp 0.800 s), 90.0 ms',
    ]


def test_detections(result):
    check = result.assert_detects
    assert said(check, 'person', at_least=5) is None
    assert said(check, 'person', at_least=3, score=0.55) is None
    assert said(check, 'person', at_least=2, at_most=2, distance_m=(6.5, 8.5)) is None
    assert said(check, 'cup', at_most=0) is None
    assert said(check, 'person', at_most=0)[0].endswith('the limit is at most 0')
    assert said(check, 'cup', at_most=3)[0].endswith('the limit is at least 1')
    assert said(check, 'person', at_least=6, score=0.3) == [
        "'person' of score 0.3 or more is in 5 of 10 images; the limit is at least 6",
        "worst: image 0 of /image_raw (stamp 0.000 s), no 'person' above score_threshold 0.4",
        'found in all: 5 person',
    ]
    assert said(check, 'person', at_least=0, at_most=4)[:2] == [
        "'person' of score 0 or more is in 5 of 10 images; the limit is at most 4",
        "worst: image 8 of /image_raw (stamp 0.800 s), best score of 'person' 0.80",
    ]


def test_distances(result):
    lines = said(result.assert_detects, 'person', distance_m=(0, 3))
    assert 'at 0 to 3 m is in 0 of 10' in lines[0]
    assert "distances of 'person': 4.00 to 8.00 m" in lines
    for outcome in result.outcomes:
        for found in getattr(outcome.outputs.get('/detections'), 'detections', []):
            found.position_valid = False
    assert "5 of 5 'person' have no position: no depth there, or no calibration" in (
        said(result.assert_detects, 'person', distance_m=(0, 3)))
    for wrong in (2.0, (3, 1), (None, 2), (1, 2, 3), (-1, 2), 'near', (float('nan'), 1)):
        with pytest.raises(ValueError, match=r'expected \(least, most\) in metres'):
            result.assert_detects('person', distance_m=wrong)


def test_what_nothing_was_searched_for_is_not_absent(result):
    """A test that nobody is there must not pass because nobody looked."""
    def absent():
        return ' '.join(said(result.assert_detects, 'person', at_least=0, at_most=0) or ['passes'])

    result.classes = ('person', 'cup')
    with pytest.raises(ValueError, match="label is 'Person'; the detector reports person, cup"):
        result.assert_detects('Person', at_most=0)
    for outcome in result.outcomes:
        outcome.outputs = {'/answer': SimpleNamespace(x=1)}
    assert 'no result has detections' in absent()
    assert '/answer (SimpleNamespace)' in absent()
    for outcome in result.outcomes:
        outcome.dropped = 'lost'
    assert 'none of 10 images gave its results' in absent()
    result.outcomes.clear()
    assert 'no image was played the bag is cut' in absent()


@pytest.mark.parametrize('limits', [{'at_least': 3, 'at_most': 2}, {'at_least': -1}, {'score': 2}])
def test_limits_that_make_no_sense(result, limits):
    with pytest.raises(ValueError, match='expected 0'):
        result.assert_detects('person', **limits)


def test_latency_without_a_limit(result):
    with pytest.raises(ValueError, match='p50_ms, p99_ms or max_ms'):
        result.assert_latency()


def test_nothing_at_all_fulfils_no_limit():
    nothing = Result(Path('a.mcap'), Path('r.mcap'))
    for check in (
        nothing.assert_no_drops, lambda: nothing.assert_latency(p99_ms=1e9),
        lambda: nothing.assert_rate(0.0), lambda: nothing.assert_detects('person'),
        lambda: nothing.assert_matches('g.mcap'),
    ):
        assert 'no image was played' in said(check)[0]


def recorded(path, x, stamps=(0, 1), kind=POINT):
    """A recording of points, one of each stamp, as a node may publish them."""
    with BagWriter(path) as bag:
        bag.annotate(ABOUT, '{}')
        for number in stamps:
            point = message_class('geometry_msgs/msg/Point')(x, 0.0, float('nan'))
            bag.write('/answer', kind, number, message_class(kind)(
                header=messages.header(number, 'lens'), point=point))
    outcomes = [Outcome('/image_raw', n, n, n, outputs={'/answer': 1}) for n in stamps]
    return Result(Path('a.mcap'), path, outcomes)


def test_golden_of_other_messages(tmp_path):
    golden = tmp_path / 'goldens' / 'g.mcap'
    result = recorded(tmp_path / 'r.mcap', 2.0)
    assert 'pytest --update-goldens' in said(result.assert_matches, golden)[0]
    result.update_goldens = True
    result.assert_matches(golden)
    assert stored.pop() == f'{golden}: 2 of /answer'
    result.update_goldens = False
    result.assert_matches(golden)
    lines = said(recorded(tmp_path / 'other.mcap', 2.5).assert_matches, golden)
    assert 'worst frame: number 0 of /answer, stamp 0.000 s: point.x 0.5 (limit 1e-06)' in lines
    recorded(tmp_path / 'near.mcap', 2.5).assert_matches(golden, value=0.5)
    assert '/answer: 1 missing' in '\n'.join(
        said(recorded(tmp_path / 'short.mcap', 2.0, stamps=(0,)).assert_matches, golden))
    with pytest.raises(TypeError, match='assert_matches has no option iuo; it takes count, iou'):
        result.assert_matches(golden, iuo=3)
    with pytest.raises(ValueError, match='tolerance iou is 7; expected 0 to 1'):
        result.assert_matches(golden, iou=7)


def test_golden_of_nothing_is_not_written(tmp_path):
    golden = tmp_path / 'g.mcap'
    result = recorded(tmp_path / 'r.mcap', 2.0, stamps=())
    result.update_goldens = True
    assert 'no image was played' in said(result.assert_matches, golden)[0]
    result.outcomes.append(Outcome('/image_raw', 0, 0, 0, outputs={'/own': 1}))
    with pytest.raises(ReplayError, match='holds no results'):
        result.assert_matches(golden)
    assert not golden.exists()

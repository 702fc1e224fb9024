"""Limits of the pytest plugin: each passes and fails where it shall, and says what was worst."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from muon_ad.testing.result import Outcome
from muon_ad.testing.result import Result


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
    return Result(Path('a.mcap'), Path('r.mcap'), outcomes, notes=['the bag is cut'])


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
        '1 of 10 images were dropped; the limit is 0 (and at least one image)',
        '1 times: data is a damaged picture',
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
    assert said(check, 'cup', at_least=0, at_most=0) is None
    assert said(check, 'person', at_least=6, score=0.3) == [
        "'person' of score 0.3 or more is in 5 of 10 images; the limit is at least 6",
        "worst: image 0 of /image_raw (stamp 0.000 s), best score of 'person' 0.00",
        'found in all: 5 person',
    ]
    assert said(check, 'person', at_least=0, at_most=4)[:2] == [
        "'person' of score 0 or more is in 5 of 10 images; the limit is at most 4",
        "worst: image 8 of /image_raw (stamp 0.800 s), best score of 'person' 0.80",
    ]
    assert 'at 0 to 3 m is in 0 of 10' in said(check, 'person', distance_m=(0, 3))[0]


def test_nothing_at_all_fulfils_no_limit():
    nothing = Result(Path('a.mcap'), Path('r.mcap'))
    for check in (
        nothing.assert_no_drops, lambda: nothing.assert_latency(p99_ms=1e9),
        lambda: nothing.assert_rate(0.0), lambda: nothing.assert_detects('person'),
    ):
        assert said(check)


def test_golden_that_is_not_there(result, tmp_path):
    golden = tmp_path / 'goldens' / 'g.mcap'
    assert 'pytest --update-goldens' in said(result.assert_matches, golden)[0]
    result.recording = tmp_path / 'r.mcap'
    result.recording.write_bytes(b'results')
    result.update_goldens = True
    result.assert_matches(golden)
    assert golden.read_bytes() == b'results'

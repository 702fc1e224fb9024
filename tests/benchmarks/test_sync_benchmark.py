"""The model of two cameras, the floor that nobody can beat, and the peer."""

from types import SimpleNamespace

import _peer_sync
import pytest
import sync
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

MS = sync.MS


def images(*streams: list[float]) -> list[sync.Image]:
    """Images that arrive at once, their stamps in milliseconds."""
    return sorted(
        (sync.Image(int(at * MS), index, int(at * MS)) for index, own in enumerate(streams)
         for at in own), key=lambda image: image.arrival,
    )


def test_a_recording_without_drops_has_every_image_in_order():
    found = sync.recording(1, 20.0, 'none')
    for stream, count in enumerate((600, 600, 599)):
        stamps = [image.stamp for image in found if image.stream == stream]
        assert len(stamps) == count and stamps == sorted(set(stamps))
    assert all(image.arrival > image.stamp for image in found)
    assert found == sync.recording(1, 20.0, 'none') != sync.recording(2, 20.0, 'none')


def test_drops_are_as_many_as_said():
    whole = len(sync.recording(3, 200.0, 'none'))
    lost = 1 - len(sync.recording(3, 200.0, 'bad')) / whole
    assert lost == pytest.approx(0.02, abs=0.005)


def test_the_floor_of_a_recording_that_is_known():
    known = images([1, 34, 67, 100], [1, 34, 100], [12, 45, 78, 111])
    assert sync.most_sets(known, 15 * MS) == 3
    assert sync.most_sets(known, 10 * MS) == 0


@given(st.integers(0, 20), st.sampled_from([5, 17, 25, 60]), st.sampled_from(['usual', 'bad']))
@settings(max_examples=12, deadline=None)
def test_nobody_beats_the_floor(seed, slop, drops):
    recorded = sync.recording(seed, 10.0, drops)
    most = sync.most_sets(recorded, slop * MS)
    for algorithm in (sync.suite, sync.other(_peer_sync.Rewritten)):
        found, used = algorithm(recorded, slop * MS)
        figures = sync.figures(recorded, found, used, most)
        assert figures['avoidable_percent'] >= 0
        assert figures['unmatched_percent'] >= figures['least_percent'] >= 0
        assert figures['skew_p99_ms'] is None or figures['skew_p99_ms'] <= slop
        assert figures['delay_p50_ms'] is None or figures['delay_p50_ms'] >= 0


def test_the_target_is_met_on_a_short_recording():
    recorded = sync.recording(5, 60.0, 'usual')
    found, used = sync.suite(recorded, sync.SLOP_MS * MS)
    most = sync.most_sets(recorded, sync.SLOP_MS * MS)
    assert sync.figures(recorded, found, used, most)['avoidable_percent'] < 0.2


def paired(kind: type, arrivals: list[tuple[int, int]], slop: int, queue: int = 10) -> list:
    found = []
    made = kind(2, queue, slop, found.append)
    for stream, stamp in arrivals:
        made.add(stream, stamp)
    return found


def test_the_peer_takes_the_nearest_of_what_is_there_and_takes_nothing_back():
    come = [(0, 0), (0, 33), (1, 30), (1, 35), (0, 34), (1, 34)]
    assert paired(_peer_sync.Rewritten, come, 40) == [(33, 30), (0, 35), (34, 34)]
    assert paired(_peer_sync.Rewritten, [(0, 0), (1, 40)], 40) == []    # less than, not up to
    assert paired(_peer_sync.Rewritten, [(0, 0), (0, 33), (1, 1)], 10, queue=1) == []


def test_the_peer_is_imported_where_there_is_one(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, 'message_filters', None)
    assert _peer_sync.peer() == ('written anew', _peer_sync.Rewritten)
    monkeypatch.setitem(sys.modules, 'message_filters', SimpleNamespace())
    assert _peer_sync.peer() == ('imported', _peer_sync.Imported)


def test_ratios_compare_at_the_slop_of_the_node():
    def rounds(*values: float) -> list[dict]:
        names = ('unmatched_percent', 'avoidable_percent', 'skew_p50_ms', 'skew_p99_ms')
        return [dict.fromkeys(names, value) for value in values]

    case = sync.Case(sync.SLOP_MS, 'usual')
    found = sync.compare({case: {sync.SUITE: rounds(1.0, 2.0), sync.PEER: rounds(4.0, 4.0)}})
    assert found['unmatched_percent']['rounds'] == [1.0, 2.0]
    assert found['unmatched_percent_vs_peer']['rounds'] == [0.25, 0.5]

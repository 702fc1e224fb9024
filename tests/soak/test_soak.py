"""What a soak run does and concludes; the run itself is `make soak`."""

import importlib
import os
from itertools import islice

import psutil
import pytest

from muon_ad.faults import parse
from muon_ad.faults.fault import KINDS
from muon_ad_msgs.msg import SyncStatus
from muon_ad_msgs.msg import SyncStream
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts.lifecycle import COMMON
from tools.soak import __main__ as soak
from tools.soak import report
from tools.soak.faults import events
from tools.soak.faults import HARM
from tools.soak.faults import PAUSE
from tools.soak.processes import ours
from tools.soak.processes import Sample
from tools.soak.processes import Sampler
from tools.soak.watch import contradictions
from tools.soak.watch import sync_contradictions

CAMERAS = {'/left': tuple(KINDS), '/right': ('stall', 'no_info')}
NODES = (*CAMERAS, '/style', '/detector')


def test_the_seed_decides_the_faults():
    first, again, other = (
        list(islice(events(seed, CAMERAS, NODES), 50)) for seed in (3, 3, 4)
    )
    assert first == again != other


def test_every_kind_is_done_to_every_camera_and_every_harm_to_nodes():
    coming = list(islice(events(1, CAMERAS, NODES), 300))
    for camera, kinds in CAMERAS.items():
        assert {e.kind for e in coming if e.node == camera and e.text} == set(kinds)
    harm = [e for e in coming if e.kind in HARM]
    assert {e.kind for e in harm} == set(HARM)
    assert {e.node for e in harm} == set(NODES)
    assert 0.2 < len(harm) / len(coming) < 0.4
    for event in coming:
        assert event.gap_s >= 2
        if event.text:      # `at` is left to the moment
            fault = parse(event.text)
            assert (fault.kind, fault.at_s, fault.for_s) == (event.kind, 0, event.for_s)
        else:
            assert (event.for_s > 0) == (event.kind == PAUSE)


def sample(heap: float = 100.0, handles: int = 20) -> Sample:
    return Sample(rss=200, pss=120, heap=heap, handles=handles, threads=9, segments=8)


def record_of(**lives) -> report.Record:
    record = report.Record(begun=0.0, ended=300.0)
    for name, make in lives.items():
        record.samples[f'/{name}', len(record.samples)] = [
            (float(at), make(at)) for at in range(0, 300, 2)
        ]
    return record


def test_growth_is_judged_by_figure_and_life():
    record = record_of(
        steady=lambda at: sample(),
        leaks=lambda at: sample(heap=100 + at / 10),
        opens=lambda at: sample(handles=20 + at // 20),
        warms=lambda at: sample(heap=min(100 + at * 5, 195)),
    )
    record.samples['/short', 9] = [(float(at), sample(heap=at)) for at in range(115)]
    record.segments = [(float(at), 10 + at // 10) for at in range(0, 300, 2)]
    grown = {(each['node'], each['figure']) for each in report.growth(record) if each['grows']}
    assert grown == {('/leaks', 'heap'), ('/opens', 'handles'), ('all', 'segments in /dev/shm')}
    assert not any(each['node'] == '/short' for each in report.growth(record))


@pytest.mark.parametrize('seconds, level, grows', [
    (600, 160, False),      # longer, and stood still above
    (600, 140, True),       # longer, but below
    (200, 160, True),       # above, but shorter
])  # fmt: skip
def test_a_life_that_fills_up_to_where_a_longer_one_stood_still_is_no_leak(seconds, level, grows):
    record = record_of()
    record.samples['/a', 1] = [(float(at), sample(heap=100 + at / 6)) for at in range(0, 300, 2)]
    record.samples['/a', 2] = [(float(at), sample(heap=level)) for at in range(0, seconds, 2)]
    found = {each['pid']: each for each in report.growth(record) if each['figure'] == 'heap'}
    assert found[1]['growth'] > 20 and not found[2]['grows']
    assert found[1]['grows'] == grows


def test_the_longest_life_is_shown():
    record = record_of(a=lambda at: sample(heap=at))
    record.samples['/a', 77] = [(0.0, sample()), (10.0, sample())]
    shown = report.longest(record)['/a']
    assert (shown['lives'], shown['seconds'], shown['heap']) == (2, 298, [30, 298])


def test_a_life_of_one_sample_is_shown():
    record = report.Record(begun=0.0, ended=5.0)
    record.samples['/a', 1] = [(1.0, sample())]
    assert report.longest(record)['/a']['seconds'] == 0
    assert report.picture(record).ndim == 3


@pytest.mark.parametrize('spans, explained, seconds', [
    ([], [], 0),
    ([(1, 4), (10, 12)], [], 5),
    ([(1, 4), (10, 12)], [(0, 5)], 2),
    ([(1, 4)], [(2, 3)], 2),
    ([(1, 4)], [(0, 2), (1, 3), (3.5, 9)], 0.5),
])  # fmt: skip
def test_time_without_results_that_no_fault_explains(spans, explained, seconds):
    assert report.without(spans, explained) == pytest.approx(seconds)


def test_shares_of_time():
    record = report.Record(begun=0.0, ended=100.0)
    record.gaps = {'/a': [(10, 15), (50, 52)], '/b': []}
    record.done = [report.Done('x', 'kill', 10.0, 10.0, 14.5)]
    shares = report.shares(record, 1.0)
    assert shares == pytest.approx({'without_results_percent': 3.5, 'unexplained_percent': 1.0})


def test_recoveries_by_kind():
    done = [report.Done('x', 'kill', 0, 1, 5), report.Done('x', 'kill', 0, 1, 3),
            report.Done('x', 'stall', 0, 1)]
    assert report.recoveries(done) == {
        'kill': {'times': 2, 'median_s': 3, 'max_s': 4},
        'stall': {'times': 1, 'median_s': None, 'max_s': None},
    }


def status(**counters) -> TaskStatus:
    return TaskStatus(state='active', pid=7, **counters)


def test_counters_that_do_not_add_up_are_named():
    good = status(received=10, frames=5, dropped_newer=3, dropped_invalid=1)
    assert contradictions('/a/style_transfer', None, good) == []
    lost = status(received=13, frames=5, dropped_newer=3, dropped_invalid=1)
    assert '4 frames are neither' in contradictions('/a/style_transfer', None, lost)[0]
    more = status(received=8, frames=5, dropped_newer=3, dropped_invalid=1)
    assert contradictions('/a/object_detector', None, more)
    assert contradictions('/csi/csi_camera', None, lost) == []      # counts otherwise


def test_counters_that_go_back_are_named_within_a_life():
    before, after = status(received=10, frames=10), status(received=9, frames=9)
    assert len(contradictions('/a', before, after)) == 2
    after.pid = 8
    assert contradictions('/a', before, after) == []


def test_streams_that_do_not_add_up_are_named():
    good = SyncStream(name='color', received=10, matched=7, unmatched_late=1, waiting=2)
    bad = SyncStream(name='csi', received=10, matched=7, unmatched_silent=2)
    assert sync_contradictions(SyncStatus(streams=[good])) == []
    assert 'csi received 10, knows 9' in sync_contradictions(SyncStatus(streams=[good, bad]))[0]


def test_a_process_is_sampled_until_it_ends():
    found = Sampler().sample(os.getpid())
    assert found.rss > found.heap > 1
    assert found.handles > 2 and found.threads >= 1
    assert Sampler().sample(2**22 + 1) is None
    with psutil.Popen(['true']) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)     # a zombie now
        assert Sampler().sample(child.pid) is None


def test_only_our_own_processes_may_be_harmed():
    assert os.getpid() not in ours()
    assert os.getppid() not in ours()
    with psutil.Popen(['sleep', '60']) as child:
        assert child.pid in ours()
        child.kill()


def test_the_parameters_of_the_run_are_those_of_the_nodes(tmp_path):
    launch, arguments = soak.prepare(tmp_path)
    assert arguments[0] == 'multitask'
    names = {node.full_name: node.executable.name for node in launch.nodes}
    for node, changed in soak.CHANGED.items():
        module = importlib.import_module(f'muon_ad_nodes.nodes.{names[node]}')
        known = {each.name: each for each in (*module.PARAMETERS, *COMMON)}
        for name, value in changed.items():
            known[name].check(value)
    assert set(soak.CAMERAS) <= set(names)

"""Ways of frames as events of the Trace Event Format, and how they get there."""

import io
import json
import os
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.lifecycle import TransitionCallbackReturn
from rich.console import Console
from sensor_msgs.msg import Image

from muon_ad.cli import main
from muon_ad_msgs.msg import FrameTrace
from muon_ad_nodes.nodes import csi_camera
from muon_ad_nodes.nodes import style_transfer
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts import trace_topic
from muon_ad_nodes.parts.images import to_message
from muon_ad_nodes.parts.stamps import nanoseconds
from muon_ad_nodes.parts.stamps import to_stamp
from muon_ad_nodes.trace.events import trace_document
from muon_ad_nodes.trace.report import stages_table

OK = TransitionCallbackReturn.SUCCESS
MS = 1_000_000
# Of the system clock; large, as it is.
NOW = 1_795_000_000_000 * MS
CAMERA = {'task': '/csi/csi_camera', 'pid': 10, 'thread': 11, 'captured': True}
STYLE = {'task': '/csi/style_transfer', 'pid': 20, 'thread': 21}


def way(task: dict, at_ms: float, *stages: tuple[str, float], host='robot', **more) -> FrameTrace:
    """A frame captured at `at_ms`, whose stages took so many milliseconds each."""
    begin_ns = NOW + round(at_ms * MS)
    ends_ns = begin_ns + np.cumsum([round(ms * MS) for _, ms in stages])
    return FrameTrace(
        **task, **more, host=host, stamp=to_stamp(begin_ns), frame_ids=['lens'],
        begin_ns=begin_ns, stages=[stage for stage, _ in stages],
        ends_ns=[int(end) for end in ends_ns],
    )


def seen(at_ms: float = 0.0) -> FrameTrace:
    return way(CAMERA, at_ms, ('capture', 3), ('publish', 2))


def stylised(at_ms: float = 0.0, wait_ms: float = 1.0, **more) -> FrameTrace:
    return way(
        STYLE, at_ms, ('capture', 5), ('wait', wait_ms), ('preprocess', 1), ('infer', 20),
        ('publish', 1), **more,
    )


def checked(traces: list[FrameTrace]) -> list[dict]:
    """The events of a document of these ways."""
    return events_of(json.dumps(trace_document(traces)))


def events_of(text: str) -> list[dict]:
    """The events of a document, which must be one of the Trace Event Format."""
    document = json.loads(text)
    assert document['displayTimeUnit'] in ('ms', 'ns')
    events = document['traceEvents']
    for event in events:
        assert {'ph', 'ts', 'pid', 'tid', 'name'} <= event.keys()
        assert event['ph'] in 'MXbeisf' and event['ts'] >= 0
        assert event['ph'] != 'X' or event['dur'] >= 0
    times = [event['ts'] for event in events if event['ph'] != 'M']
    assert times == sorted(times)
    check_nesting(events)
    check_waits(events)
    check_flows(events)
    return events


def check_nesting(events: list[dict]) -> None:
    """Slices of a thread lie within each other, or apart."""
    open_slices = defaultdict(list)
    for event in events:
        if event['ph'] == 'X':
            end = event['ts'] + event['dur']
            stack = open_slices[event['pid'], event['tid']]
            while stack and stack[-1] <= event['ts'] + 1e-3:
                stack.pop()
            assert not stack or end <= stack[-1] + 1e-3
            stack.append(end)


def check_waits(events: list[dict]) -> None:
    """Each wait that begins ends, once, and later."""
    begun = {}
    for event in events:
        if event['ph'] in 'be':
            key = event['cat'], event['name'], event['id'], event['pid']
            if event['ph'] == 'b':
                assert key not in begun
                begun[key] = event['ts']
            else:
                assert begun.pop(key) <= event['ts']
    assert not begun


def check_flows(events: list[dict]) -> None:
    """Each arrow has two ends, which lie in slices of their threads."""
    ends = defaultdict(dict)
    for event in events:
        if event['ph'] in 'sf':
            assert any(
                each['ph'] == 'X' and (each['pid'], each['tid']) == (event['pid'], event['tid'])
                and each['ts'] <= event['ts'] <= each['ts'] + each['dur'] for each in events
            )
            assert event['ph'] not in ends[event['cat'], event['name'], event['id']]
            ends[event['cat'], event['name'], event['id']][event['ph']] = event
    for arrow in ends.values():
        assert set(arrow) == {'s', 'f'}
        assert arrow['s']['ts'] <= arrow['f']['ts'] and arrow['f']['bp'] == 'e'


def of(events: list[dict], phase: str, name: str = '') -> list[dict]:
    return [event for event in events if event['ph'] == phase and name in event['name']]


def test_a_frame_through_two_processes():
    events = checked([stylised(), seen()])
    names = {(each['pid'], each['args']['name']) for each in of(events, 'M', 'process_name')}
    assert names == {(10, '/csi/csi_camera (robot)'), (20, '/csi/style_transfer (robot)')}
    infer, = of(events, 'X', 'infer')
    assert (infer['pid'], infer['tid']) == (20, 21)
    assert (infer['ts'], infer['dur']) == pytest.approx((7000, 20_000))
    (left,), (came,) = of(events, 's'), of(events, 'f')
    assert (left['pid'], came['pid']) == (10, 20)
    assert (left['ts'], came['ts']) == pytest.approx((3000, 6000))
    frame = next(each for each in of(events, 'X', 'frame') if each['pid'] == 20)
    assert frame['args']['age_ms'] == pytest.approx(28)
    assert frame['args']['frame_ids'] == 'lens'


def test_frames_wait_while_another_is_worked_on():
    """And one of them in vain."""
    lost = way(STYLE, 33, ('capture', 5), ('wait', 30), dropped='replaced by a newer frame')
    events = checked([stylised(), lost, stylised(66, wait_ms=3)])
    assert len(of(events, 'b', 'wait')) == 3
    assert len(of(events, 'X', 'infer')) == 2
    dropped, = of(events, 'i')
    assert dropped['args']['dropped'] == 'replaced by a newer frame'


def test_no_arrow_without_its_source_or_against_time():
    assert not of(checked([stylised()]), 's')
    assert not of(checked([seen(), stylised(50)]), 's')
    early = stylised()
    early.ends_ns = [end - 20 * MS for end in early.ends_ns]
    early.begin_ns -= 20 * MS
    assert not of(checked([seen(), early]), 's')


def test_same_numbers_on_two_machines():
    events = checked([seen(), way(CAMERA, 1, ('capture', 3), ('publish', 2), host='other')])
    assert len({each['pid'] for each in of(events, 'M', 'process_name')}) == 2


def test_a_stamp_of_another_clock_does_not_stretch_the_trace():
    stray = stylised()
    stray.begin_ns = 0
    events = checked([stray, seen()])
    assert max(each['ts'] for each in events) < 1e6
    assert len(of(events, 'X', 'infer')) == 1


stages_ms = st.lists(st.floats(0, 50), min_size=5, max_size=5)
frames = st.lists(
    st.tuples(st.integers(0, 30), stages_ms), max_size=12, unique_by=lambda frame: frame[0]
)


@given(frames)
def test_whatever_the_times(frames):
    """A camera makes frames, and a task works on one after another, whenever they came."""
    traces, free_ms = [], 0.0
    for number, (capture, wait, *work) in sorted(frames):
        at_ms = number * 10.0
        begins_ms = max(at_ms + capture + wait, free_ms)
        traces += [seen(at_ms), way(
            STYLE, at_ms, ('capture', capture), ('wait', begins_ms - at_ms - capture),
            *zip(('preprocess', 'infer', 'publish'), work, strict=True),
        )]
        free_ms = begins_ms + sum(work) + 0.001
    checked(traces)


def test_report_has_a_row_a_task():
    console = Console(width=120, file=io.StringIO())
    lost = way(STYLE, 33, ('capture', 5), ('wait', 30), dropped='replaced')
    console.print(stages_table([seen(), stylised(), stylised(wait_ms=3), lost]))
    said = console.file.getvalue()
    assert said.split()[1:9] == [
        'frames', 'dropped', 'capture', 'wait', 'preprocess', 'infer', 'publish', 'total']
    row = next(line for line in said.splitlines() if 'style_transfer' in line)
    assert row.split()[1:3] == ['2', '1']
    assert '20.0 (20.0)' in row and '2.0 (3.0)' in row


@pytest.fixture
def node(bench, negative_package):
    """The style transfer node, active."""
    node = bench.run(style_transfer.make, model=str(negative_package), variant='small')
    assert node.trigger_configure() == OK
    assert node.trigger_activate() == OK
    return node


@pytest.fixture
def send(bench):
    """Publish a frame to the node, of this encoding."""
    publisher = bench.probe.create_publisher(Image, 'image_raw', qos.PUBLISH)

    def send(encoding: str) -> None:
        bench.wait(lambda: publisher.get_subscription_count() > 0, 'the node to subscribe')
        message = to_message(np.zeros((48, 64, 3), np.uint8), 'rgb8', to_stamp(NOW), 'lens')
        message.encoding = encoding
        publisher.publish(message)

    return send


def test_a_task_publishes_the_way_of_each_frame(bench, node, send):
    traces = bench.listen(FrameTrace, '/style_transfer/trace')
    bench.wait(lambda: node._trace._publisher.get_subscription_count(), 'the probe to listen')
    send('rgb8')
    bench.wait(lambda: len(traces) == 1, 'the way of a frame')
    send('cmyk')
    bench.wait(lambda: len(traces) == 2, 'the way of a frame that is refused')
    good, bad = traces
    assert list(good.stages) == ['capture', 'wait', 'preprocess', 'infer', 'publish']
    assert (nanoseconds(good.stamp), list(good.frame_ids)) == (NOW, ['lens'])
    assert list(good.ends_ns) == sorted(good.ends_ns)
    assert (good.task, good.captured, good.dropped) == ('/style_transfer', False, '')
    assert list(bad.stages) == ['capture', 'wait', 'refuse'] and 'cmyk' in bad.dropped


def test_nothing_is_made_where_nobody_listens(bench, node, send, monkeypatch):
    monkeypatch.setattr(trace_topic, 'FrameTrace', None)    # would fail the node
    results = bench.listen(Image, 'style/image')
    bench.wait(lambda: node._publisher.get_subscription_count(), 'the probe to listen')
    send('rgb8')
    bench.wait(lambda: results and node.monitor.frames == 1, 'the result')
    assert not node.failed.is_set()


def test_a_camera_publishes_the_way_of_its_frames(bench):
    node = bench.run(csi_camera.make, source='test_pattern', width=96, height=48)
    traces = bench.listen(FrameTrace, '/csi_camera/trace')
    assert node.trigger_configure() == OK
    assert node.trigger_activate() == OK
    bench.wait(lambda: traces, 'the way of a frame')
    trace = traces[0]
    assert trace.captured and list(trace.frame_ids) == ['csi_camera_optical_frame']
    assert list(trace.stages) == ['capture', 'publish']
    assert trace.begin_ns == pytest.approx(nanoseconds(trace.stamp), abs=1000 * MS)


def test_trace_of_nodes_that_run(bench, node, tmp_path):
    camera = bench.run(csi_camera.make, source='test_pattern', width=96, height=48)
    assert camera.trigger_configure() == OK
    assert camera.trigger_activate() == OK
    path = tmp_path / 'trace.json'
    done = subprocess.run(
        [sys.executable, '-m', 'muon_ad.cli', 'trace', '--seconds', '1', '--out', str(path)],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}, timeout=60,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr
    events = events_of(path.read_text())
    assert {each['pid'] for each in of(events, 'X', 'frame')} == {os.getpid()}
    assert len({each['tid'] for each in of(events, 'X', 'frame')}) == 2
    assert of(events, 's', 'image') and of(events, 'X', 'infer')
    assert '/style_transfer' in done.stdout and 'perfetto' in done.stdout


@pytest.mark.parametrize(('wrong', 'value'), [('--seconds', '0'), ('--out', 'nowhere/t.json')])
def test_bad_options(wrong, value, capsys):
    assert main(['trace', wrong, value]) == 2
    assert f'muon-ad trace: {wrong} is {value}; expected' in capsys.readouterr().err

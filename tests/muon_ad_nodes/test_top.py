"""`muon-ad top`: rows from statuses, the view of them, and the command on a graph."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from diagnostic_msgs.msg import KeyValue
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from muon_ad.cli import main
from muon_ad_msgs.msg import DropReason
from muon_ad_msgs.msg import StageLatency
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import qos
from muon_ad_nodes.top.rows import GONE
from muon_ad_nodes.top.rows import Latency
from muon_ad_nodes.top.rows import row_of
from muon_ad_nodes.top.rows import TaskRow
from muon_ad_nodes.top.view import bar
from muon_ad_nodes.top.view import Letters
from muon_ad_nodes.top.view import View

PLAIN = Letters('5', '9', '+', '|', '>', '*')
finite = st.floats(0, 1e7)
PATIENCE_S = 60.0


def status(name: str = '/csi/style_transfer', **more) -> TaskStatus:
    return TaskStatus(**{
        'task': name, 'host': 'robot', 'pid': 7, 'state': 'active', 'fps': 14.8, 'frames': 90,
        'deadline_ms': 66.0, 'deadline_misses': 3, 'cpu_percent': 98.0, 'rss_mb': 254.2,
        'scheduling_policy': 'SCHED_FIFO', 'scheduling_priority': 80, 'threads': 12,
        'variant': 'dense_320x240', 'dropped_newer': 5, 'dropped_invalid': 1,
        'drops': [DropReason(reason='replaced by a newer frame', frames=5),
                  DropReason(reason='encoding is cmyk', frames=1)],
        'stages': [StageLatency(name='infer', p50_ms=20.1),
                   StageLatency(name='total', p50_ms=31.0, p95_ms=40.0, p99_ms=70.0, max_ms=99.0)],
        **more,
    })


def shown(*rows: TaskRow, width: int = 80, encoding: str = 'utf-8', **more) -> list[str]:
    """The lines of the view."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(width=width, file=file, **more)
    console.print(View(list(rows), 'heading'))
    file.flush()
    return file.buffer.getvalue().decode(encoding).splitlines()


def test_row_tells_what_the_status_says():
    row = row_of(status(values=[KeyValue(key='losses', value='2')]), 0.5, published=True)
    assert (row.task, row.host, row.state, row.silent) == (
        '/csi/style_transfer', 'robot', 'active', False)
    assert row.dropped == {'replaced by a newer frame': 5, 'encoding is cmyk': 1}
    assert row.latency == Latency(31.0, 40.0, 70.0, 99.0)
    assert list(row.stages) == ['infer', 'total'] and row.stages['infer'].p50 == 20.1
    assert (row.scheduling_policy, row.scheduling_priority) == ('SCHED_FIFO', 80)
    assert row.values == {'losses': '2'}


def test_row_of_a_task_that_is_silent_or_gone():
    assert row_of(TaskStatus(state='active'), 9.0, published=True).silent
    assert not row_of(TaskStatus(state='configuring'), 9.0, published=True).silent
    assert row_of(TaskStatus(state='active'), 9.0, published=False).state == GONE
    assert row_of(TaskStatus(), 0.0, published=True).latency is None


def test_bar_against_the_deadline():
    """Three letters of ten milliseconds each to the deadline's thirty, and half of that beyond."""
    def drawn(p50: float, p95: float, p99: float) -> str:
        return bar(Latency(p50, p95, p99, p99), 40.0, 6, 1.0, PLAIN).plain

    assert drawn(10, 20, 30) == '59+ | '
    assert drawn(30, 30, 30) == '555 | '
    assert drawn(30, 30, 60) == '555+|+'
    assert drawn(30, 30, 61) == '555+|>'
    assert bar(None, 40.0, 6, 1.0, PLAIN).plain == '    | '
    colors = bar(Latency(60, 60, 60, 60), 40.0, 6, 1.0, PLAIN).spans
    assert [span.style for span in colors][:4] == ['green'] * 4 and colors[-1].style == 'red'


def test_bar_without_a_deadline_ends_where_it_is_told():
    assert bar(Latency(10, 20, 30, 30), 0.0, 6, 60.0, PLAIN).plain == '59+   '


@given(finite, finite, finite, finite, st.integers(0, 60), st.floats(0.001, 1e6))
def test_bar_is_as_wide_as_it_should_be(p50, p95, p99, deadline_ms, width, scale_ms):
    found = bar(Latency(p50, p95, p99, p99), deadline_ms, width, scale_ms, PLAIN)
    assert len(found.plain) == width


@pytest.mark.parametrize('width', [40, 80, 120, 200])
def test_view_fits_and_tells_all(width):
    off = row_of(status(threads_off_policy=2, message='no permission for SCHED_FIFO'), 0.1, True)
    silent = row_of(status('/a_rather_long_namespace/for_a_robot/object_detector'), 9.0, True)
    gone = row_of(TaskStatus(task='/old'), 60.0, published=False)
    lines = shown(off, silent, gone, width=width)
    assert all(len(line) <= width for line in lines)
    text = ' '.join(' '.join(lines).split())
    for word in (
        '14.8', '31.0', '70.0', 'FIFO 80', '254 MB', 'robot', 'cpu 98 %', 'dense_320x240',
        '2 of 12 threads outside', 'no permission for SCHED_FIFO', 'silent for 9 s',
        'dropped: 5 replaced by a newer frame, 1 encoding is cmyk', 'publishes its status',
    ):
        assert word in text, word


def test_view_in_a_low_terminal_keeps_a_line_a_task():
    rows = [row_of(status(f'/task_{number}'), 0.1, True) for number in range(5)]
    high = shown(*rows, force_terminal=True, height=40, color_system=None)
    low = shown(*rows, force_terminal=True, height=10, color_system=None)
    assert len(high) == 2 + 5 * 3 and len(low) == 2 + 5


def test_view_where_the_terminal_knows_ascii_only():
    lines = shown(row_of(status(), 0.1, True), encoding='ascii')
    assert '# p50' in shown(row_of(status(), 0.1, True), encoding='ascii', width=120)[1]
    assert lines[2].startswith('* /csi/style_transfer')


def test_view_cannot_be_told_to_steer_the_terminal():
    evil = '\x1b[2J[bold]x\nnew line'
    row = replace(row_of(status(), 0.1, True), task=evil, message=evil, host=evil, variant=evil)
    text = '\n'.join(shown(row, width=120))
    assert '\x1b' not in text and '[bold]x' in text


@pytest.fixture
def say(bench):
    """Publish the status of a task that does not exist, again and again as tasks do."""

    def say(name: str, **more) -> None:
        publisher = bench.probe.create_publisher(TaskStatus, f'{name}/status', qos.LATCHED)
        bench.probe.create_timer(0.1, lambda: publisher.publish(status(name, **more)))

    return say


@pytest.fixture
def start():
    """Start `muon-ad top`; it is killed after the test, or when it takes too long."""
    started = []

    def start(*arguments: str) -> subprocess.Popen:
        top = subprocess.Popen(
            [sys.executable, '-m', 'muon_ad.cli', 'top', *arguments], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
        )
        watchdog = threading.Timer(PATIENCE_S, top.kill)
        watchdog.start()
        started.append((top, watchdog))
        return top

    yield start
    for top, watchdog in started:
        watchdog.cancel()
        top.kill()
        top.communicate()


def test_json_of_all_tasks_for_what_reads_some_lines(say, start):
    """And one of them on two machines."""
    say('/csi/style_transfer')
    say('/csi/style_transfer', host='other')
    say('/csi/object_detector', host='other')
    top = start('--json', '--watch', '--period', '0.01', '--wait', '20')
    documents = map(json.loads, top.stdout)
    found = next(each for each in documents if len(each['tasks']) == 3)
    top.stdout.close()
    assert found['domain_id'] == int(os.environ['ROS_DOMAIN_ID'])
    assert [(task['host'], task['task']) for task in found['tasks']] == [
        ('other', '/csi/object_detector'), ('other', '/csi/style_transfer'),
        ('robot', '/csi/style_transfer'),
    ]
    assert found['tasks'][0]['stages']['total']['p99'] == 70.0
    assert top.stderr.read() == ''
    assert top.wait() == 0


def test_interrupt_ends_it_in_order(start):
    top = start('--json', '--watch', '--wait', '0')
    assert json.loads(top.stdout.readline())['tasks'] == []
    top.send_signal(signal.SIGINT)
    _, complaint = top.communicate()
    assert top.returncode == 130
    assert complaint.endswith('muon-ad top: interrupted\n') and 'Traceback' not in complaint


def test_no_task(monkeypatch, capfd):
    monkeypatch.setenv('ROS_STATIC_PEERS', '10.0.0.9')
    assert main(['top', '--json', '--wait', '0.2']) == 1
    said, complaint = capfd.readouterr()
    assert json.loads(said)['tasks'] == []
    assert f'ROS domain {os.environ["ROS_DOMAIN_ID"]} (ROS_STATIC_PEERS=10.0.0.9)' in complaint


@pytest.mark.parametrize('wrong', [('--count', '0'), ('--period', '0'), ('--wait', '-1')])
def test_bad_options(wrong, capsys):
    assert main(['top', *wrong]) == 2
    assert f'muon-ad top: {wrong[0]} is {wrong[1]}; expected' in capsys.readouterr().err

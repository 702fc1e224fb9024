"""Real time: settings from the command line, order and effect of the calls, refusals."""

import os
import subprocess
import sys

import pytest

from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts.realtime import RealtimeSettings
from muon_ad_nodes.parts.realtime import settings_from_arguments


def test_no_arguments_ask_for_nothing():
    assert settings_from_arguments([], 'style_transfer') == RealtimeSettings()


def test_parameters_on_the_command_line():
    arguments = [
        '--ros-args', '-p', 'realtime.policy:=fifo', '-p', 'realtime.priority:=80',
        '-p', 'realtime.cpus:=[0, 1]', '-p', 'realtime.lock_memory:=true', '-p', 'model:=x',
    ]
    assert settings_from_arguments(arguments, 'n') == RealtimeSettings('fifo', 80, (0, 1), True)


@pytest.mark.parametrize('key', ['/**', '/robot/detector', 'robot/detector'])
@pytest.mark.parametrize('nested', [True, False])
def test_parameters_file(tmp_path, key, nested):
    values = 'realtime: {policy: rr, priority: 7}' if nested else (
        '{realtime.policy: rr, realtime.priority: 7}')
    (tmp_path / 'p.yaml').write_text(f'{key}:\n  ros__parameters:\n    {values}\n')
    if not nested:
        (tmp_path / 'p.yaml').write_text(f'{key}:\n  ros__parameters: {values}\n')
    arguments = [
        '--ros-args', '-r', '__node:=detector', '-r', '__ns:=/robot',
        '--params-file', str(tmp_path / 'p.yaml'),
    ]
    assert settings_from_arguments(arguments, 'x') == RealtimeSettings('rr', 7)


def test_other_nodes_and_later_values(tmp_path):
    path = tmp_path / 'p.yaml'
    path.write_text(
        '/other:\n  ros__parameters: {realtime: {policy: rr}}\n'
        '/n:\n  ros__parameters: {realtime: {policy: batch}}\n'
    )
    arguments = ['--params-file', str(path), '-p', 'realtime.policy:=other']
    assert settings_from_arguments(arguments, 'n').policy == 'other'
    assert settings_from_arguments(arguments[:2], 'n').policy == 'batch'


def test_bare_name_means_the_root_namespace(tmp_path):
    path = tmp_path / 'p.yaml'
    path.write_text('n:\n  ros__parameters: {realtime: {policy: batch}}\n')
    arguments = ['--params-file', str(path)]
    assert settings_from_arguments(arguments, 'n').policy == 'batch'
    assert settings_from_arguments([*arguments, '-r', '__ns:=/robot'], 'n').policy == ''


@pytest.mark.parametrize('text', ['{', '[]', '/n: 3', 'x'])
def test_unreadable_file_is_left_to_rcl(tmp_path, text):
    (tmp_path / 'p.yaml').write_text(text)
    arguments = ['--params-file', str(tmp_path / 'p.yaml'), '--params-file', 'missing.yaml']
    assert settings_from_arguments(arguments, 'n') == RealtimeSettings()


def test_unusable_values_are_ignored_here():
    arguments = ['-p', 'realtime.policy:=turbo', '-p', 'realtime.priority:=1000',
                 '-p', 'realtime.cpus:=3']
    assert settings_from_arguments(arguments, 'n') == RealtimeSettings()


def test_without_permission_one_line_says_what_to_do(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, 'sched_setscheduler', refuse)
    line, = realtime.apply(RealtimeSettings('fifo', 80))
    assert 'SCHED_FIFO 80' in line
    assert 'CAP_SYS_NICE' in line


def test_cpu_that_is_not_there_is_named():
    line, = realtime.apply(RealtimeSettings(cpus=(9999,)))
    assert '9999' in line


def run_fresh(code: str) -> list[str]:
    """Run code in a fresh process, whose class may change without harm to the tests."""
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=60,
        env={**os.environ, 'PYTHONPATH': ':'.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_it_imports_nothing_heavy():
    code = (
        'import sys, muon_ad_nodes.main, muon_ad_nodes.parts.realtime\n'
        "print([m for m in ('numpy', 'rclpy', 'cv2', 'onnxruntime') if m in sys.modules])"
    )
    assert run_fresh(code) == ['[]']


def test_class_reaches_threads_made_afterwards_and_is_read_back():
    code = """
import os, sys, threading
from muon_ad_nodes.parts import realtime
asked = realtime.RealtimeSettings('fifo', 3)
before = threading.Event()
threading.Thread(target=before.wait, daemon=True).start()
if realtime.apply(asked):
    print('refused')
    sys.exit()
after = threading.Event()
threading.Thread(target=after.wait, daemon=True).start()
found = realtime.read_classes(asked)
print(found.policy, found.threads, len(found.off_policy))
"""
    found = run_fresh(code)
    if found == ['refused']:
        pytest.skip('no permission for SCHED_FIFO on this machine')
    assert found == ['mixed', '3', '1']


def test_batch_needs_no_permission():
    code = (
        'from muon_ad_nodes.parts import realtime\n'
        "print(realtime.apply(realtime.RealtimeSettings('batch')),"
        ' realtime.read_classes().policy)'
    )
    assert run_fresh(code) == ['[]', 'SCHED_BATCH']

"""Real time: settings from the command line, order and effect of the calls, refusals."""

import os
import subprocess
import sys
import threading

import pytest

from muon_ad_nodes import main
from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts.realtime import RealtimeSettings
from muon_ad_nodes.parts.realtime import Role
from muon_ad_nodes.parts.realtime import ROLES
from muon_ad_nodes.parts.realtime import settings_from_arguments


def test_no_arguments_ask_for_nothing():
    assert settings_from_arguments([], 'style_transfer').policy == ''


def test_parameters_on_the_command_line():
    arguments = [
        '--ros-args', '-p', 'realtime.policy:=fifo', '-p', 'realtime.priority:=80',
        '-p', 'realtime.cpus:=[0, 1]', '-p', 'realtime.lock_memory:=true', '-p', 'model:=x',
        '-p', 'realtime.nice:=-5', '-p', 'threads:=2',
    ]
    assert settings_from_arguments(arguments, 'n') == RealtimeSettings(
        'fifo', 80, (0, 1), True, -5, 2
    )


def test_the_switch_leaves_the_class_alone_and_all_else_as_it_was():
    arguments = ['-p', 'realtime.policy:=fifo', '-p', 'realtime.cpus:=[0]']
    off = [*arguments, '-p', 'realtime.enabled:=false']
    assert settings_from_arguments(off, 'n') == RealtimeSettings('', 1, (0,))
    assert settings_from_arguments(arguments, 'n').policy == 'fifo'


def test_a_priority_left_open_is_that_of_the_role():
    arguments = ['-p', 'realtime.policy:=fifo']
    camera, sync, style, detector = (
        settings_from_arguments(arguments, 'n', ROLES[name]).level
        for name in ('csi_camera', 'frame_sync', 'style_transfer', 'object_detector')
    )
    assert camera > sync > style > detector
    told = [*arguments, '-p', 'realtime.priority:=7']
    assert settings_from_arguments(told, 'n', ROLES['csi_camera']).level == 7
    assert settings_from_arguments(arguments, 'n').level == 1
    assert settings_from_arguments(['-p', 'realtime.policy:=batch'], 'n', Role(90)).level == 0


def test_roles_are_those_of_executables():
    assert all(callable(getattr(main, name)) for name in (*ROLES, *main.NODE_NAMES))


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
    found = settings_from_arguments(arguments, 'x')
    assert (found.policy, found.priority) == ('rr', 7)


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
    assert settings_from_arguments(arguments, 'n').policy == ''


def test_unusable_values_are_ignored_here():
    arguments = ['-p', 'realtime.policy:=turbo', '-p', 'realtime.priority:=1000',
                 '-p', 'realtime.cpus:=3', '-p', 'realtime.nice:=20', '-p', 'threads:=true']
    assert settings_from_arguments(arguments, 'n') == RealtimeSettings(priority=1)


class Kernel:
    """Writes down what is asked of the kernel and of libc; refuses the classes in `refusing`."""

    def __init__(self, monkeypatch, refusing: tuple[int, ...] = ()) -> None:
        self.calls: list[tuple] = []
        self._refusing = refusing
        monkeypatch.setattr(realtime.ctypes, 'CDLL', lambda *_, **__: self)
        monkeypatch.setattr(os, 'sched_setscheduler', self._set_class)
        for name in ('sched_setaffinity', 'setpriority'):
            monkeypatch.setattr(os, name, self._noting(name))
        for name in ('OMP_WAIT_POLICY', 'OMP_NUM_THREADS'):
            monkeypatch.delenv(name, raising=False)
        for name in ('mallopt', 'mlockall'):
            setattr(self, name, self._noting(name))
        monkeypatch.setattr(os.environ, 'setdefault', self._noting('setdefault'))

    def _noting(self, name):
        def note(*values):
            self.calls.append((name, *values))
            return 0

        return note

    def _set_class(self, thread, policy, parameter):
        if policy in self._refusing:
            raise PermissionError
        self.calls.append(('sched_setscheduler', thread, policy, parameter.sched_priority))

    def of(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


def test_order_of_the_calls(monkeypatch):
    kernel = Kernel(monkeypatch)
    asked = RealtimeSettings('fifo', 80, (0, 1), True, nice=-5, threads=3)
    assert realtime.apply(asked) == (asked, [])
    assert list(dict.fromkeys(name for name, *_ in kernel.calls)) == [
        'mallopt', 'sched_setscheduler', 'sched_setaffinity', 'setdefault', 'mlockall',
    ]
    assert kernel.of('mallopt') == [(-3, 32 << 20), (-1, 256 << 20), (-8, 1)]
    assert {call[1:] for call in kernel.of('sched_setscheduler')} == {(os.SCHED_FIFO, 80)}
    assert kernel.of('setdefault') == [('OMP_WAIT_POLICY', 'PASSIVE'), ('OMP_NUM_THREADS', '3')]


def test_nothing_asked_touches_no_class(monkeypatch):
    kernel = Kernel(monkeypatch)
    assert realtime.apply(RealtimeSettings(nice=5)) == (RealtimeSettings(nice=5), [])
    assert {name for name, *_ in kernel.calls} == {'mallopt', 'setdefault'}


def test_the_calling_thread_changes_last(monkeypatch):
    """Below the others it would not get to them any more."""
    kernel = Kernel(monkeypatch)
    own = threading.get_native_id()
    others = [own + 1, own + 2, own + 3]
    monkeypatch.setattr(os, 'listdir', lambda _: map(str, [own, *others]))
    realtime.set_class('other', 0)
    called = [thread for thread, *_ in kernel.of('sched_setscheduler')]
    assert called[-1] == own and sorted(called) == [own, *others]


def test_threads_made_during_the_change_are_reached(monkeypatch):
    kernel = Kernel(monkeypatch)
    listings = iter([['1', '2'], ['1', '2', '3'], ['1', '2', '3']])
    monkeypatch.setattr(os, 'listdir', lambda _: next(listings))
    realtime.set_class('rr', 4)
    assert kernel.of('sched_setscheduler') == [(n, os.SCHED_RR, 4) for n in (1, 2, 3)]


def test_a_process_that_is_gone_is_an_error():
    with pytest.raises(ProcessLookupError):
        realtime.set_class('other', 0, process=2 ** 22 + 1)


def test_without_permission_one_line_says_what_to_do(monkeypatch):
    kernel = Kernel(monkeypatch, refusing=(os.SCHED_FIFO,))
    asked = RealtimeSettings('fifo', 40, nice=5, fallback='batch')
    held, (line,) = realtime.apply(asked)
    assert 'SCHED_FIFO 40' in line
    assert 'CAP_SYS_NICE' in line
    assert held.policy == 'batch' and not held.real_time
    assert kernel.of('sched_setscheduler')[-1][1:] == (os.SCHED_BATCH, 0)
    assert kernel.of('setpriority') == [(os.PRIO_PROCESS, 0, 5)]


def test_cpu_that_is_not_there_is_named():
    _, (line,) = realtime.apply(RealtimeSettings(cpus=(999,)))
    assert 'realtime.cpus [999]' in line


def run_fresh(code: str, may_fail: str = '') -> list[str]:
    """Run code in a fresh process, whose class may change without harm to the tests.

    Where it says no more than `may_fail` and fails, nothing is returned.
    """
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=60,
        env={**os.environ, 'PYTHONPATH': ':'.join(sys.path)},
    )
    if may_fail and done.stderr.strip() == may_fail:
        return []
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_it_imports_nothing_heavy():
    code = (
        'import sys, muon_ad_nodes.main, muon_ad_nodes.parts.realtime\n'
        "print([m for m in ('numpy', 'rclpy', 'cv2', 'onnxruntime') if m in sys.modules])"
    )
    assert run_fresh(code) == ['[]']


def test_what_is_loaded_is_out_of_the_collectors_reach_in_a_process_of_ours_only():
    assert run_fresh("""
import gc
from muon_ad_nodes.parts import realtime
realtime.settle()
print(gc.get_freeze_count() > 0)
realtime.start('csi_camera', 'csi_camera')
realtime.settle()
print(gc.get_freeze_count() > 0)
""") == ['False', 'True']


FIFO = """
import os, resource, sys, threading
from muon_ad_nodes.parts import realtime
asked = realtime.RealtimeSettings('fifo', 3, nice=-5, fallback='batch')
"""


def if_permitted(code: str) -> list[str]:
    """Run code that takes a real-time class in a fresh process."""
    found = run_fresh(FIFO + """
if realtime.apply(asked)[1]:
    sys.exit('no permission')
""" + code, may_fail='no permission')
    return found or pytest.skip('no permission for SCHED_FIFO on this machine')


def test_class_reaches_all_threads_and_is_read_back():
    assert if_permitted("""
for _ in range(2):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
found = realtime.read_classes(asked)
print(found.policy, found.priority, found.threads, len(found.off_policy))
""") == ['SCHED_FIFO', '3', '3', '0']


def test_a_thread_in_another_class_is_named_and_one_above_is_not():
    assert if_permitted("""
for name, policy, level in (('low', os.SCHED_FIFO, 2), ('fair', os.SCHED_OTHER, 0),
                            ('above', os.SCHED_FIFO, 4)):
    thread = threading.Thread(target=threading.Event().wait, daemon=True)
    thread.start()
    with open(f'/proc/self/task/{thread.native_id}/comm', 'w') as file:
        file.write(name)
    os.sched_setscheduler(thread.native_id, policy, os.sched_param(level))
found = realtime.read_classes(asked)
print(found.policy, *sorted(found.off_policy))
""") == ['mixed', 'fair', 'low']


DROPPED = FIFO + """
for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):
    resource.setrlimit(limit, (0, 0))
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
held, lines = realtime.apply(asked)
print(len(lines), held.policy, realtime.read_classes(held).policy, os.nice(0),
      'CAP_SYS_NICE' in lines[0], len(realtime.read_classes(held).off_policy))
"""


def test_without_rights_a_process_takes_the_best_that_is_allowed():
    assert run_fresh(DROPPED) == ['1', 'batch', 'SCHED_BATCH', str(os.nice(0)), 'True', '0']


@pytest.mark.parametrize('limit, nice', [(0, 3), (20, 0), (22, -2), (40, -5)])
def test_the_nearest_niceness_that_is_allowed_is_taken(monkeypatch, limit, nice):
    has = [3]

    def set_nice(_which, _who, wanted):
        if wanted < min(20 - limit, has[0]):
            raise PermissionError
        has[0] = wanted

    monkeypatch.setattr(os, 'setpriority', set_nice)
    monkeypatch.setattr(os, 'getpriority', lambda *_: has[0])
    monkeypatch.setattr(realtime.resource, 'getrlimit', lambda _: (limit, limit))
    monkeypatch.setattr(realtime, 'set_class', lambda *_: None)
    _, lines = realtime.apply(RealtimeSettings('other', nice=-5))
    assert has[0] == nice
    assert [f'running at {nice}' in line for line in lines] == [True] * (nice != -5)


def test_batch_needs_no_permission():
    code = (
        'from muon_ad_nodes.parts import realtime\n'
        "print(realtime.apply(realtime.RealtimeSettings('batch'))[1],"
        ' realtime.read_classes().policy)'
    )
    assert run_fresh(code) == ['[]', 'SCHED_BATCH']

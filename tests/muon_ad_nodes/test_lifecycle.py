"""The base of the nodes: transitions, failures, parameters and status."""

import pytest
import rclpy
from lifecycle_msgs.msg import State
from rclpy.lifecycle import TransitionCallbackReturn

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import budget_guard
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.realtime import RealtimeSettings

PARAMETERS = (
    Parameter('rate', 30.0, 'Frames a second.', range=(1.0, 120.0)),
    Parameter('threshold', 0.5, 'Least score.', range=(0.0, 1.0), dynamic=True),
)


class Task(SuiteNode):
    """Writes down what is called, and raises where it is told to."""

    def __init__(self, raising=()):
        self.calls, self.raising = [], set(raising)
        super().__init__('task', PARAMETERS)

    def _note(self, name):
        self.calls.append(name)
        if name in self.raising:
            raise RuntimeError(f'{name} went wrong')

    def build(self):
        self._note('build')

    def start(self):
        self._note('start')

    def stop(self):
        self._note('stop')

    def teardown(self):
        self._note('teardown')

    def changed(self, name):
        self._note(f'changed {name}')


SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


def state_of(node) -> int:
    return node._state_machine.current_state[0]


def test_full_cycle(bench):
    task = bench.run(Task)
    for _ in range(2):
        assert task.trigger_configure() == SUCCESS
        assert task.trigger_activate() == SUCCESS
        assert task.active
        assert task.trigger_deactivate() == SUCCESS
        assert task.trigger_cleanup() == SUCCESS
    assert task.calls == ['build', 'start', 'stop', 'teardown'] * 2


def test_every_transition_is_announced_before_it_begins(bench):
    """A supervisor would take the silence of a long one for a node that hangs."""
    task = bench.run(Task)
    published = []
    task._status_publisher.publish = lambda status: published.append(
        (status.state, task.calls[-1] if task.calls else '')
    )
    for trigger in ('configure', 'activate', 'deactivate', 'cleanup'):
        getattr(task, f'trigger_{trigger}')()
    assert [entry for entry in published if entry[0].endswith(('ing', 'up'))] == [
        ('configuring', ''), ('activating', 'build'), ('deactivating', 'start'),
        ('cleaningup', 'stop'),
    ]  # fmt: skip
    assert task.trigger_shutdown() == SUCCESS
    assert published[-1][0] == 'finalized'


def test_failed_build_is_torn_down_and_can_be_repeated(bench):
    task = bench.run(lambda: Task(['build']))
    statuses = bench.listen(TaskStatus, '/task/status', qos.LATCHED)
    assert task.trigger_configure() == FAILURE
    assert task.calls == ['build', 'teardown']
    assert state_of(task) == State.PRIMARY_STATE_UNCONFIGURED
    bench.wait(
        lambda: any('configure failed: build went wrong' in s.message for s in statuses),
        'the cause in the status',
    )
    task.raising.clear()
    assert task.trigger_configure() == SUCCESS
    bench.wait(lambda: statuses[-1].state == 'inactive', 'the new state')
    assert statuses[-1].message == ''


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What nodes log as errors."""
    lines = []
    logger = rclpy.impl.rcutils_logger.RcutilsLogger
    monkeypatch.setattr(logger, 'error', lambda _, text, **__: lines.append(text))
    return lines


@pytest.mark.parametrize('step, trigger, undone_by, message', [
    ('build', 'configure', 'teardown', 'configure failed: build went wrong'),
    ('start', 'activate', 'stop', 'activate failed: start went wrong'),
    ('stop', 'deactivate', None, 'stopping failed: stop went wrong'),
    ('teardown', 'cleanup', None, 'tearing down failed: teardown went wrong'),
    ('teardown', 'shutdown', None, 'tearing down failed: teardown went wrong'),
])  # fmt: skip
def test_a_transition_that_raises(bench, said, step, trigger, undone_by, message):
    """It logs its traceback, undoes what it did, and the status says the cause."""
    task = bench.run(lambda: Task([step]))
    way = {'configure': [], 'activate': ['configure'], 'shutdown': ['configure', 'activate']}
    for before in way.get(trigger, ['configure', 'activate']):
        assert getattr(task, f'trigger_{before}')() == SUCCESS
    if trigger == 'cleanup':
        assert task.trigger_deactivate() == SUCCESS
    state = task._state
    result = getattr(task, f'trigger_{trigger}')()
    assert result == (FAILURE if undone_by else SUCCESS)
    assert not undone_by or (task.calls[-1], task._state) == (undone_by, state)
    assert task._message == message
    line, = said
    assert line.startswith(message)
    assert "in _note\n    raise RuntimeError(f'{name} went wrong')" in line
    statuses = bench.listen(TaskStatus, '/task/status', qos.LATCHED)
    bench.wait(lambda: statuses and statuses[-1].message == message, 'the cause in the status')


def test_the_cause_stays_first_where_the_roll_back_fails_too(bench, said):
    task = bench.run(lambda: Task(['build', 'teardown']))
    assert task.trigger_configure() == FAILURE
    assert [line.splitlines()[0] for line in said] == [
        'configure failed: build went wrong', 'tearing down failed: teardown went wrong',
    ]
    assert task._message == '; '.join(line.splitlines()[0] for line in said)
    assert state_of(task) == State.PRIMARY_STATE_UNCONFIGURED


def test_failed_start_leaves_the_node_inactive(bench):
    task = bench.run(lambda: Task(['start']))
    task.trigger_configure()
    assert task.trigger_activate() == FAILURE
    assert state_of(task) == State.PRIMARY_STATE_INACTIVE
    assert task.calls == ['build', 'start', 'stop']
    task.raising.clear()
    assert task.trigger_activate() == SUCCESS
    assert task._message == ''


def test_failing_clean_up_still_reaches_unconfigured(bench):
    task = bench.run(lambda: Task(['stop', 'teardown']))
    task.trigger_configure()
    task.trigger_activate()
    assert task.trigger_deactivate() == SUCCESS
    assert task.trigger_cleanup() == SUCCESS
    assert state_of(task) == State.PRIMARY_STATE_UNCONFIGURED


def test_a_status_that_cannot_be_described_goes_out_all_the_same(bench):
    task = bench.run(Task)
    task.describe = lambda _: 1 / 0
    statuses = bench.listen(TaskStatus, '/task/status', qos.LATCHED)
    assert task.trigger_configure() == SUCCESS
    bench.wait(
        lambda: statuses and statuses[-1].state == 'inactive', 'the status'
    )
    assert statuses[-1].message == 'no details: division by zero'


def test_failure_in_a_thread_ends_the_process_with_its_cause(bench, said):
    task = bench.run(Task)
    task.fail(ValueError('bad weather'))
    assert task.failed.is_set()
    assert 'ValueError: bad weather' in said[0]
    assert task._message == 'work failed: bad weather'


def test_bad_override_is_reported_and_can_be_mended(bench):
    task = bench.run(Task)
    task._bad_overrides['rate'] = 'parameter rate is 500.0; expected number from 1 to 120'
    assert task.trigger_configure() == FAILURE
    assert 'build' not in task.calls
    task.set_parameters([rclpy.Parameter('rate', value=60.0)])
    assert task.trigger_configure() == SUCCESS
    assert task.settings.rate == 60.0


def test_setting_parameters(bench):
    task = bench.run(Task)

    def set_one(name, value):
        result, = task.set_parameters([rclpy.Parameter(name, value=value)])
        return result

    assert set_one('rate', 60).successful
    task.trigger_configure()
    assert task.settings.rate == 60.0
    refused = set_one('rate', 30.0)
    assert not refused.successful
    assert 'clean up the node first' in refused.reason
    assert set_one('threshold', 0.7).successful
    assert task.settings.threshold == 0.7
    assert 'changed threshold' in task.calls
    refused = set_one('threshold', 7.0)
    assert not refused.successful
    assert 'threshold' in refused.reason
    assert '7.0' in refused.reason
    assert task.settings.threshold == 0.7


def test_status_tells_process_and_scheduling(bench):
    bench.run(Task)
    statuses = bench.listen(TaskStatus, '/task/status', qos.LATCHED)
    bench.wait(lambda: statuses, 'a status')
    status = statuses[-1]
    assert status.task == '/task'
    assert status.state == 'unconfigured'
    assert status.pid > 0
    assert status.threads > 1
    assert status.rss_mb > 10
    assert status.scheduling_policy.startswith('SCHED_') or status.scheduling_policy == 'mixed'


@pytest.mark.parametrize('value', ['500.0', '"fast"'])
def test_bad_override_from_the_command_line(value):
    """In a context of its own, whose arguments carry the override."""
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '-p', f'rate:={value}'], context=context)
    try:
        node = rclpy.create_node('plain', context=context)
        from muon_ad_nodes.parts.parameters import declare

        errors = declare(node, PARAMETERS)
        assert list(errors) == ['rate']
        assert 'expected number from 1 to 120' in errors['rate']
        assert node.has_parameter('threshold')
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def test_what_is_built_is_kept_from_the_garbage_collector(bench, monkeypatch):
    task = bench.run(Task)
    monkeypatch.setattr(realtime, 'settle', lambda: task.calls.append('settle'))
    assert task.trigger_configure() == SUCCESS
    assert task.calls == ['build', 'settle']


@pytest.fixture
def in_fifo(monkeypatch):
    """Let nodes believe that they run as fifo 80; return what class they asked for since."""
    asked = []
    monkeypatch.setattr(realtime, 'current_settings', lambda: RealtimeSettings('fifo', 80))
    monkeypatch.setattr(realtime, 'set_class', lambda *given: asked.append(given))
    monkeypatch.setattr(budget_guard.os, 'sched_setscheduler', lambda *_: None)
    return asked


def test_a_task_over_its_budget_says_so_and_comes_back(bench, in_fifo, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(budget_guard.time, 'process_time', lambda: clock[0])
    task = bench.run(
        Task, realtime__budget_ms=20.0, realtime__budget_frames=2, realtime__recovery_frames=1
    )
    statuses = bench.listen(TaskStatus, '/task/status', qos.LATCHED)
    assert task.trigger_configure() == SUCCESS
    for _ in range(2):
        with task.in_budget():
            clock[0] += 0.021
    assert in_fifo == [('other', 0)]
    bench.wait(lambda: 'out of fifo' in statuses[-1].message, 'the reason in the status')
    with task.in_budget():
        clock[0] += 0.019
    assert in_fifo[1:] == [('fifo', 80)]
    bench.wait(lambda: statuses[-1].message == '', 'the good news')
    assert task.trigger_cleanup() == SUCCESS
    assert task._budget_guard is None


@pytest.mark.parametrize('parameters', [{}, {'realtime__budget_frames': 0,
                                             'realtime__budget_ms': 1.0}])
def test_without_a_budget_nobody_watches(bench, in_fifo, parameters):
    task = bench.run(Task, **parameters)
    assert task.trigger_configure() == SUCCESS
    assert task._budget_guard is None
    with task.in_budget():
        pass
    assert in_fifo == []


def test_without_a_real_time_class_nobody_watches(bench):
    task = bench.run(Task, realtime__budget_ms=1.0)
    assert task.trigger_configure() == SUCCESS
    assert task._budget_guard is None


@pytest.mark.parametrize('name, value', [
    ('realtime.policy', 'turbo'), ('realtime.priority', 100), ('realtime.nice', 20),
    ('realtime.cpus', [0, -1]), ('realtime.cpus', [1024]), ('realtime.budget_ms', -1.0),
    ('realtime.recovery_frames', 0),
])  # fmt: skip
def test_real_time_that_cannot_be_is_refused_by_name(bench, name, value):
    task = bench.run(Task)
    refused, = task.set_parameters([rclpy.Parameter(name, value=value)])
    assert not refused.successful
    assert name in refused.reason

"""The base of the nodes: transitions, failures, parameters and status."""

import pytest
import rclpy
from lifecycle_msgs.msg import State
from rclpy.lifecycle import TransitionCallbackReturn

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.parameters import Parameter

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
    assert task.settings.rate == 30.0


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


def test_failed_start_leaves_the_node_inactive(bench):
    task = bench.run(lambda: Task(['start']))
    task.trigger_configure()
    assert task.trigger_activate() == FAILURE
    assert state_of(task) == State.PRIMARY_STATE_INACTIVE
    assert task.calls == ['build', 'start', 'stop']
    task.raising.clear()
    assert task.trigger_activate() == SUCCESS


def test_failing_clean_up_still_reaches_unconfigured(bench):
    task = bench.run(lambda: Task(['stop', 'teardown']))
    task.trigger_configure()
    task.trigger_activate()
    assert task.trigger_deactivate() == SUCCESS
    assert task.trigger_cleanup() == SUCCESS
    assert state_of(task) == State.PRIMARY_STATE_UNCONFIGURED


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

"""The stylizer in this process: goals, their feedback and results, and jobs that go wrong."""

import os
import re
import signal
import subprocess
import sys
import threading

import fake_worker
import numpy as np
import psutil
import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
from rclpy.action import ActionClient
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image

from muon_ad.images import to_rgb
from muon_ad.picture_files import write_picture
from muon_ad_msgs.action import Stylize
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.nodes import stylizer
from muon_ad_nodes.parts import job_process
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.images import to_message

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
SUCCEEDED, CANCELED, ABORTED = (
    GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_CANCELED, GoalStatus.STATUS_ABORTED,
)
STEPS = 3


def picture(grey: int = 100, stamp: int = 7) -> Image:
    return to_message(np.full((24, 32, 3), grey, np.uint8), 'rgb8', Time(sec=stamp), 'lens')


def goal_of(seed: int = 0, **fields: object) -> Stylize.Goal:
    given = {'content': picture(), 'style': picture(), 'steps': STEPS, 'seed': seed, **fields}
    return Stylize.Goal(**given)


class Client:
    """Sends goals and keeps what comes back; `feedback` that of all goals, in order."""

    def __init__(self, bench) -> None:
        self.bench = bench
        self.feedback = []
        self._client = ActionClient(bench.probe, Stylize, '/stylizer/stylize')
        assert self._client.wait_for_server(10)

    def send(self, goal: Stylize.Goal, accepted: bool = True):
        """Send a goal; return its handle."""
        reply = self._client.send_goal_async(
            goal, lambda message: self.feedback.append(message.feedback)
        )
        self.bench.wait(reply.done, 'the reply to the goal')
        assert reply.result().accepted == accepted
        return reply.result()

    def result(self, handle):
        """Wait for the end of a goal; return its status and result."""
        reply = handle.get_result_async()
        self.bench.wait(reply.done, 'the result of the goal')
        return reply.result().status, reply.result().result

    def do(self, goal: Stylize.Goal):
        return self.result(self.send(goal))

    def begin(self, goal: Stylize.Goal):
        """Send a goal, and wait until its first step is done."""
        before = len(self.feedback)
        handle = self.send(goal)
        self.bench.wait(lambda: len(self.feedback) > before, 'the first step')
        return handle

    def cancel(self, handle) -> None:
        reply = handle.cancel_goal_async()
        self.bench.wait(reply.done, 'the reply to the cancellation')
        assert len(reply.result().goals_canceling) == 1

    def close(self) -> None:
        self._client.destroy()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Jobs that take no time, in processes as real as the others."""
    monkeypatch.setattr(job_process, 'WORKER', 'fake_worker')


@pytest.fixture
def node(bench):
    """The node, active."""
    return bench.start(stylizer.make, queue_length=1)


@pytest.fixture
def client(bench, node):
    client = Client(bench)
    yield client
    client.close()


@pytest.fixture
def statuses(bench):
    return bench.listen(TaskStatus, '/stylizer/status', qos.LATCHED)


def values(status: TaskStatus) -> dict[str, str]:
    return {entry.key: entry.value for entry in status.values}


def worker_of(node) -> psutil.Process:
    return psutil.Process(node._at_work.process.pid)


def test_a_goal_is_followed_step_by_step_to_its_picture(bench, client, node):
    status, result = client.do(goal_of())
    assert status == SUCCEEDED
    assert (result.image.header.stamp.sec, result.image.header.frame_id) == (7, 'lens')
    assert (to_rgb(result.image) == 100 + STEPS).all()
    assert result.steps == STEPS
    assert result.style_losses == pytest.approx([10, 5, 10 / 3])
    assert result.content_losses == pytest.approx([0.5] * STEPS)
    assert re.fullmatch(r'3 steps in \d+\.\d s', result.message)
    bench.wait(lambda: len(client.feedback) == STEPS, 'feedback of every step')
    assert [(each.step, each.steps) for each in client.feedback] == [(1, 3), (2, 3), (3, 3)]
    assert client.feedback[1].style_loss == pytest.approx(5)
    assert not any(each.preview.data for each in client.feedback)
    assert node.monitor.frames == node.monitor.received_frames == 1


def test_previews_come_where_they_are_asked_for(bench, client):
    client.do(goal_of(preview_every=2, steps=4))
    bench.wait(lambda: len(client.feedback) == 4, 'feedback of every step')
    shown = [each.step for each in client.feedback if each.preview.data]
    assert shown == [2, 4]
    preview = client.feedback[1].preview
    assert (to_rgb(preview) == 102).all()
    assert (preview.header.stamp.sec, preview.header.frame_id) == (7, 'lens')


def test_pictures_may_be_files(client, node, tmp_path):
    write_picture(tmp_path / 'content.png', np.full((20, 30, 3), 50, np.uint8))
    before = node.get_clock().now().nanoseconds // 10**9
    status, result = client.do(goal_of(
        content=Image(), content_path=str(tmp_path / 'content.png'),
        style=Image(), style_path=str(tmp_path / 'content.png'),
    ))
    assert status == SUCCEEDED
    assert (to_rgb(result.image) == 50 + STEPS).all()
    assert result.image.header.stamp.sec >= before
    assert not result.image.header.frame_id


WRONG = [
    ({'content': Image()}, 'content is empty, and so is content_path; expected'),
    ({'style_path': '/a.png'}, "style_path is '/a.png' beside an image style; expected one"),
    ({'content': Image(width=4)}, "content: encoding is ''; expected"),
    ({'content': Image(width=4, encoding='rgb8')}, 'content: size is 4x0; expected'),
    ({'content': Image(), 'content_path': '/no/such.png'},
     "content_path is '/no/such.png': /no/such.png: no such file; expected"),
    ({'optimizer': 'magic'}, "optimizer is 'magic'; expected one of ('adam'"),
    ({'loss': 'love'}, "loss is 'love'; expected one of"),
    ({'lr': float('nan')}, 'lr is nan; expected None (as the backbone recommends) or a number'),
    ({'lr': -0.5}, 'lr is -0.5; expected'),
    ({'content_weight': float('inf')}, 'content_weight is inf; expected'),
    ({'conflict': -1.5}, 'conflict is -1.5; expected None (off) or a cosine from -1 to 1'),
    ({'steps': 1001}, 'steps is 1001; expected up to 1000 (parameter max_steps)'),
    ({'size': 5000}, 'size is 5000; expected up to 1024 (parameter max_size)'),
]


def test_a_bad_goal_is_aborted_with_field_value_and_what_was_expected(client, node):
    for wrong, complaint in WRONG:
        status, result = client.do(goal_of(**wrong))
        assert status == ABORTED
        assert complaint in result.message
        assert not result.image.data
    assert node.monitor.dropped_invalid_frames == len(WRONG)
    assert client.do(goal_of())[0] == SUCCEEDED


def test_settings_arrive_as_people_meant_them(client, monkeypatch):
    jobs = []
    began = job_process.JobProcess.__init__
    monkeypatch.setattr(
        job_process.JobProcess, '__init__',
        lambda self, job, *rest: (jobs.append(job), began(self, job, *rest))[1],
    )
    client.do(goal_of(
        optimizer='muon', lr=0.1, content_weight=-1.0, conflict=-0.3, loss='kl', size=200,
    ))
    client.do(goal_of(steps=0))
    first, second = (job.settings for job in jobs)
    assert (first.optimizer, first.lr, first.content_weight) == ('muon', 0.1, 0.0)
    assert (first.conflict, first.loss, first.size, first.steps) == (-0.3, 'kl', 200, STEPS)
    assert second == type(second)()


def test_goals_wait_for_their_turn_and_no_more_than_there_is_room_for(client, node, bench):
    first = client.begin(goal_of(fake_worker.UNTIL_CANCELLED))
    second = client.send(goal_of())
    client.send(goal_of(), accepted=False)
    assert node.monitor.dropped_invalid_frames == 1
    node.publish_status()
    statuses = bench.listen(TaskStatus, '/stylizer/status', qos.LATCHED)
    bench.wait(lambda: statuses and statuses[-1].drops, 'the rejected goal in the status')
    assert 'goal rejected: the queue is full' in statuses[-1].drops[0].reason
    assert values(statuses[-1])['goals waiting'] == '1'
    assert values(statuses[-1])['step'] == '1 of 3'
    client.cancel(first)
    assert client.result(first)[0] == CANCELED
    assert client.result(second)[0] == SUCCEEDED


def test_a_cancelled_goal_ends_with_the_picture_so_far(client):
    handle = client.begin(goal_of(fake_worker.UNTIL_CANCELLED))
    client.cancel(handle)
    status, result = client.result(handle)
    assert (status, result.steps) == (CANCELED, 1)
    assert (to_rgb(result.image) == 101).all()
    assert result.message == 'cancelled after step 1'
    assert client.do(goal_of())[0] == SUCCEEDED


def test_a_goal_can_be_cancelled_while_it_waits(client):
    first = client.begin(goal_of(fake_worker.UNTIL_CANCELLED))
    second = client.send(goal_of())
    client.cancel(second)
    status, result = client.result(second)
    assert (status, result.message) == (CANCELED, 'cancelled while it waited')
    client.cancel(first)
    assert client.result(first)[0] == CANCELED


def test_a_job_that_does_not_end_when_cancelled_is_killed(bench):
    bench.start(stylizer.make, job__cancel_s=0.0)
    client = Client(bench)
    handle = client.begin(goal_of(fake_worker.DEAF))
    client.cancel(handle)
    status, result = client.result(handle)
    assert status == CANCELED
    assert result.message == 'cancelled after step 1, before the next was done'
    client.close()


def test_a_job_without_a_sign_of_life_is_killed(bench):
    node = bench.start(stylizer.make)
    client = Client(bench)
    handle = client.begin(goal_of(fake_worker.DEAF))
    object.__setattr__(node._at_work.process._limits, 'silence_s', 0.0)
    status, result = client.result(handle)
    assert status == ABORTED
    assert result.message == 'killed: no sign of life for 0 s after step 1'
    client.close()


@pytest.mark.parametrize('seed, complaint', [
    (fake_worker.KILLED, 'ended by SIGKILL (out of memory?) after step 1'),
    (fake_worker.HALF_SAID, 'ended by SIGKILL (out of memory?) after step 1'),
    (fake_worker.DEFECT, 'ZeroDivisionError: division by nothing'),
])  # fmt: skip
def test_a_job_that_dies_aborts_its_goal_and_no_other(client, seed, complaint):
    status, result = client.do(goal_of(seed))
    assert status == ABORTED
    assert complaint in result.message
    assert client.do(goal_of())[0] == SUCCEEDED


def test_a_job_that_somebody_kills_aborts_its_goal_and_no_other(client, node):
    handle = client.begin(goal_of(fake_worker.DEAF))
    worker_of(node).send_signal(signal.SIGTERM)
    status, result = client.result(handle)
    assert status == ABORTED
    assert 'ended by SIGTERM after step 1' in result.message
    assert client.do(goal_of())[0] == SUCCEEDED


def test_what_is_not_a_number_ends_with_the_last_good_picture(client):
    status, result = client.do(goal_of(fake_worker.NOT_FINITE))
    assert (status, result.message) == (ABORTED, 'step 2: the loss is not finite')
    assert (to_rgb(result.image) == 101).all()


def test_a_process_that_cannot_be_started_aborts_the_goal(client, monkeypatch):
    monkeypatch.setattr(job_process.sys, 'executable', '/no/such/python')
    status, result = client.do(goal_of())
    assert status == ABORTED
    assert 'cannot be started' in result.message


def test_the_node_answers_while_a_job_runs(bench, client, node, statuses):
    handle = client.begin(goal_of(fake_worker.DEAF))
    seen = len(statuses)
    bench.wait(lambda: len(statuses) > seen + 1, 'statuses')
    assert values(statuses[-1])['process of the job'] == str(worker_of(node).pid)
    assert statuses[-1].busy_s == 0
    assert values(statuses[-1])['losses'] == 'style 10, content 0.5'
    node.trigger_deactivate()
    assert client.result(handle)[0] == ABORTED


@pytest.mark.parametrize('transitions', [('deactivate',), ('deactivate', 'cleanup')])
def test_deactivation_aborts_all_goals_and_ends_the_process(client, node, transitions):
    running, waiting = client.begin(goal_of(fake_worker.DEAF)), client.send(goal_of())
    worker = worker_of(node)
    results = [handle.get_result_async() for handle in (running, waiting)]
    client.bench.settle()
    for transition in transitions:
        assert getattr(node, f'trigger_{transition}')() == SUCCESS
    assert not worker.is_running()
    for result in results:
        client.bench.wait(result.done, 'the results')
        assert result.result().status == ABORTED
        assert result.result().result.message == 'the node was deactivated'


def test_goals_are_rejected_while_inactive_and_taken_again_afterwards(client, node):
    node.trigger_deactivate()
    client.send(goal_of(), accepted=False)
    assert node.monitor.dropped_invalid_frames == 1
    node.trigger_cleanup()
    for transition in ('configure', 'activate'):
        assert getattr(node, f'trigger_{transition}')() == SUCCESS
    client.bench.wait(client._client.server_is_ready, 'the server')
    assert client.do(goal_of())[0] == SUCCEEDED


def test_the_end_of_the_node_is_the_end_of_the_process(client, node):
    client.begin(goal_of(fake_worker.DEAF))
    worker = worker_of(node)
    node.close()
    assert not worker.is_running()


def test_jobs_leave_the_cpu_to_others(client, node):
    handle = client.begin(goal_of(fake_worker.UNTIL_CANCELLED))
    worker = worker_of(node)
    assert os.sched_getscheduler(worker.pid) == os.SCHED_BATCH
    assert worker.nice() >= 10
    client.cancel(handle)
    client.result(handle)


def test_jobs_leave_nothing_behind(client):
    client.do(goal_of())
    handles, threads = len(os.listdir('/proc/self/fd')), threading.active_count()
    for seed in (0, fake_worker.KILLED, 0, fake_worker.DEFECT, 0):
        client.do(goal_of(seed))
    assert len(os.listdir('/proc/self/fd')) == handles
    assert threading.active_count() == threads
    assert not psutil.Process().children()


def test_neither_the_node_nor_the_start_of_a_job_loads_torch():
    """It takes seconds and hundreds of megabytes; only a job that is at work has it."""
    code = (
        'import sys, muon_ad_nodes.nodes.stylizer, muon_ad.distill.worker\n'
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    )
    assert done.stdout.strip() == 'False'


def test_a_backbone_that_is_not_there_fails_configure(bench, statuses):
    node = bench.run(stylizer.make, backbone='/no/such/folder')
    assert node.trigger_configure() == FAILURE
    complaint = "parameter backbone is '/no/such/folder'; expected the folder"
    bench.wait(lambda: any(complaint in s.message for s in statuses), 'the reason')

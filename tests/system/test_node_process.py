"""One node as a process of its own, without launch or supervisor."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from support import release_participants

SHARED_MEMORY = Path('/dev/shm')


@pytest.fixture
def process(negative_package, request):
    """The style transfer node, started by hand, with parameters of the test's choice."""
    # Until a node of an earlier test is collected, its services are there, and nobody answers.
    release_participants()
    command = [
        sys.executable, '-m', 'muon_ad_nodes.main', 'style_transfer', '--ros-args',
        '-p', f'model:={negative_package}',
    ]
    for parameter in getattr(request, 'param', ()):
        command += ['-p', parameter]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONPATH': ':'.join(sys.path)},
    )
    yield process
    process.kill()
    process.wait()
    process.stderr.close()


def change_state(transition: int) -> None:
    """Ask for a transition, from a context that ends with the question."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('asking', context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    client = node.create_client(ChangeState, '/style_transfer/change_state')
    assert client.wait_for_service(30)
    reply = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
    rclpy.spin_until_future_complete(node, reply, executor, timeout_sec=30)
    assert reply.done(), 'no reply within 30 s'
    assert reply.result().success
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_node_that_ends_in_order_leaves_no_shared_memory(process, number):
    change_state(Transition.TRANSITION_CONFIGURE)
    change_state(Transition.TRANSITION_ACTIVATE)
    release_participants()
    maps = Path(f'/proc/{process.pid}/maps').read_text()
    segments = set(re.findall(r'/dev/shm/(fast\w+?_[0-9a-f]{16})\b', maps))
    process.send_signal(number)
    assert process.wait(30) == 0
    ours = set(re.findall(r'/dev/shm/(fast\w+)', Path('/proc/self/maps').read_text()))
    assert segments
    assert not {name for name in segments - ours if (SHARED_MEMORY / name).exists()}


def test_without_a_profile_the_node_warns(process):
    change_state(Transition.TRANSITION_CONFIGURE)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    wanted = 'FASTDDS_DEFAULT_PROFILES_FILE' not in os.environ
    assert ('large images will be lost' in said) == wanted


@pytest.mark.parametrize('process', [
    ('realtime.policy:=fifo', 'realtime.priority:=3', 'threads:=2'),
], indirect=True)  # fmt: skip
def test_every_thread_is_in_the_class_that_was_asked_for(process):
    change_state(Transition.TRANSITION_CONFIGURE)
    classes = {
        (os.sched_getscheduler(thread.id), os.sched_getparam(thread.id).sched_priority)
        for thread in psutil.Process(process.pid).threads()
    }
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    if 'no permission for SCHED_FIFO 3' in said:
        pytest.skip('no permission for SCHED_FIFO on this machine')
    # The guard of the budget is one above.
    assert classes == {(os.SCHED_FIFO, 3), (os.SCHED_FIFO, 4)}
    assert 'threads outside' not in said

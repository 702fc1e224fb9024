"""The bench: whose callback failed, whose ROS it is, and parameters that a node does not take."""

import sys
import threading

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from std_msgs.msg import Float64

from muon_ad_nodes import bench as module
from muon_ad_nodes.bench import Bench


class Answering(Node):
    """Does something with each number."""

    def __init__(self, act):
        super().__init__('answering')
        self.declare_parameter('gain', 1.0)
        self.declare_parameter('camera.width', 640)
        self.create_subscription(Float64, 'number', lambda message: act(message.data), 10)


def play_number(bench, act):
    """Send a number to a node and wait until it has been handled."""
    handled = []

    def note(number):
        handled.append(number)
        act(number)

    bench.start(lambda: Answering(note))
    publisher = bench.probe.create_publisher(Float64, 'number', 10)
    bench.wait(publisher.get_subscription_count, 'the subscription')
    publisher.publish(Float64(data=3.0))
    bench.wait(lambda: handled, 'the number')
    bench.settle()


WHERE = 'the callback of /number in node answering'


def test_callback_that_exits(node_bench):
    with pytest.raises(pytest.fail.Exception, match=rf'^{WHERE} called exit\(4\)'):
        play_number(node_bench, lambda _: sys.exit(4))
    with pytest.raises(pytest.fail.Exception, match=rf'not spun any more: {WHERE}'):
        node_bench.settle()


def test_callback_that_ends_ros(node_bench):
    with pytest.raises(pytest.fail.Exception, match=f'^{WHERE} shut rclpy down'):
        play_number(node_bench, lambda _: rclpy.shutdown())


def test_the_test_that_ends_ros(node_bench):
    node_bench.start(lambda: Answering(print))
    rclpy.shutdown()
    with pytest.raises(pytest.fail.Exception, match='rclpy was shut down'):
        node_bench.wait(lambda: False, 'the end')


def test_callback_that_never_returns(monkeypatch):
    monkeypatch.setattr(module, '_RETURN_S', 0.3)
    monkeypatch.setattr(module, '_JOIN_S', 0.3)
    release = threading.Event()
    bench = Bench()
    try:
        with pytest.raises(pytest.fail.Exception, match=f'in vain for {WHERE} to return'):
            play_number(bench, lambda _: release.wait(60))
        with pytest.raises(pytest.fail.Exception, match=f'not spun any more: {WHERE} does not'):
            bench.check()
        bench.close()
        bench.check()       # it has been told
    finally:
        release.set()
    bench = Bench()
    play_number(bench, lambda _: None)
    bench.close()
    bench.check()


def test_callback_that_does_not_return_by_the_end(monkeypatch):
    monkeypatch.setattr(module, '_JOIN_S', 0.3)
    begun, release = threading.Event(), threading.Event()
    bench = Bench()
    node = bench.start(lambda: Answering(print))
    try:
        node.create_timer(0.001, lambda: begun.set() or release.wait(60))
        assert begun.wait(20)
        bench.close()
        with pytest.raises(pytest.fail.Exception, match='of a timer in node answering does not'):
            bench.check()
    finally:
        release.set()


def test_ros_that_is_there_already_is_used_and_left_on():
    rclpy.init(domain_id=77)
    try:
        bench = Bench(domain_id=5)
        play_number(bench, lambda _: None)
        assert bench.probe.context.get_domain_id() == 77
        bench.close()
        assert rclpy.ok()
    finally:
        rclpy.shutdown()


def test_ros_cannot_begin_again_after_node_bench(node_bench):
    with pytest.raises(RuntimeError, match='name the fixture .* before node_bench'):
        rclpy.init()
    context = Context()
    rclpy.init(context=context)
    rclpy.shutdown(context=context)
    assert rclpy.ok()


@pytest.mark.parametrize(('name', 'value', 'problem'), [
    ('gian', 2.0, r'gian = 2.0 \(DOUBLE\): not declared'),
    ('gain', 'x', r"gain = 'x' \(STRING\): "),
    ('gain', object, r"gain = <class 'object'> \(type\): "),
])
def test_parameter_that_a_node_does_not_take(node_bench, name, value, problem):
    expected = problem + r'.*; it declares camera.width \(INTEGER\), gain \(DOUBLE\)'
    with pytest.raises(ValueError, match=f'node answering does not take parameter {expected}'):
        node_bench.start(lambda: Answering(print), **{name: value})
    node = node_bench.start(lambda: Answering(print), gain=2.0, camera__width=320)
    assert node.get_parameter('gain').value == 2.0
    assert node.get_parameter('camera.width').value == 320

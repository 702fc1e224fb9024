"""The thread that works on the newest frame: what becomes of the frames that it does not take."""

import threading

import numpy as np
import pytest
from sensor_msgs.msg import Image

from muon_ad_msgs.msg import FrameTrace
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.frame_task import FrameTask
from muon_ad_nodes.parts.frame_task import REPLACED
from muon_ad_nodes.parts.frame_task import STOPPED
from muon_ad_nodes.parts.images import to_message
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.stamps import to_stamp

PATIENCE_S = 20.0


class Slow(SuiteNode):
    """Works on a frame until `release` is set."""

    def __init__(self) -> None:
        super().__init__('slow', ())
        self.began, self.release = threading.Event(), threading.Event()

    def build(self) -> None:
        self.task = FrameTask(self, self._infer, lambda message, result: None)

    def start(self) -> None:
        self.task.start()

    def stop(self) -> None:
        self.task.stop()

    def teardown(self) -> None:
        self.task.destroy()

    def _infer(self, rgb: np.ndarray, _age_ms: float) -> None:
        self.began.set()
        assert self.release.wait(PATIENCE_S)


@pytest.fixture
def node(bench):
    node = bench.start(Slow)
    yield node
    node.release.set()


def test_frames_that_are_not_worked_on_are_counted_with_the_reason(bench, node):
    traces = bench.listen(FrameTrace, '/slow/trace')
    publisher = bench.probe.create_publisher(Image, 'image_raw', qos.PUBLISH)
    bench.wait(
        lambda: publisher.get_subscription_count() and node._trace._publisher
        .get_subscription_count(), 'both to be matched',
    )
    for number in range(1, 4):
        pixels = np.zeros((4, 4, 3), np.uint8)
        publisher.publish(to_message(pixels, 'rgb8', to_stamp(number), 'lens'))
        bench.wait(lambda n=number: node.monitor.received_frames == n, 'the frame')
        assert node.began.wait(PATIENCE_S)      # so that the first is in work
    stopping = threading.Thread(target=node.trigger_deactivate)
    stopping.start()
    bench.wait(lambda: node.monitor.dropped_newer_frames == 2, 'the last frame to be given up')
    node.release.set()
    stopping.join(PATIENCE_S)
    status = TaskStatus()
    node.monitor.fill(status)
    assert {drop.reason: drop.frames for drop in status.drops} == {REPLACED: 1, STOPPED: 1}
    assert (status.received, status.frames, status.dropped_newer) == (3, 1, 2)
    bench.wait(lambda: len(traces) == 3, 'the ways of all frames')
    found = {trace.stamp.nanosec: (trace.dropped, list(trace.stages)) for trace in traces}
    assert found == {
        1: ('', ['capture', 'wait', 'preprocess', 'infer', 'publish']),
        2: (REPLACED, ['capture', 'wait']),
        3: (STOPPED, ['capture', 'wait']),
    }

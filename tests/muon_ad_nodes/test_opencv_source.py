"""A pipeline through OpenCV that ends, stalls for ever or never opens: nothing waits for it.

What stands in for OpenCV is its outermost edge, cv2.VideoCapture.
"""

import threading
import time

import numpy as np
import pytest
from sensor_msgs.msg import Image

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.nodes import csi_camera
from muon_ad_nodes.parts import argus_source
from muon_ad_nodes.parts import opencv_source
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.argus_source import open_gstreamer
from muon_ad_nodes.parts.opencv_source import stuck_readers
from muon_ad_nodes.parts.source import Request
from muon_ad_nodes.parts.source import SourceError

RUNNING = threading.Event()     # never set


class FakeOpenCv:
    """Every capture there is; `flows` while frames come, `answers` while calls come back."""

    def __init__(self):
        self.captures = []
        self.opens = True
        self.ended = False
        self.taken_ms = lambda number: 1000.0 + number
        self.flows, self.answers = threading.Event(), threading.Event()
        self.flows.set()
        self.answers.set()

    def open(self, pipeline, backend):
        self.answers.wait()
        self.captures.append(FakeCapture(self, pipeline, backend))
        return self.captures[-1]


class FakeCapture:
    def __init__(self, opencv, pipeline, backend):
        self.opencv, self.pipeline, self.backend = opencv, pipeline, backend
        self.reads = self.number = 0
        self.released = False

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return self.opencv.opens

    def read(self):
        self.reads += 1
        if self.opencv.ended:
            return False, None
        self.opencv.flows.wait()
        time.sleep(0.005)       # the camera's pace
        self.number += 1
        return True, np.full((12, 16, 4), self.number % 256, np.uint8)

    def get(self, _setting):
        return self.opencv.taken_ms(self.number)

    def release(self):
        self.released = True


@pytest.fixture
def opencv(monkeypatch):
    fake = FakeOpenCv()
    monkeypatch.setattr(argus_source, 'Gst', None)
    monkeypatch.setattr(argus_source, 'opencv_has_gstreamer', lambda: True)
    monkeypatch.setattr(opencv_source.cv2, 'VideoCapture', fake.open)
    monkeypatch.setattr(opencv_source, 'CLOSE_S', 0.2)
    monkeypatch.setattr(opencv_source, 'OPEN_S', 0.2)
    yield fake
    fake.flows.set()
    fake.answers.set()
    wait_until(lambda: not stuck_readers(), 'the threads that were stuck to end')


def wait_until(condition, what):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f'waited in vain for {what}'
        time.sleep(0.002)


def open_source():
    return open_gstreamer('camera', Request(time.time_ns))


def test_frames_have_the_time_of_their_buffer(opencv):
    source = open_source()
    frames = [source.read(RUNNING, 5.0) for _ in range(3)]
    source.close()
    capture, = opencv.captures
    assert capture.pipeline.startswith('camera ! appsink') and capture.released
    numbers = [frame.number for frame in frames]
    assert numbers == sorted(set(numbers))
    for frame in frames:
        assert frame.pictures['image'].pixels().shape == (12, 16, 3)
        assert frame.pictures['image'].pixels()[0, 0, 0] == frame.number + 1
        assert (frame.domain, frame.device_ns) == (
            'hardware_clock', 1_001_000_000 + frame.number * 1_000_000)
        assert abs(frame.arrival_ns - time.time_ns()) < 60e9


@pytest.mark.parametrize('taken_ms', [0.0, -1.0, 7.0])
def test_a_time_that_does_not_rise_is_none(opencv, taken_ms):
    opencv.taken_ms = lambda _number: taken_ms
    source = open_source()
    wait_until(lambda: opencv.captures[0].number > 2, 'frames')
    source.read(RUNNING, 5.0)
    frame = source.read(RUNNING, 5.0)
    source.close()
    assert (frame.domain, frame.device_ns) == ('system_time', None)


def test_a_pipeline_that_has_ended_keeps_nobody_busy(opencv):
    opencv.ended = True
    source = open_source()
    assert source.read(RUNNING, 0.3) is None
    source.close()
    assert opencv.captures[0].reads <= 5 and opencv.captures[0].released


def test_a_stall_holds_up_nobody_and_is_left_behind_until_it_ends(opencv):
    source = open_source()
    assert source.read(RUNNING, 5.0) is not None
    opencv.flows.clear()
    wait_until(lambda: source.read(RUNNING, 0.05) is None, 'the last frame')
    source.close()
    assert stuck_readers() == 1 and not opencv.captures[0].released
    opencv.flows.set()
    wait_until(lambda: not stuck_readers(), 'the thread to end')
    assert opencv.captures[0].released


def test_a_pipeline_that_cannot_be_opened_is_an_error_at_once_or_in_time(opencv):
    opencv.opens = False
    with pytest.raises(SourceError, match="cannot open the pipeline 'camera'; try it with gst"):
        open_source()
    opencv.answers.clear()
    with pytest.raises(SourceError, match="has not opened the pipeline 'camera' after 0.2 s"):
        open_source()
    assert stuck_readers() == 1


def test_an_exception_of_opencv_is_a_lost_camera(opencv, monkeypatch):
    def broken(_capture):
        raise opencv_source.cv2.error('out of memory')

    monkeypatch.setattr(FakeCapture, 'read', broken)
    with pytest.raises(SourceError, match='OpenCV: out of memory'):
        open_source().read(RUNNING, 5.0)


def test_threads_are_not_left_behind_without_end(opencv, monkeypatch):
    monkeypatch.setattr(opencv_source, 'MOST_STUCK', 2)
    opencv.answers.clear()
    for _ in range(2):
        with pytest.raises(SourceError, match='has not opened'):
            open_source()
    with pytest.raises(SourceError, match='2 threads are stuck in OpenCV.*restart nvargus'):
        open_source()


def test_the_node_builds_a_stalled_pipeline_anew_and_tells_of_the_thread(bench, opencv):
    images = bench.listen(Image, 'image_raw', 20)
    statuses = bench.listen(TaskStatus, 'csi_camera/status', qos.LATCHED)
    node = bench.start(csi_camera.make, source='argus', stall_s=0.1)
    bench.wait(lambda: images, 'images')
    opencv.flows.clear()
    bench.wait(lambda: stuck_readers(), 'the stall to be noticed')
    opencv.flows.set()
    bench.wait(lambda: len(opencv.captures) >= 2, 'the next pipeline')
    images.clear()
    bench.wait(lambda: images, 'images again')
    opencv.flows.clear()
    bench.wait(
        lambda: any(value.key == 'threads stuck in OpenCV' for value in statuses[-1].values),
        'the count in the status',
    )
    assert not node.failed.is_set()

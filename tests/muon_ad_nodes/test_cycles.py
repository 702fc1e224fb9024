"""Every node through its states, again and again: nothing is lost on the way, nothing is kept."""

import ctypes
import gc
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_bags
from builtin_interfaces.msg import Time
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from muon_ad_nodes.document import NODES
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.images import to_message

CYCLES, WORKING_EVERY, MEASURED_EVERY, WARM_UP = 100, 10, 5, 30
# Over the cycles after the warm-up. A picture, a network or a participant kept in each is more.
MEMORY_KB = 3000
OBJECTS = 30
SUCCESS = TransitionCallbackReturn.SUCCESS


@dataclass(frozen=True)
class Case:
    """A node, parameters that make it small, and the topics it takes images and infos from."""

    node: str
    parameters: Callable[[Path, Path, Path], dict]
    images: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()
    works: bool = True


CASES = {
    'style_transfer': Case(
        'style_transfer', lambda style, *_: {'model': str(style)}, ('image_raw',)
    ),
    'object_detector': Case(
        'object_detector', lambda _, detector, __: {'model': str(detector)},
        ('aligned_depth/image_raw', 'image_raw'), ('camera_info',),
    ),
    'test_pattern': Case(
        'csi_camera',
        lambda *_: {'source': 'test_pattern', 'width': 96, 'height': 48, 'fps': 240.0},
    ),
    'video': Case(
        'csi_camera', lambda *paths: {'source': 'video', 'path': str(paths[2] / 'short.avi')}
    ),
    'realsense_camera': Case(
        'realsense_camera',
        lambda *_: {
            'source': 'simulated', 'rgb_camera__color_profile': '320x240x30',
            'depth_module__depth_profile': '320x240x30',
        },
    ),
    'frame_sync': Case(
        'frame_sync', lambda *_: {'streams': ['left', 'right']},
        ('left/image_raw', 'right/image_raw'), ('left/camera_info', 'right/camera_info'),
    ),
    'bag_player': Case(
        'bag_player', lambda *paths: {'path': str(paths[2] / 'tiny'), 'wait_for_s': 0.01}
    ),
    'supervisor': Case('supervisor', lambda *_: {'nodes': ['/nobody']}, works=False),
}  # fmt: skip


def test_no_node_is_left_out():
    assert {case.node for case in CASES.values()} == set(NODES)


@pytest.fixture
def made(request, bench, negative_package, one_box_package, tmp_path):
    """The case and its node, unconfigured."""
    case = CASES[request.param]
    video = cv2.VideoWriter(
        str(tmp_path / 'short.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 200, (64, 48)
    )
    for grey in range(0, 250, 25):
        video.write(np.full((48, 64, 3), grey, np.uint8))
    video.release()
    tiny_bags.write('mcap_chunk', tmp_path)
    parameters = case.parameters(negative_package, one_box_package, tmp_path)
    module = importlib.import_module(f'muon_ad_nodes.nodes.{case.node}')
    # The supervisor's `make` configures it at once.
    make = getattr(module, 'Supervisor', module.make)
    return case, bench.run(make, **parameters)


def every(wanted=lambda case: True):
    """Parametrise with the wanted cases."""
    names = [name for name, case in CASES.items() if wanted(case)]
    return pytest.mark.parametrize('made', names, indirect=True)


class Feeder:
    """Publishes a tiny frame with its camera_info on every topic that a node takes."""

    def __init__(self, bench, case: Case) -> None:
        self._images = {
            topic: bench.probe.create_publisher(Image, topic, qos.PUBLISH)
            for topic in case.images
        }
        self._infos = [
            bench.probe.create_publisher(CameraInfo, topic, qos.PUBLISH) for topic in case.infos
        ]
        self._bench, self._count = bench, 0

    def wait_for_listeners(self) -> None:
        """Wait until the node hears all topics."""
        publishers = [*self._images.values(), *self._infos]
        self._bench.wait(
            lambda: all(publisher.get_subscription_count() > 0 for publisher in publishers),
            'the node to subscribe',
        )

    def feed(self) -> None:
        """Publish one frame everywhere, with one stamp."""
        self._count += 1
        stamp = Time(sec=self._count)
        for publisher in self._infos:
            info = CameraInfo(width=64, height=48, k=[50.0, 0, 32, 0, 50, 24, 0, 0, 1])
            info.header.stamp, info.header.frame_id = stamp, 'fed'
            publisher.publish(info)
        for topic, publisher in self._images.items():
            depth = 'depth' in topic
            pixels = np.zeros((48, 64) if depth else (48, 64, 3), np.uint16 if depth else np.uint8)
            publisher.publish(to_message(pixels, '16UC1' if depth else 'rgb8', stamp, 'fed'))


def do(node, *transitions: str) -> None:
    """Go through transitions that must succeed."""
    for transition in transitions:
        assert getattr(node, f'trigger_{transition}')() == SUCCESS, node._message


def work(bench, feeder: Feeder, node) -> None:
    """Let an active node come to three results."""
    def has_worked() -> bool:
        feeder.feed()
        return node.monitor.frames >= 3

    feeder.wait_for_listeners()
    bench.wait(has_worked, 'results')


def holdings() -> dict[str, int]:
    """What this process holds now."""
    gc.unfreeze()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    targets = [os.readlink(entry) for entry in _entries('/proc/self/fd')]
    return {
        'memory (kB)': pages * os.sysconf('SC_PAGE_SIZE') // 1000,
        'objects': len(gc.get_objects()),
        'handles': len(targets),
        'threads': len(_entries('/proc/self/task')),
        'mapped shared memory': Path('/proc/self/maps').read_text().count('/dev/shm/'),
    }


def _entries(folder: str) -> list[str]:
    """The links of a folder in /proc, without that by which it is being listed."""
    paths = [os.path.join(folder, name) for name in os.listdir(folder)]
    return [path for path in paths if os.path.lexists(path)]


@every()
def test_a_hundred_cycles_leave_nothing_behind(bench, made):
    case, node = made
    feeder = Feeder(bench, case)
    seen: dict[str, list[int]] = {}
    for cycle in range(1, CYCLES + 1):
        do(node, 'configure')
        if cycle % WORKING_EVERY == 0:
            do(node, 'activate')
            if case.works:
                work(bench, feeder, node)
            do(node, 'deactivate')
        do(node, 'cleanup')
        if cycle >= WARM_UP and cycle % MEASURED_EVERY == 0:
            for name, value in holdings().items():
                seen.setdefault(name, []).append(value)
    # The least of the first and of the last five: what grows for good, not what comes and goes.
    growth = {name: min(values[-5:]) - min(values[:5]) for name, values in seen.items()}
    limits = {'memory (kB)': MEMORY_KB, 'objects': OBJECTS}
    too_much = {name: grown for name, grown in growth.items() if grown > limits.get(name, 0)}
    assert not too_much, seen


@every(lambda case: case.images)
def test_input_is_ignored_while_inactive(bench, made):
    """Nothing is counted, nothing worked on, nothing kept, for later neither."""
    case, node = made
    delivered = {}
    feeder = Feeder(bench, case)
    do(node, 'configure', 'activate')
    work(bench, feeder, node)
    do(node, 'deactivate', 'cleanup', 'configure')
    for subscription in node.subscriptions:
        if topic := next((t for t in case.images + case.infos
                          if subscription.topic_name == f'/{t}'), None):
            delivered[topic] = 0
            subscription.callback = _counting(subscription.callback, delivered, topic)
    assert set(delivered) == set(case.images + case.infos)
    feeder.wait_for_listeners()

    def all_delivered() -> bool:
        feeder.feed()
        return min(delivered.values()) >= 5

    bench.wait(all_delivered, 'input at every topic')
    assert node.active is False
    monitor = node.monitor
    assert (monitor.received_frames, monitor.frames, monitor.dropped_newer_frames) == (0, 0, 0)

    def kept() -> list:
        gc.unfreeze()
        gc.collect()
        return [held for held in gc.get_objects()
                if type(held) in (Image, CameraInfo) and held.header.frame_id == 'fed']

    bench.wait(lambda: not kept(), 'the node to let go of what it was given')
    do(node, 'activate')
    work(bench, feeder, node)


def _counting(callback, delivered, topic):
    def count(message):
        callback(message)
        delivered[topic] += 1

    return count

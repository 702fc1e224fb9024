"""Every node with parameters that make it small, fed, and taken through its states.

As a program, `cycles.py <case> <style package> <detector package> <folder> [<leak>]`: takes that
node through a hundred cycles in a process that does nothing else, and prints what the process
held, as JSON: a list by figure.
"""

import ctypes
import faulthandler
import gc
import importlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import cv2
import numpy as np
import tiny_bags
from builtin_interfaces.msg import Time
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from muon_ad_nodes.bench import Bench
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.images import to_message

CYCLES, WORKING_EVERY = 100, 10
# Threads, pools and caches of the libraries come in the first cycles.
MEASURED = range(30, CYCLES + 1, 2)
# After this the program says where it hangs, and ends.
LIMIT_S = 400.0
SUCCESS = TransitionCallbackReturn.SUCCESS


@dataclass(frozen=True)
class Case:
    """A node, its parameters by (style, detector, folder), and its topics of images and infos."""

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
    # Its jobs are processes, which test_stylizer.py counts.
    'stylizer': Case('stylizer', lambda *_: {}, works=False),
    'supervisor': Case('supervisor', lambda *_: {'nodes': ['/nobody']}, works=False),
}  # fmt: skip

def write_inputs(folder: Path) -> None:
    """Write the files that the nodes of CASES read."""
    video = cv2.VideoWriter(
        str(folder / 'short.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 200, (64, 48)
    )
    for grey in range(0, 250, 25):
        video.write(np.full((48, 64, 3), grey, np.uint8))
    video.release()
    tiny_bags.write('mcap_chunk', folder)


def make(bench: Bench, case: Case, *paths: Path) -> LifecycleNode:
    """Make the node of a case, unconfigured."""
    module = importlib.import_module(f'muon_ad_nodes.nodes.{case.node}')
    # The supervisor's `make` configures it at once.
    return bench.run(getattr(module, 'Supervisor', module.make), **case.parameters(*paths))


class Feeder:
    """Publishes a tiny frame with its camera_info on every topic that a node takes."""

    def __init__(self, bench: Bench, case: Case) -> None:
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


def do(node: LifecycleNode, *transitions: str) -> None:
    """Go through transitions that must succeed."""
    for transition in transitions:
        assert getattr(node, f'trigger_{transition}')() == SUCCESS, node._message


def work(bench: Bench, feeder: Feeder, node: LifecycleNode) -> None:
    """Let an active node come to three results."""
    def has_worked() -> bool:
        feeder.feed()
        return node.monitor.frames >= 3

    feeder.wait_for_listeners()
    bench.wait(has_worked, 'results', 60.0)


def measure(case: Case, paths: Sequence[Path], leak: Callable[[], object]) -> dict[str, list[int]]:
    """Go through the cycles; return what the process held after those of MEASURED, by figure."""
    bench = Bench(domain_id=_free_domain())
    node = make(bench, case, *paths)
    feeder = Feeder(bench, case)
    leaked, seen = [], []
    try:
        for cycle in range(1, CYCLES + 1):
            do(node, 'configure')
            if cycle % WORKING_EVERY == 0:
                do(node, 'activate')
                if case.works:
                    work(bench, feeder, node)
                do(node, 'deactivate')
            do(node, 'cleanup')
            leaked.append(leak())
            if cycle in MEASURED:
                seen.append(_holdings())
    finally:
        bench.close()
    return {name: [each[name] for each in seen] for name in seen[0]}


def _holdings() -> dict[str, int]:
    """What this process holds now."""
    gc.unfreeze()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path('/proc/self/status').read_text().splitlines()
    status = dict(line.split(':', 1) for line in lines)
    return {
        'memory (kB)': int(status['RssAnon'].split()[0]),
        'objects': len(gc.get_objects()),
        'handles': len(os.listdir('/proc/self/fd')),
        'threads': int(status['Threads']),
        'mapped shared memory': Path('/proc/self/maps').read_text().count('/dev/shm/'),
    }


# Claims a domain by one of its ports for as long as the process lives.
_claim = socket.socket()


def _free_domain() -> int:
    """Claim a ROS domain that no other process of these tests uses, nor robots as a rule.

    Fast DDS maps the segments of the participants that it meets, and drops them late.
    """
    if os.environ.get('ROS_DISTRO') == 'humble':    # has no discovery range
        os.environ['ROS_LOCALHOST_ONLY'] = '1'
    else:
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'OFF'
    # Above 220, the most that tests/conftest.py draws; 232 is the last that DDS has ports for.
    for domain in range(221, 233):
        try:
            _claim.bind(('127.0.0.1', 7400 + 250 * domain))
        except OSError:
            continue
        return domain
    raise RuntimeError('the ROS domains 221 to 232 are all claimed by other tests; end those')


def _segment() -> SharedMemory:
    """Map a segment that has no name any more, so that it goes with the process."""
    segment = SharedMemory(create=True, size=4096)
    segment.unlink()
    return segment


# What a node might forget in each cycle.
LEAKS = {
    'array': lambda: np.ones(100_000, np.uint8),
    'thread': lambda: threading.Thread(target=threading.Event().wait, daemon=True).start(),
    'handle': lambda: os.open(os.devnull, os.O_RDONLY),
    'segment': _segment,
}


if __name__ == '__main__':
    faulthandler.enable()
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    name, style, detector, folder, *leak = sys.argv[1:]
    forget = LEAKS[leak[0]] if leak else lambda: None
    print(json.dumps(measure(CASES[name], [Path(style), Path(detector), Path(folder)], forget)))

"""Two cameras and every stage behind them in this process, and a close look at each."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from rclpy.client import Client
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from sensor_msgs.msg import Image

from muon_ad_msgs.msg import DetectionArray
from muon_ad_msgs.msg import TaskStatus
from muon_ad_msgs.srv import InjectFault
from muon_ad_nodes.bench import Bench
from muon_ad_nodes.nodes import bag_player
from muon_ad_nodes.nodes import csi_camera
from muon_ad_nodes.nodes import frame_sync
from muon_ad_nodes.nodes import object_detector
from muon_ad_nodes.nodes import realsense_camera
from muon_ad_nodes.nodes import style_transfer
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.stamps import nanoseconds

OK = TransitionCallbackReturn.SUCCESS
COLOR, INFO = '/camera/color/image_raw', '/camera/color/camera_info'
DEPTH = '/camera/aligned_depth_to_color/image_raw'
CSI, CSI_INFO = '/image_raw', '/camera_info'
# Which images the tasks work on, by the node that fails.
INPUT = {
    'realsense_camera': (COLOR, INFO),
    'csi_camera': (CSI, CSI_INFO),
    'bag_player': (COLOR, INFO),
}
CAMERAS = {
    'realsense_camera': realsense_camera.make,
    'csi_camera': csi_camera.make,
    'bag_player': bag_player.make,
}
PATIENCE_S = 20.0
# Seconds without a frame until a camera is opened anew.
STALL_S = 1.0


@dataclass(frozen=True)
class Counters:
    """What a node did with images. `lost`: neither used nor counted as unused."""

    received: int
    results: int
    invalid: int
    lost: int


class Stage:
    """A node, what it says, and what it did since `mark`; `other` is a camera that is well.

    `arrivals` are its results, and when each came in steady seconds, since `forget`.
    """

    def __init__(
        self, bench: Bench, node: Node, count: Callable[[Node], Counters], kind: type, topic: str,
        other: Node,
    ) -> None:
        self.node = node
        self.arrivals: list[tuple[float, object]] = []
        self._other = other.monitor
        self._count = lambda: count(node)
        self.forget()
        bench.probe.create_subscription(
            kind, topic, lambda result: self.arrivals.append((time.monotonic(), result)), 50
        )
        self.statuses = bench.listen(
            TaskStatus, f'{node.get_fully_qualified_name()}/status', qos.LATCHED
        )

    def forget(self) -> None:
        """Begin a case."""
        self.arrivals.clear()
        self._values = self._read_values()
        self.mark()

    def mark(self) -> None:
        """Begin to look."""
        self._begun = self._count()
        self._others = self._other.frames

    def wait(self, condition: Callable[['Stage'], bool], what: str) -> None:
        """Wait for a condition of this stage, or fail naming `what` and how it looks."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition(self):
            if time.monotonic() > deadline:
                pytest.fail(f'waited {PATIENCE_S:g} s in vain for {what}: {self}')
            time.sleep(0.005)

    @property
    def pace(self) -> float:
        """Results since, for each image of the other camera."""
        return self.results / max(self._other.frames - self._others, 1)

    def rises(self, key: str) -> bool:
        """Whether a value of the status is higher than when the case began."""
        return self._read_values().get(key, 0.0) > self._values.get(key, 0.0)

    @property
    def results(self) -> int:
        """Results since."""
        return self._count().results - self._begun.results

    @property
    def invalid(self) -> int:
        """Images refused since."""
        return self._count().invalid - self._begun.invalid

    @property
    def lost(self) -> int:
        """Images lost without being counted, ever."""
        return self._count().lost

    @property
    def said(self) -> str:
        """What the newest status says."""
        return self.statuses[-1].message if self.statuses else ''

    def newest(self, count: int) -> list:
        """The newest results."""
        return [result for _, result in self.arrivals[-count:]]

    def __str__(self) -> str:
        return f'{self._count()}, before {self._begun}, says {self.said!r}'

    def _read_values(self) -> dict[str, float]:
        status = TaskStatus()
        self.node.describe(status)
        return {
            value.key: float(value.value) for value in status.values
            if re.fullmatch(r'-?[0-9.]+', value.value)
        }


def count_frames(node: Node) -> Counters:
    """What a camera or a task did."""
    seen = node.monitor
    used = seen.frames + seen.dropped_newer_frames + seen.dropped_invalid_frames
    return Counters(
        seen.received_frames, seen.frames, seen.dropped_invalid_frames,
        seen.received_frames - used,
    )


def count_messages(node: Node) -> Counters:
    """What a bag_player did; what its faults took away or added is counted there."""
    seen, faults = node.monitor, node._faults._plan.counts
    sent = seen.frames - faults['duplicate']
    gone = sum(faults[kind] for kind in ('unplug', 'stall', 'no_info', 'cut off'))
    return Counters(
        seen.received_frames, seen.frames, seen.dropped_invalid_frames,
        seen.received_frames - sent - gone - seen.dropped_invalid_frames,
    )


def count_sets(node: Node) -> Counters:
    """What frame_sync did, all streams together."""
    pairing = node._synchronizer
    counts = {name: pairing.counts(name) for name in node._streams}
    received = sum(each.received for each in counts.values())
    used = sum(each.matched + each.unmatched for each in counts.values())
    waiting = sum(pairing.waiting(name) for name in counts)
    return Counters(
        received, pairing.sets, sum(each.invalid for each in counts.values()),
        received - used - waiting,
    )


class Graph:
    """Two cameras; both tasks behind the one that is to fail; frame_sync behind both."""

    def __init__(self, failing: str, style_model: Path, detector_model: Path, bag: Path) -> None:
        image, info = INPUT[failing]
        names = {
            'style_transfer:image_raw': image,
            'object_detector:image_raw': image,
            'object_detector:camera_info': info,
            'object_detector:aligned_depth/image_raw': DEPTH,
            'frame_sync:color/image_raw': COLOR,
            'frame_sync:color/camera_info': INFO,
            'frame_sync:csi/image_raw': CSI,
            'frame_sync:csi/camera_info': CSI_INFO,
        }
        remaps = [part for name, to in names.items() for part in ('-r', f'{name}:={to}')]
        self.bench = Bench('--ros-args', *remaps)
        style = self._start(style_transfer.make, model=str(style_model), variant='small')
        detector = self._start(object_detector.make, model=str(detector_model))
        sync = self._start(frame_sync.make, streams=['color', 'csi'])
        color = 'realsense_camera' if failing == 'csi_camera' else failing
        cameras = {
            color: self._start(CAMERAS[color], **self._parameters(color, bag)),
            'csi_camera': self._start(csi_camera.make, **self._parameters('csi_camera', bag)),
        }
        camera = cameras.pop(failing)
        self._other, = cameras.values()
        self.plan = camera._faults._plan
        count = count_messages if failing == 'bag_player' else count_frames
        look = {
            'camera': (camera, count, Image, image),
            'style_transfer': (style, count_frames, Image, 'style/image'),
            'object_detector': (detector, count_frames, DetectionArray, 'detections'),
            'frame_sync': (sync, count_sets, Image, 'synced/color/image_raw'),
        }
        self.stages = {
            name: Stage(self.bench, *what, self._other) for name, what in look.items()
        }
        self._injector: Client = self.bench.probe.create_client(
            InjectFault, f'{camera.get_fully_qualified_name()}/inject_fault'
        )
        self.bench.wait(self._injector.service_is_ready, 'the service')

    def inject(self, text: str) -> None:
        """Inject a fault into the camera."""
        reply = self._injector.call_async(InjectFault.Request(fault=text))
        self.bench.wait(reply.done, 'the reply')
        assert reply.result().success, reply.result().message

    def look(self, images: int) -> None:
        """Look at the stages anew, while the camera that is well takes so many images."""
        for stage in self.stages.values():
            stage.mark()
        goal = self._other.monitor.frames + images
        self.bench.wait(lambda: self._other.monitor.frames >= goal, 'images of the other camera')

    def look_until_silent(self, names: list[str], images: int) -> None:
        """Look anew, until a look sees no result of these stages: what was on its way is over."""
        deadline = time.monotonic() + PATIENCE_S
        self.look(images)
        while loud := [name for name in names if self.stages[name].results]:
            if time.monotonic() > deadline:
                pytest.fail(f'results for {PATIENCE_S:g} s still: {loud}')
            self.look(images)

    def close(self) -> None:
        """End the nodes; once they have stopped, no image may be unaccounted for."""
        lost = {}
        for name, stage in self.stages.items():
            assert stage.node.trigger_deactivate() == OK
            lost[name] = stage.lost
        self.bench.close()
        assert not any(lost.values()), f'images that nobody counted: {lost}'

    def _parameters(self, kind: str, bag: Path) -> dict[str, object]:
        profile = '160x120x30'
        return {'faults__enabled': True} | {
            'realsense_camera': {
                'source': 'simulated', 'stall_s': STALL_S,
                'rgb_camera__color_profile': profile, 'depth_module__depth_profile': profile,
            },
            'csi_camera': {
                'source': 'test_pattern', 'stall_s': STALL_S, 'width': 160, 'height': 120,
            },
            'bag_player': {'path': str(bag), 'loop': True, 'restamp': True},
        }[kind]

    def _start(self, make: Callable[[], Node], **parameters) -> Node:
        node = self.bench.run(make, **parameters)
        assert node.trigger_configure() == OK
        assert node.trigger_activate() == OK
        return node


def stamp_error_s(arrival: tuple[float, object]) -> float:
    """By how much a result's stamp differs from when it came in, seconds."""
    at, result = arrival
    wall = time.time() - time.monotonic() + at
    return nanoseconds(result.header.stamp) * 1e-9 - wall

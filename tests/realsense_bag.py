"""Writes the .bag of Intel's SDK, a ROS 1 bag with topics of its own, which it no longer does."""

from pathlib import Path

import numpy as np
from rosbags.rosbag1 import Writer
from rosbags.typesys import get_types_from_msg
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores

STATIC_NS = 1       # the time that marks what describes the device
FPS = 30
SIZE = (96, 72)
FOCAL = 90.0
BASELINE_M = 0.015
# Name of the sensor, of the stream, encoding, bytes a pixel.
SENSORS = (('Stereo Module', 'Depth', 'mono16', 2), ('RGB Camera', 'Color', 'rgb8', 3))


class _Bag:
    """Messages by the short names of their types, written under their topics."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._store = get_typestore(Stores.ROS1_NOETIC)
        self._store.register(get_types_from_msg(
            'uint32 fps\nstring encoding\nbool is_recommended', 'realsense_msgs/msg/StreamInfo'))
        # In reverse, as the first of two types of the same name is the one that is used.
        names = sorted(self._store.types, reverse=True)
        self._types = {name.rpartition('/')[2]: name for name in names}
        self._connections = {}

    def make(self, name, *fields):
        return self._store.types[self._types[name]](*fields)

    def put(self, topic, time_ns, name, *fields):
        message, kind = self.make(name, *fields), self._types[name]
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._store)
        data = self._store.serialize_ros1(message, kind)
        self._writer.write(self._connections[topic], time_ns, data)


def write_bag(path: Path, frames: int) -> Path:
    """Write framesets of one value each: every byte of frame n is n."""
    with Writer(path) as writer:
        bag = _Bag(writer)
        bag.put('/file_version', STATIC_NS, 'UInt32', 4)
        bag.put('/device_0/info', STATIC_NS, 'KeyValue', 'Serial Number', '0123456789')
        for index, sensor in enumerate(SENSORS):
            _describe(bag, f'/device_0/sensor_{index}', *sensor)
        for number in range(frames):
            for index, (_, stream, encoding, depth) in enumerate(SENSORS):
                topic = f'/device_0/sensor_{index}/{stream}_0/image'
                _put_frame(bag, topic, number, encoding, depth)
    return path


def _describe(bag, topic, name, stream, encoding, _depth):
    stamp = bag.make('Time', 0, 0)
    header = bag.make('Header', 0, stamp, '')
    width, height = SIZE
    k = np.array([FOCAL, 0, width / 2, 0, FOCAL, height / 2, 0, 0, 1.0])
    region = bag.make('RegionOfInterest', 0, 0, 0, 0, False)
    right = BASELINE_M if stream == 'Color' else 0.0
    bag.put(f'{topic}/info', STATIC_NS, 'KeyValue', 'Name', name)
    if stream == 'Depth':
        bag.put(f'{topic}/option/Depth Units/value', STATIC_NS, 'Float32', 0.001)
        bag.put(f'{topic}/option/Depth Units/description', STATIC_NS, 'String', 'metres')
    topic = f'{topic}/{stream}_0'
    bag.put(f'{topic}/info', STATIC_NS, 'StreamInfo', FPS, encoding, False)
    bag.put(
        f'{topic}/info/camera_info', STATIC_NS, 'CameraInfo', header, height, width,
        'Brown Conrady', np.zeros(5), k, np.zeros(9), np.zeros(12), 0, 0, region,
    )
    place, turn = bag.make('Vector3', right, 0.0, 0.0), bag.make('Quaternion', 0, 0, 0, 1)
    bag.put(f'{topic}/tf/0', STATIC_NS, 'Transform', place, turn)


def _put_frame(bag, topic, number, encoding, depth):
    width, height = SIZE
    time_ns = 1_000_000 + number * 1_000_000_000 // FPS
    stamp = bag.make('Time', 100 + number // FPS, number % FPS * 1_000_000_000 // FPS)
    header = bag.make('Header', number, stamp, '')
    pixels = np.full(width * height * depth, number, np.uint8)
    bag.put(
        f'{topic}/data', time_ns, 'Image', header, height, width, encoding, 0, width * depth,
        pixels,
    )
    for key, value in (('timestamp_domain', 'Global Time'), ('Actual Exposure', '4000')):
        bag.put(f'{topic}/metadata', time_ns, 'KeyValue', key, value)

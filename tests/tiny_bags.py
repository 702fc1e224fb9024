"""Tiny bags of every kind, for tests: numbered grey images, and one text."""

from pathlib import Path

import numpy as np
from mcap.writer import CompressionType
from mcap.writer import IndexType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores

from muon_ad.bags import BagWriter
from muon_ad.bags import message_class
from muon_ad.bags.types import store

IMAGE = 'sensor_msgs/msg/Image'
TEXT = 'std_msgs/msg/String'
START_NS = 1_700_000_000_000_000_000
STEP_NS = 10_000_000
COUNT = 6

ROSBAG2 = {
    'mcap': {'compression': ''},
    'mcap_chunk': {'compression': 'chunk'},
    'mcap_message': {'compression': 'message'},
    'mcap_file': {'compression': 'file'},
    'sqlite3': {'storage': 'sqlite3', 'compression': ''},
    'sqlite3_message': {'storage': 'sqlite3', 'compression': 'message'},
    'sqlite3_file': {'storage': 'sqlite3', 'compression': 'file'},
}
PLAIN_MCAP = {
    'mcap_lz4': {'compression': CompressionType.LZ4},
    'mcap_no_index': {
        'index_types': IndexType.NONE, 'use_statistics': False, 'use_summary_offsets': False,
        'repeat_channels': False, 'repeat_schemas': False,
    },
    'mcap_no_chunks': {'use_chunking': False},
}
ROS1 = {
    'ros1': None,
    'ros1_bz2': Ros1Writer.CompressionFormat.BZ2,
    'ros1_lz4': Ros1Writer.CompressionFormat.LZ4,
}
KINDS = (*ROSBAG2, *PLAIN_MCAP, *ROS1)


def image(number: int, time_ns: int = 0, size: tuple[int, int] = (16, 12), types=None) -> object:
    """A grey image whose every pixel is `number`, as the message of a bag."""
    types = types or store().types
    width, height = size
    seconds, rest = divmod(time_ns, 1_000_000_000)
    stamp = types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=rest)
    more = {'seq': number} if 'seq' in types['std_msgs/msg/Header'].__annotations__ else {}
    header = types['std_msgs/msg/Header'](stamp=stamp, frame_id='camera', **more)
    data = np.full(width * height, number, np.uint8)
    return types[IMAGE](
        header=header, height=height, width=width, encoding='mono8', is_bigendian=0, step=width,
        data=data,
    )


def messages() -> list[tuple[str, str, int, object]]:
    """What every tiny bag holds, by time: topic, type, time and message."""
    text = message_class(TEXT)(data='hello')
    times = [START_NS + number * STEP_NS for number in range(COUNT)]
    images = [('/image', IMAGE, t, image(number, t)) for number, t in enumerate(times)]
    return sorted([*images, ('/text', TEXT, START_NS + 1, text)], key=lambda item: item[2])


def write(kind: str, folder: Path) -> Path:
    """Write the tiny bag of that kind into `folder`; return its file."""
    if kind in ROS1:
        return _write_ros1(folder / 'tiny.bag', ROS1[kind])
    if kind in PLAIN_MCAP:
        return write_mcap(folder / 'tiny.mcap', **PLAIN_MCAP[kind])
    with BagWriter(folder / 'tiny', **ROSBAG2[kind]) as bag:
        for item in messages():
            bag.write(*item)
    file, = (path for path in (folder / 'tiny').iterdir() if path.name != 'metadata.yaml')
    return file


def write_mcap(
    path: Path, items: list | None = None, rename=str, pack=bytes, **options
) -> Path:
    """Write an MCAP file with the options of that library; `items` in the order given.

    `rename` makes the name of a type as the file has it, `pack` the bytes of a message.
    """
    options = {'compression': CompressionType.NONE, 'chunk_size': 400, **options}
    with path.open('wb') as stream:
        writer = McapWriter(stream, **options)
        writer.start('ros2')
        channels = {}
        for topic, kind, time_ns, message in messages() if items is None else items:
            if topic not in channels:
                definition, _ = store().generate_msgdef(kind, ros_version=2)
                schema = writer.register_schema(rename(kind), 'ros2msg', definition.encode())
                channels[topic] = writer.register_channel(topic, 'cdr', schema)
            data = bytes(store().serialize_cdr(message, kind))
            writer.add_message(channels[topic], time_ns, pack(data), time_ns)
        writer.finish()
    return path


def _write_ros1(path: Path, compression: object) -> Path:
    types = get_typestore(Stores.ROS1_NOETIC)
    writer = Ros1Writer(path)
    writer.chunk_threshold = 400
    if compression is not None:
        writer.set_compression(compression)
    with writer:
        connections = {}
        for topic, kind, time_ns, message in messages():
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=types)
            if kind == IMAGE:
                message = image(int(message.data[0]), time_ns, types=types.types)
            else:
                message = types.types[TEXT](data=message.data)
            writer.write(connections[topic], time_ns, types.serialize_ros1(message, kind))
    return path

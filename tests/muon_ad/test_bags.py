"""Bags of every format are read alike, and what is written opens elsewhere."""

import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
import tiny_bags
import yaml
import zstandard
from mcap.reader import make_reader
from mcap.writer import Writer
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos
from rosbags.interfaces import QosDurability
from rosbags.interfaces import QosHistory
from rosbags.interfaces import QosLiveliness
from rosbags.interfaces import QosReliability
from rosbags.interfaces import QosTime
from rosbags.rosbag2.metadata import dump_qos_v8

from muon_ad.bags import BagError
from muon_ad.bags import BagWriter
from muon_ad.bags import message_class
from muon_ad.bags import open_bag
from muon_ad.bags.types import Channel
from muon_ad.bags.types import codec
from muon_ad.bags.types import is_latched
from muon_ad.bags.types import store
from muon_ad.bags.types import TypeNotKnown

MESSAGES = Path(__file__).resolve().parents[2] / 'ros_ws/src/muon_ad_msgs/msg'
START, STEP, COUNT = tiny_bags.START_NS, tiny_bags.STEP_NS, tiny_bags.COUNT


def numbers(messages) -> list[int]:
    """The grey level of each image: the number it was drawn with."""
    return [int(message.data.data[0]) for message in messages]


@pytest.fixture(params=tiny_bags.KINDS)
def file(request, tmp_path) -> Path:
    """A tiny bag of each kind."""
    return tiny_bags.write(request.param, tmp_path)


def test_every_kind_of_bag_reads_alike(file):
    with open_bag(file) as bag:
        assert bag.topics == {'/image': tiny_bags.IMAGE, '/text': tiny_bags.TEXT}
        assert bag.counts == {'/image': COUNT, '/text': 1}
        assert (bag.start_ns, bag.end_ns) == (START, START + (COUNT - 1) * STEP)
        assert bag.duration_s == pytest.approx((COUNT - 1) * STEP * 1e-9)
        got = list(bag.messages())
        expected = [item[:3] for item in tiny_bags.messages()]
        assert [(m.topic, m.type, m.time_ns) for m in got] == expected
        images = [m for m in got if m.topic == '/image']
        assert numbers(images) == list(range(COUNT))
        header = images[2].data.header
        assert header.stamp.sec * 10**9 + header.stamp.nanosec == images[2].time_ns
        assert header.frame_id == 'camera' and images[2].data.encoding == 'mono8'
        text, = bag.messages(['/text'])
        assert text.data.data == 'hello'
        assert bag.trouble == '' and bag.unreadable == {}


def test_a_part_of_the_time(file):
    with open_bag(file) as bag:
        part = bag.messages(['/image'], START + STEP, START + 3 * STEP)
        assert numbers(part) == [1, 2, 3]
        assert numbers(bag.messages(['/image'], start_ns=START + 5 * STEP)) == [5]
        assert list(bag.messages(end_ns=START - 1)) == []


def test_serialised_messages_are_those_of_ros_2(file):
    with open_bag(file) as bag:
        for message in bag.serialized(['/image']):
            read = store().deserialize_cdr(message.data, message.type)
            assert read.header.frame_id == 'camera' and len(read.data) == 16 * 12


@pytest.mark.parametrize('kind', tiny_bags.ROSBAG2)
def test_a_folder_with_broken_metadata_and_without(tmp_path, kind):
    bag = tiny_bags.write(kind, tmp_path).parent
    with open_bag(bag) as read:
        assert numbers(read.messages(['/image'])) == list(range(COUNT)) and not read.trouble
    (bag / 'metadata.yaml').write_text('rosbag2_bagfile_information: [')
    with open_bag(bag) as read:
        assert numbers(read.messages(['/image'])) == list(range(COUNT))
        assert 'metadata.yaml is not usable' in read.trouble
    (bag / 'metadata.yaml').unlink()
    with open_bag(bag) as read:
        assert numbers(read.messages(['/image'])) == list(range(COUNT)) and not read.trouble


def test_a_bag_in_several_files_is_one(tmp_path):
    items = tiny_bags.messages()
    tiny_bags.write_mcap(tmp_path / 'split_0.mcap', items[::2])
    tiny_bags.write_mcap(tmp_path / 'split_1.mcap', items[1::2])
    with open_bag(tmp_path) as bag:
        assert [m.time_ns for m in bag.messages()] == [item[2] for item in items]
        assert bag.counts == {'/image': COUNT, '/text': 1}
    names = ['split/split_0.mcap', 'split_2.mcap']
    information = {'rosbag2_bagfile_information': {'relative_file_paths': names}}
    (tmp_path / 'metadata.yaml').write_text(yaml.safe_dump(information))
    with open_bag(tmp_path) as bag:
        assert [m.time_ns for m in bag.messages()] == [item[2] for item in items[::2]]
        assert 'split_2.mcap is missing' in bag.trouble


def test_one_file_of_several_that_is_no_bag(tmp_path):
    tiny_bags.write_mcap(tmp_path / 'split_0.mcap')
    (tmp_path / 'split_1.mcap').write_text('nothing')
    with open_bag(tmp_path) as bag:
        assert len(list(bag.messages())) == COUNT + 1
        assert "split_1.mcap: begins with b'nothing'" in bag.trouble


@pytest.mark.parametrize('options', [{}, {'use_chunking': False}, {'chunk_size': 1 << 20}])
def test_messages_out_of_order_come_by_time(tmp_path, options):
    items = tiny_bags.messages()
    path = tiny_bags.write_mcap(tmp_path / 'mixed.mcap', items[::-1], **options)
    with open_bag(path) as bag:
        assert [m.time_ns for m in bag.messages()] == [item[2] for item in items]
        assert bag.start_ns == START


def test_type_names_in_the_style_of_ros_1(tmp_path):
    path = tiny_bags.write_mcap(
        tmp_path / 'old.mcap', rename=lambda kind: kind.replace('/msg/', '/')
    )
    assert b'sensor_msgs/Image' in path.read_bytes()
    with open_bag(path) as bag:
        assert bag.topics == {'/image': tiny_bags.IMAGE, '/text': tiny_bags.TEXT}
        assert numbers(bag.messages(['/image'])) == list(range(COUNT))


@pytest.mark.parametrize('compressor', [lz4.frame.compress, zstandard.compress])
def test_compression_by_message_and_of_the_file(tmp_path, compressor):
    path = tmp_path / 'tiny.mcap'
    tiny_bags.write_mcap(path, pack=compressor)
    with open_bag(path) as bag:
        assert numbers(bag.messages(['/image'])) == list(range(COUNT)) and not bag.trouble
    suffix = compressor.__module__.partition('.')[0].replace('zstandard', 'zstd')
    (tmp_path / f'tiny.mcap.{suffix}').write_bytes(compressor(path.read_bytes()))
    path.unlink()
    with open_bag(tmp_path) as bag:
        assert numbers(bag.messages(['/image'])) == list(range(COUNT)) and not bag.trouble


def test_messages_of_ros_1_in_mcap(tmp_path):
    path = tmp_path / 'converted.mcap'
    with path.open('wb') as stream:
        writer = Writer(stream)
        writer.start('ros1')
        definition = b'Header header\nstring text\n' + b'=' * 80
        definition += b'\nMSG: std_msgs/Header\nuint32 seq\ntime stamp\nstring frame_id\n'
        schema = writer.register_schema('our_msgs/Note', 'ros1msg', definition)
        channel = writer.register_channel('/note', 'ros1', schema)
        data = struct.pack('<IIII3sI5s', 9, 5, 6, 3, b'cam', 5, b'hello')
        writer.add_message(channel, START, data, START)
        writer.finish()
    with open_bag(path) as bag:
        message, = bag.messages()
    assert message.type == 'our_msgs/msg/Note' and message.data.text == 'hello'
    assert message.data.header.stamp.nanosec == 6 and message.data.header.frame_id == 'cam'


def test_channels_that_are_not_of_ros_are_listed(tmp_path):
    path = tmp_path / 'mixed.mcap'
    with path.open('wb') as stream:
        writer = Writer(stream)
        writer.start('')
        for topic, encoding, schema in (
            ('/json', 'json', 0),
            ('/proto', 'protobuf', writer.register_schema('a.B', 'protobuf', b'x')),
        ):
            channel = writer.register_channel(topic, encoding, schema)
            writer.add_message(channel, START, b'{}', START)
        writer.finish()
    with open_bag(path) as bag:
        assert bag.topics == {'/json': '', '/proto': 'a.B'}
        assert bag.counts == {'/json': 1, '/proto': 1}
        assert "messages are 'protobuf'; expected cdr" in bag.unreadable['/proto']
        assert bag.unreadable.keys() == bag.topics.keys()
        assert list(bag.messages()) == [] == list(bag.serialized())


def test_times_that_ros_cannot_have_are_left_out(tmp_path):
    topic, kind, _, message = tiny_bags.messages()[0]
    items = [*tiny_bags.messages(), (topic, kind, 1 << 62, message)]
    with open_bag(tiny_bags.write_mcap(tmp_path / 'late.mcap', items)) as bag:
        assert len(list(bag.messages())) == COUNT + 1
        assert f'its time is {1 << 62} ns, which ROS cannot have' in bag.trouble
        assert bag.end_ns < (1 << 31) * 10**9


def test_a_type_without_a_definition_is_listed_and_the_rest_is_read(tmp_path):
    path = tiny_bags.write('sqlite3', tmp_path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE topics SET type = 'our_msgs/msg/Strange' WHERE name = '/text'")
    database.close()
    with open_bag(path) as bag:
        assert bag.topics['/text'] == 'our_msgs/msg/Strange'
        assert 'our_msgs/msg/Strange has no definition in the bag' in bag.unreadable['/text']
        assert [m.topic for m in bag.messages()] == ['/image'] * COUNT


def test_a_bag_without_definitions_has_the_types_of_ros_2(tmp_path):
    """As every database before Jazzy."""
    path = tiny_bags.write('sqlite3', tmp_path)
    with sqlite3.connect(path) as database:
        database.execute('DROP TABLE message_definitions')
        database.execute('ALTER TABLE topics DROP COLUMN offered_qos_profiles')
        database.execute('ALTER TABLE topics DROP COLUMN type_description_hash')
    database.close()
    with open_bag(path) as bag:
        assert numbers(bag.messages(['/image'])) == list(range(COUNT))


def test_a_type_of_ones_own_is_read_by_its_definition():
    definition = 'float32[] far\nour_msgs/Inner inner\n' + '=' * 80
    definition += '\nMSG: our_msgs/Inner\nint8 near\n'
    channel = Channel('/own', 'our_msgs/msg/Outer', 'cdr', definition, 'ros2msg')
    cdr = b'\0\1\0\0' + np.uint32(2).tobytes() + np.float32([1.5, 2.5]).tobytes() + b'\x07'
    message = codec(channel).decode(cdr)
    assert message.far.tolist() == [1.5, 2.5] and message.inner.near == 7


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({'encoding': 'json'}, "messages are 'json'; expected cdr or ros1"),
        ({'definition': 'float32 ('}, 'definition of our_msgs/msg/It is not usable'),
        ({'definition': 'our_msgs/Gone gone'}, 'is not usable'),
        ({'definition': 'our_msgs/It it'}, 'is not usable'),
        ({'type': 'no name'}, 'no name has no definition'),
    ],
)
def test_types_that_cannot_be_read(changes, expected):
    channel = Channel(**{'topic': '/x', 'type': 'our_msgs/msg/It', 'encoding': 'cdr', **changes})
    with pytest.raises(TypeNotKnown, match=expected):
        codec(channel)


def test_a_latched_topic_is_known_by_its_quality_of_service():
    zero = QosTime(0, 0)
    for durability in (QosDurability.TRANSIENT_LOCAL, QosDurability.VOLATILE):
        profile = Qos(
            QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, durability, zero, zero,
            QosLiveliness.AUTOMATIC, zero, False,
        )
        latched = durability is QosDurability.TRANSIENT_LOCAL
        assert is_latched(dump_qos_v8([profile])) == latched
    assert not is_latched('') and not is_latched('[}') and not is_latched('- 1')


def test_a_topic_that_is_not_there(tmp_path):
    path = tiny_bags.write_mcap(tmp_path / 'tiny.mcap')
    with open_bag(path) as bag, pytest.raises(BagError, match='no topic /nope; it has /image'):
        list(bag.messages(['/nope']))


@pytest.mark.parametrize(
    ('make', 'expected'),
    [
        (lambda path: None, 'no such bag'),
        (lambda path: path.mkdir(), 'no bag in this folder'),
        (lambda path: path.touch(), r'is empty \(0 bytes\)'),
        (lambda path: path.write_text('hello world'), "begins with b'hello wo'; expected MCAP"),
        (lambda path: path.write_text('#ROSBAG V1.2\nhello'), r'ROS 1 \(2.0\)'),
        (lambda path: path.write_bytes(b'SQLite format 3\0' + b'x' * 100), 'not a bag'),
        (lambda path: path.write_bytes(b'\x28\xb5\x2f\xfdxx'), 'stopped at byte 6 of 6'),
    ],
)
def test_what_is_no_bag(tmp_path, make, expected):
    make(tmp_path / 'it')
    with pytest.raises(BagError, match=expected) as caught:
        open_bag(tmp_path / 'it')
    assert f'{tmp_path}/it: ' in str(caught.value)


def detections(count: int) -> object:
    """A message of the suite's own, with nested messages."""
    make = message_class
    point = make('geometry_msgs/msg/Point')(x=1.0, y=2.0, z=3.0)
    found = make('muon_ad_msgs/msg/Detection')(
        x_min=1.0, y_min=2.0, x_max=3.0, y_max=4.0, class_id=7, label='chair', score=0.5,
        position_valid=True, position=point, position_variance=np.array([0.1, 0.2, 0.3]),
    )
    header = tiny_bags.image(0, START).header
    return make('muon_ad_msgs/msg/DetectionArray')(
        header=header, image_width=16, image_height=12, detections=[found] * count
    )


@pytest.mark.parametrize('kind', tiny_bags.ROSBAG2)
def test_what_is_written_opens_with_other_readers(tmp_path, kind):
    own = 'muon_ad_msgs/msg/DetectionArray'
    with BagWriter(tmp_path / 'out', **tiny_bags.ROSBAG2[kind]) as bag:
        bag.write('/detections', own, START, detections(2))
        bag.add_topic('/silent', tiny_bags.TEXT)
    with AnyReader([tmp_path / 'out']) as reader:
        assert reader.topics.keys() == {'/detections', '/silent'}
        (connection, time_ns, data), = reader.messages()
        message = reader.deserialize(data, connection.msgtype)
        assert time_ns == START and [d.label for d in message.detections] == ['chair'] * 2
    with open_bag(tmp_path / 'out') as bag:
        message, = bag.messages()
        assert message.data.detections[1].position.z == 3.0


def test_a_single_file_has_all_that_foxglove_needs(tmp_path):
    with BagWriter(tmp_path / 'out.mcap') as bag:
        for count in range(3):
            bag.write('/d', 'muon_ad_msgs/msg/DetectionArray', START + count, detections(count))
    assert [path.name for path in tmp_path.iterdir()] == ['out.mcap']
    with (tmp_path / 'out.mcap').open('rb') as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        summary = reader.get_summary()
        assert summary.statistics.message_count == 3 and summary.chunk_indexes
        schema, = summary.schemas.values()
        assert schema.encoding == 'ros2msg' and b'MSG: muon_ad_msgs/Detection' in schema.data
        decoded = [item.decoded_message for item in reader.iter_decoded_messages()]
    assert [len(message.detections) for message in decoded] == [0, 1, 2]
    assert decoded[1].detections[0].label == 'chair'


def test_every_message_of_the_suite_is_known():
    names = {f'muon_ad_msgs/msg/{path.stem}' for path in MESSAGES.glob('*.msg')}
    assert names and names <= store().types.keys()


def test_bags_need_no_ros():
    """Not even the message packages: the suite's own types come with the library."""
    code = (
        'import sys, muon_ad.bags, muon_ad.pictures\n'
        "muon_ad.bags.message_class('muon_ad_msgs/msg/TaskStatus')\n"
        "print([n for n in ('rclpy', 'sensor_msgs', 'muon_ad_msgs', 'torch') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True,
        env={**os.environ, 'PYTHONPATH': ':'.join(sys.path)},
    )
    assert done.stdout.strip() == '[]'


def test_nothing_is_left_when_writing_fails(tmp_path):
    with pytest.raises(KeyError), BagWriter(tmp_path / 'out.mcap') as bag:
        bag.write('/image', tiny_bags.IMAGE, START, tiny_bags.image(0))
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('name', 'options', 'expected'),
    [
        ('there', {}, 'exists already'),
        ('x', {'storage': 'csv'}, "storage is 'csv'"),
        ('x', {'compression': 'lzma'}, "compression is 'lzma'"),
        ('x', {'storage': 'sqlite3'}, 'which only storage mcap has'),
        ('x.mcap', {'compression': 'file'}, 'a file of MCAP'),
        ('there/file/x', {}, 'cannot be written'),
    ],
)
def test_what_cannot_be_written(tmp_path, name, options, expected):
    (tmp_path / 'there').mkdir()
    (tmp_path / 'there' / 'file').touch()
    with pytest.raises(BagError, match=expected):
        BagWriter(tmp_path / name, **options)


def test_messages_that_do_not_fit(tmp_path):
    with BagWriter(tmp_path / 'out') as bag:
        bag.write('/text', tiny_bags.TEXT, START, message_class(tiny_bags.TEXT)(data='a'))
        with pytest.raises(BagError, match='/text has type std_msgs/msg/String'):
            bag.write('/text', tiny_bags.IMAGE, START, tiny_bags.image(0))
        with pytest.raises(BagError, match='the message is no sensor_msgs/msg/Image'):
            bag.write('/image', tiny_bags.IMAGE, START, message_class(tiny_bags.TEXT)(data='a'))
        with pytest.raises(BagError, match="'a/b' is no type"):
            bag.write('/other', 'a/b', START, None)

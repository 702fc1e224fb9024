"""The node that plays bags: what arrives, when it starts, pauses and ends, and its time."""

import cv2
import numpy as np
import pytest
import tiny_bags
from geometry_msgs.msg import PointStamped
from rcl_interfaces.msg import Log
from rclpy import Parameter
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from muon_ad.bags import BagWriter
from muon_ad.bags import message_class
from muon_ad.images import to_array
from muon_ad.testing.bags import camera_info
from muon_ad_msgs.msg import DetectionArray
from muon_ad_msgs.msg import TaskStatus
from muon_ad_msgs.srv import InjectFault
from muon_ad_nodes.nodes import bag_player
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.stamps import nanoseconds

OK, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
COUNT, START, STEP = tiny_bags.COUNT, tiny_bags.START_NS, tiny_bags.STEP_NS
DEEP = 100
COMPRESSED = 'sensor_msgs/msg/CompressedImage'


@pytest.fixture
def bag(tmp_path) -> str:
    """A tiny bag of rosbag2."""
    return str(tiny_bags.write('mcap_chunk', tmp_path).parent)


@pytest.fixture
def statuses(bench) -> list[TaskStatus]:
    """What the player tells."""
    return bench.listen(TaskStatus, 'bag_player/status', qos.LATCHED)


def player(bench, path, **parameters):
    """A player that was configured for `path`."""
    node = bench.run(bag_player.make, path=str(path), **parameters)
    assert node.trigger_configure() == OK
    return node


def wait_for_end(bench, statuses) -> str:
    """Wait for the end of the bag; return what the status says."""
    bench.wait(
        lambda: statuses and statuses[-1].message.startswith('end of input'), 'the end of input'
    )
    return statuses[-1].message


def numbers(images) -> list[int]:
    """The grey level of each image: the number it was drawn with."""
    return [int(to_array(image)[0, 0]) for image in images]


def stamps(images) -> list[int]:
    """The stamps in nanoseconds."""
    return [nanoseconds(image.header.stamp) for image in images]


@pytest.mark.parametrize('kind', ['mcap_message', 'sqlite3', 'ros1'])
def test_every_message_arrives_as_it_was(bench, statuses, tmp_path, kind):
    images = bench.listen(Image, '/image', DEEP)
    texts = bench.listen(String, '/text', DEEP)
    node = player(bench, tiny_bags.write(kind, tmp_path), wait_for=['*'])
    assert node.trigger_activate() == OK
    assert wait_for_end(bench, statuses) == f'end of input after {COUNT + 1} messages'
    bench.wait(lambda: len(images) == COUNT and texts, 'all messages')
    assert numbers(images) == list(range(COUNT))
    assert stamps(images) == [START + n * STEP for n in range(COUNT)]
    assert images[0].header.frame_id == 'camera' and texts[0].data == 'hello'
    assert statuses[-1].state == 'active'
    assert statuses[-1].frames == statuses[-1].received == COUNT + 1


def test_it_plays_again_when_it_is_activated_again(bench, statuses, bag):
    images = bench.listen(Image, '/image', DEEP)
    node = player(bench, bag, topics=['/im*'])
    for _ in range(2):
        images.clear()
        statuses.clear()
        assert node.trigger_activate() == OK
        assert wait_for_end(bench, statuses) == f'end of input after {COUNT} messages'
        bench.wait(lambda: len(images) == COUNT, 'all images')
        assert node.trigger_deactivate() == OK
    assert node.trigger_cleanup() == OK


def test_nothing_is_played_before_its_subscribers_are_there(bench, statuses, bag):
    node = player(bench, bag, wait_for=['/image=2', '/text'], wait_for_s=0.0)
    assert node.trigger_activate() == OK
    first = bench.listen(Image, '/image', DEEP)
    texts = bench.listen(String, '/text', DEEP)
    bench.wait(
        lambda: statuses[-1].message == 'waiting for a subscriber of /image', 'the second one'
    )
    assert not first and not texts
    second = bench.listen(Image, '/image', DEEP)
    wait_for_end(bench, statuses)
    bench.wait(lambda: len(first) == len(second) == COUNT and texts, 'all messages, twice')


def test_without_a_limit_it_waits_and_says_for_whom(bench, statuses, bag):
    node = player(bench, bag)
    assert node.settings.wait_for_s == 0.0
    assert node.trigger_activate() == OK
    waiting = 'waiting for a subscriber of any of /image, /text'
    bench.wait(lambda: statuses and statuses[-1].message == waiting, 'the player to wait')
    texts = bench.listen(String, '/text', DEEP)     # that nobody wants the images holds nothing up
    wait_for_end(bench, statuses)
    bench.wait(lambda: texts, 'the text')


def test_without_subscribers_it_plays_in_the_end_and_says_so(bench, statuses, bag):
    images = bench.listen(Image, '/image', DEEP)
    logged = bench.listen(Log, '/rosout', DEEP)
    node = player(bench, bag, wait_for=['/text'], wait_for_s=0.1)
    bench.wait(lambda: node.count_subscribers('/rosout'), 'the log')
    assert node.trigger_activate() == OK
    wait_for_end(bench, statuses)
    bench.wait(lambda: len(images) == COUNT, 'all images')
    bench.wait(
        lambda: any('no subscriber of /text after 0.1 s' in line.msg for line in logged),
        'the warning',
    )


def test_a_sensor_subscriber_is_served_too(bench, statuses, bag):
    images = bench.listen(Image, '/image', qos_profile_sensor_data)
    node = player(bench, bag, rate=0.2)
    assert node.trigger_activate() == OK
    wait_for_end(bench, statuses)
    bench.wait(lambda: numbers(images) == list(range(COUNT)), 'all images')


def test_names_and_the_part_that_is_played(bench, statuses, bag):
    images = bench.listen(Image, '/other/name', DEEP)
    node = player(
        bench, bag, topics=['/image'], remap=['/image:=/other/name'],
        start_offset_s=0.015, duration_s=0.02,
    )
    assert node.trigger_activate() == OK
    assert wait_for_end(bench, statuses) == 'end of input after 2 messages'
    bench.wait(lambda: len(images) == 2, 'two images')
    assert numbers(images) == [2, 3]


def test_services_pause_step_and_resume(bench, statuses, bag):
    images = bench.listen(Image, '/image', DEEP)
    node = player(bench, bag, start_paused=True, topics=['/image'])

    def call(name: str) -> Trigger.Response:
        client = bench.probe.create_client(Trigger, f'bag_player/{name}')
        bench.wait(client.service_is_ready, f'the service {name}')
        future = client.call_async(Trigger.Request())
        bench.wait(future.done, f'an answer of {name}')
        return future.result()

    assert not call('pause').success and 'not active' in call('play_next').message
    assert node.trigger_activate() == OK
    bench.wait(lambda: node._timeline.paused and node._sender.subscribers['/image'], 'a match')
    for number in range(2):
        assert call('play_next').success
        bench.wait(lambda n=number: numbers(images) == list(range(n + 1)), 'one image')
    assert call('toggle_paused').message == 'playing'
    wait_for_end(bench, statuses)
    bench.wait(lambda: numbers(images) == list(range(COUNT)), 'the rest')
    assert call('pause').message == 'paused'
    refused = call('resume'), call('play_next')
    assert refused[0].success and not refused[1].success


def test_the_clock_leads_every_message_and_ends_with_the_last(bench, statuses, bag):
    events = []
    bench.probe.create_subscription(
        Clock, '/clock', lambda m: events.append(('clock', nanoseconds(m.clock))), DEEP
    )
    bench.probe.create_subscription(
        Image, '/image', lambda m: events.append(('image', nanoseconds(m.header.stamp))), DEEP
    )
    node = player(bench, bag, topics=['/image'], clock_hz=200.0, rate=0.2)
    bench.wait(lambda: node.count_subscribers('/clock'), 'the clock to be heard')
    assert node.trigger_activate() == OK
    wait_for_end(bench, statuses)
    last = START + (COUNT - 1) * STEP
    bench.wait(lambda: ('clock', last) in events and ('image', last) in events, 'the last image')
    clocks = [value for name, value in events if name == 'clock']
    assert clocks == sorted(clocks) and clocks[0] == START and clocks[-1] == last
    # Between the images too: 10 ms of the bag take 50 ms here, in which the clock ticks.
    assert len(set(clocks)) > COUNT


def test_a_loop_begins_anew_and_new_stamps_go_on(bench, bag):
    images = bench.listen(Image, '/image', DEEP)
    node = player(bench, bag, topics=['/image'], loop=True, restamp=True)
    before = node.get_clock().now().nanoseconds
    assert node.trigger_activate() == OK
    bench.wait(lambda: len(images) > 2 * COUNT, 'three rounds')
    assert node.trigger_deactivate() == OK
    assert numbers(images)[:2 * COUNT] == [*range(COUNT), *range(COUNT)]
    made = stamps(images)
    assert made == sorted(set(made))
    assert before < made[0] and made[-1] <= node.get_clock().now().nanoseconds
    # Distances are those of the recording, however late a message was sent.
    assert np.diff(made[:COUNT]).tolist() == [STEP] * (COUNT - 1)


def test_a_loop_of_one_message_is_no_flood(bench, tmp_path):
    with BagWriter(tmp_path / 'one') as writer:
        writer.write('/image', tiny_bags.IMAGE, START, tiny_bags.image(0, START))
    images = bench.listen(Image, '/image', DEEP)
    node = player(bench, tmp_path / 'one', loop=True, restamp=True, rate=4.0)
    assert node.trigger_activate() == OK
    bench.wait(lambda: len(images) > 2, 'three rounds')
    assert (np.diff(stamps(images)) > 0.2e9).all()      # a second, at this rate


def test_the_rate_can_be_changed_while_it_plays(bench, statuses, bag):
    bench.listen(Image, '/image', DEEP)
    node = player(bench, bag, rate=0.01)    # five seconds
    assert node.trigger_activate() == OK
    bench.wait(lambda: node.monitor.frames > 0, 'the first message')
    result, = node.set_parameters([Parameter('rate', value=100.0)])
    assert result.successful
    wait_for_end(bench, statuses)


def compressed(format_text: str, data: bytes):
    """A CompressedImage as the message of a bag."""
    return message_class(COMPRESSED)(
        header=tiny_bags.image(0, START).header, format=format_text,
        data=np.frombuffer(data, np.uint8),
    )


def write_compressed(folder) -> str:
    """A bag with a jpeg, a compressed depth image, and one that is broken."""
    color = cv2.imencode('.jpg', np.full((16, 16, 3), (0, 0, 250), np.uint8))[1].tobytes()
    depth = bytes(12) + cv2.imencode('.png', np.full((4, 6), 1234, np.uint16))[1].tobytes()
    with BagWriter(folder / 'compressed') as writer:
        for topic, message in (
            ('/cam/image_raw/compressed', compressed('rgb8; jpeg compressed bgr8', color)),
            ('/cam/depth/compressedDepth', compressed('16UC1; compressedDepth', depth)),
            ('/cam/image_raw/compressed', compressed('rgb8; jpeg compressed bgr8', b'no jpeg')),
        ):
            writer.write(topic, COMPRESSED, START, message)
    return str(folder / 'compressed')


def test_compressed_images_come_out_raw(bench, statuses, tmp_path):
    images = bench.listen(Image, '/front', DEEP)
    depths = bench.listen(Image, '/cam/depth', DEEP)
    node = player(
        bench, write_compressed(tmp_path), wait_for=['*'], remap=['/cam/image_raw:=/front']
    )
    assert node.trigger_activate() == OK
    assert wait_for_end(bench, statuses) == 'end of input after 2 messages'
    bench.wait(lambda: images and depths, 'both images')
    red = to_array(images[0])
    assert images[0].encoding == 'rgb8' and red[8, 8, 0] > 240 and red[8, 8, 2] < 10
    assert depths[0].encoding == '16UC1' and (to_array(depths[0]) == 1234).all()
    assert stamps(images + depths) == [START, START]
    assert statuses[-1].dropped_invalid == 1 and statuses[-1].received == 3


def test_compressed_images_stay_so_when_asked(bench, statuses, tmp_path):
    images = bench.listen(CompressedImage, '/cam/image_raw/compressed', DEEP)
    node = player(bench, write_compressed(tmp_path), decompress=False)
    assert node.trigger_activate() == OK
    wait_for_end(bench, statuses)
    bench.wait(lambda: len(images) == 2, 'both images')
    assert bytes(images[1].data) == b'no jpeg'


def test_what_is_not_installed_is_left_out_and_listed(bench, statuses, tmp_path):
    path = tiny_bags.write_mcap(
        tmp_path / 'own.mcap', rename=lambda kind: kind.replace('std_msgs', 'our_msgs')
    )
    images = bench.listen(Image, '/image', DEEP)
    node = player(bench, path)
    assert node.trigger_activate() == OK
    assert wait_for_end(bench, statuses) == f'end of input after {COUNT} messages'
    bench.wait(lambda: len(images) == COUNT, 'all images')
    values = {value.key: value.value for value in statuses[-1].values}
    assert values['left out /text'] == 'our_msgs/msg/String is not installed'
    assert values['bag'] == str(path) and values['position_s'] == '0.050'


def test_a_topic_whose_name_cannot_be_is_left_out(bench, statuses, tmp_path):
    _, kind, time_ns, text = tiny_bags.messages()[1]
    items = [*tiny_bags.messages(), ('/no/such name', kind, time_ns, text)]
    path = tiny_bags.write_mcap(tmp_path / 'odd.mcap', items)
    bench.listen(Image, '/image', DEEP)
    node = player(bench, path)
    assert node.trigger_activate() == OK
    assert wait_for_end(bench, statuses) == f'end of input after {COUNT + 1} messages'
    values = {value.key: value.value for value in statuses[-1].values}
    assert 'nvalid' in values['left out /no/such name']


def test_latched_messages_are_there_for_who_comes_late(bench, statuses, tmp_path):
    with BagWriter(tmp_path / 'latched') as writer:
        text = message_class('std_msgs/msg/String')
        writer.write('/robot_description', tiny_bags.TEXT, START, text(data='<robot/>'))
        for number in range(3):
            time_ns = START + number * 10**9
            writer.write('/image', tiny_bags.IMAGE, time_ns, tiny_bags.image(number, time_ns))
    images = bench.listen(Image, '/image', DEEP)
    node = player(bench, tmp_path / 'latched', start_offset_s=1.5)
    assert node.trigger_activate() == OK
    assert wait_for_end(bench, statuses) == 'end of input after 2 messages'
    bench.wait(lambda: numbers(images) == [2], 'the last image')
    texts = bench.listen(String, '/robot_description', qos.LATCHED)
    bench.wait(lambda: [t.data for t in texts] == ['<robot/>'], 'the latched message')


def test_messages_of_the_suite_are_played(bench, statuses, tmp_path):
    make = message_class
    header = tiny_bags.image(0, START).header
    array = make('muon_ad_msgs/msg/DetectionArray')(
        header=header, image_width=3, image_height=4, detections=[]
    )
    point = make('geometry_msgs/msg/PointStamped')(
        header=header, point=make('geometry_msgs/msg/Point')(x=1.0, y=2.0, z=3.0)
    )
    with BagWriter(tmp_path / 'own') as writer:
        writer.write('/detections', 'muon_ad_msgs/msg/DetectionArray', START, array)
        writer.write('/point', 'geometry_msgs/msg/PointStamped', START, point)
    arrays = bench.listen(DetectionArray, '/detections', DEEP)
    points = bench.listen(PointStamped, '/point', DEEP)
    node = player(bench, tmp_path / 'own', wait_for=['*'], restamp=True)
    assert node.trigger_activate() == OK
    wait_for_end(bench, statuses)
    bench.wait(lambda: arrays and points, 'both')
    assert arrays[0].image_height == 4 and points[0].point.y == 2.0
    assert arrays[0].header.stamp == points[0].header.stamp     # equal before, equal now


def test_a_truncated_bag_is_played_up_to_there(bench, statuses, tmp_path):
    path = tiny_bags.write_mcap(tmp_path / 'cut.mcap')
    content = path.read_bytes()
    size = content.index(bytes([3] * 20))
    path.write_bytes(content[:size])
    images = bench.listen(Image, '/image', DEEP)
    node = player(bench, path)
    assert node.trigger_activate() == OK
    ended = wait_for_end(bench, statuses)
    assert ended.startswith('end of input after 4 messages; cut.mcap: stopped at byte ')
    assert f'of {size}: ' in ended
    bench.wait(lambda: numbers(images) == [0, 1, 2], 'three images')


def test_faults_are_done_to_what_is_played(bench, statuses, bag):
    images = bench.listen(Image, '/image', DEEP)
    node = player(
        bench, bag, topics=['/image'], faults__enabled=True,
        faults__schedule=['duplicate at=0 for=60 every=1 stream=/im*'],
    )
    assert node.trigger_activate() == OK
    assert wait_for_end(bench, statuses) == f'end of input after {2 * COUNT} messages'
    bench.wait(lambda: len(images) == 2 * COUNT, 'every image twice')
    assert numbers(images) == sorted([*range(COUNT), *range(COUNT)])
    assert statuses[-1].frames == 2 * COUNT and statuses[-1].received == COUNT


def write_cameras(folder) -> str:
    """A bag with images, a single camera_info before them, and a text behind every tenth."""
    info = camera_info(60.0, 16, 12, tiny_bags.image(0, START).header)
    with BagWriter(folder / 'camera') as writer:
        writer.write('/camera_info', 'sensor_msgs/msg/CameraInfo', START, info)
        for number in range(30):
            time_ns = START + number * STEP
            writer.write('/image', tiny_bags.IMAGE, time_ns, tiny_bags.image(number, time_ns))
            if number % 10 == 0:
                text = message_class(tiny_bags.TEXT)(data=str(number))
                writer.write('/text', tiny_bags.TEXT, time_ns, text)
    return str(folder / 'camera')


@pytest.mark.parametrize(
    ('fault', 'order'),
    [
        ('late_info ms=60 for=10', ['0', '10', '20']),
        ('slow ms=500 for=10', ['0', '10', '20']),      # longer than the bag
        ('reorder every=3 for=10 stream=/text', ['0', '10', '20']),
        ('reorder every=2 for=10', ['0', '20', '10']),
    ],
)
def test_what_faults_hold_back_is_late_and_not_lost(bench, statuses, tmp_path, fault, order):
    images = bench.listen(Image, '/image', DEEP)
    infos = bench.listen(CameraInfo, '/camera_info', DEEP)
    texts = bench.listen(String, '/text', DEEP)
    node = player(
        bench, write_cameras(tmp_path), wait_for=['*'], faults__enabled=True,
        faults__schedule=[fault],
    )
    assert node.trigger_activate() == OK
    assert wait_for_end(bench, statuses) == 'end of input after 34 messages'
    bench.wait(lambda: len(images) == 30 and len(texts) == 3 and infos, 'all messages')
    assert [text.data for text in texts] == order
    assert sorted(numbers(images)) == list(range(30))
    assert statuses[-1].frames == statuses[-1].received == 34
    assert 'fault cut off' not in {value.key for value in statuses[-1].values}


def test_a_late_message_does_not_wait_for_the_next_of_its_topic(bench, bag):
    texts = bench.listen(String, '/text', DEEP)
    node = player(
        bench, bag, topics=['/text', '/image'], rate=0.01, wait_for=['/text'],
        faults__enabled=True, faults__schedule=['slow ms=50 for=60 stream=/text'],
    )
    assert node.trigger_activate() == OK
    bench.wait(lambda: texts, 'the late text')
    assert node.monitor.received_frames < COUNT + 1, 'the bag is not over'


def test_faults_are_refused_unless_enabled(bench, bag):
    node = player(bench, bag)
    assert node.trigger_activate() == OK
    client = bench.probe.create_client(InjectFault, 'bag_player/inject_fault')
    bench.wait(client.service_is_ready, 'the service')
    future = client.call_async(InjectFault.Request(fault='stall for=2'))
    bench.wait(future.done, 'an answer')
    assert not future.result().success and 'not enabled' in future.result().message


@pytest.mark.parametrize(
    ('parameters', 'expected'),
    [
        ({'path': ''}, 'parameter path is empty'),
        ({'path': '/no/such'}, 'parameter path: /no/such: no such bag; expected'),
        ({'path': __file__}, f'parameter path: {__file__}: begins with'),
        ({'start_offset_s': 0.06}, 'parameter start_offset_s: start is 0.06 s, after the end; '
         'expected at most 0.05 s'),
        ({'topics': ['/nope']}, "parameter topics has '/nope'; the bag has /image, /text"),
        ({'remap': ['/image=/x']}, "parameter remap has '/image=/x'; expected from:=to"),
        ({'remap': ['/nope:=/x']}, "parameter remap has '/nope:=/x'"),
        ({'remap': ['/image:=/text']}, 'both as /text'),
        ({'remap': ['/image:=/a b']}, "parameter remap has '/image:=/a b'; expected another name"),
        ({'wait_for': ['/nope']}, "parameter wait_for has '/nope'; expected"),
        ({'wait_for': ['/image=x']}, "parameter wait_for has '/image=x'; expected"),
        ({'wait_for': ['/image=0']}, "parameter wait_for has '/image=0'; expected"),
        ({'clock_hz': 10.0, 'use_sim_time': True}, 'parameter use_sim_time is true'),
        ({'faults.enabled': True, 'faults.schedule': ['boom']}, 'parameter faults.schedule'),
        ({'faults.schedule': ['no_info']}, 'the streams here with camera_info are none'),
        ({'faults.schedule': ['short stream=/text']}, 'the streams here with images are /image'),
    ],
)
def test_bad_parameters_fail_configure(bench, statuses, bag, parameters, expected):
    given = {name.replace('.', '__'): value for name, value in {'path': bag, **parameters}.items()}
    node = bench.run(bag_player.make, **given)
    assert node.trigger_configure() == FAILED
    bench.wait(lambda: any(expected in status.message for status in statuses), 'the reason')
    assert node._sender is None and node._bag is None


def test_hours_of_silence_are_passed_over(bench, statuses, tmp_path):
    day_ns = 24 * 3600 * 10**9
    with BagWriter(tmp_path / 'long') as writer:
        for number in range(2):
            time_ns = START + number * day_ns
            writer.write('/image', tiny_bags.IMAGE, time_ns, tiny_bags.image(number, time_ns))
    images = bench.listen(Image, '/image', DEEP)
    node = player(bench, tmp_path / 'long')
    assert node.trigger_activate() == OK
    wait_for_end(bench, statuses)
    bench.wait(lambda: numbers(images) == [0, 1], 'both images')


def test_a_waiting_player_can_be_stopped(bench, bag):
    node = player(bench, bag, rate=0.01, wait_for_s=0.0)
    assert node.trigger_activate() == OK
    assert node.trigger_deactivate() == OK
    bench.listen(Image, '/image', DEEP)
    assert node.trigger_activate() == OK
    bench.wait(lambda: node.monitor.frames > 0, 'the first message')
    assert node.trigger_deactivate() == OK
    assert node.monitor.frames < COUNT

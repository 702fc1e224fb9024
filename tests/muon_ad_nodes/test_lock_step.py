"""Bags played to nodes in lock-step: results by stamp, drops by deadline, time from the bag."""

from pathlib import Path

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PointStamped
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from std_msgs.msg import Float64

from muon_ad.bags import BagError
from muon_ad.bags import BagWriter
from muon_ad.faults import FaultError
from muon_ad.replay import messages
from muon_ad.testing.result import stored
from muon_ad_msgs.msg import DetectionArray
from muon_ad_nodes.nodes import object_detector
from muon_ad_nodes.nodes import style_transfer
from muon_ad_nodes.parts import qos

SCENE = Path(__file__).parents[1] / 'replay' / 'data' / 'scene.mcap'
TO_NODES = {
    '/camera/color/image_raw': '/image_raw',
    '/camera/color/camera_info': '/camera_info',
    '/camera/aligned_depth_to_color/image_raw': '/aligned_depth/image_raw',
}
OUTPUT = {'/brightness': PointStamped}


class Brightness(Node):
    """A robot's own node: answers every image, but every `skip`-th, with its first pixel.

    In y it tells the newest depth, in z its clock.
    """

    def __init__(self, skip=0):
        super().__init__('brightness')
        self.skip, self.seen, self.depth = skip, 0, 0
        self.create_subscription(Image, 'image_raw', self.on_image, qos.SENSOR)
        self.create_subscription(Image, 'depth', self.on_depth, qos.SENSOR)
        self.answer = self.create_publisher(PointStamped, 'brightness', qos.PUBLISH)
        self.plain = self.create_publisher(Float64, 'plain', 10)

    def on_depth(self, message):
        self.depth = int(message.data[0])

    def on_image(self, message):
        self.seen += 1
        if self.skip and self.seen % self.skip == 0:
            return
        answer = PointStamped(header=message.header)
        answer.point.x = float(message.data[0])
        answer.point.y = float(self.depth)
        answer.point.z = self.get_clock().now().nanoseconds * 1e-9
        self.answer.publish(answer)
        self.plain.publish(Float64(data=answer.point.x))


class Odd(Node):
    """Answers each image with a number, in the way that `answer(publisher, image)` does."""

    def __init__(self, answer, kind=PointStamped):
        super().__init__('odd')
        self.publisher = self.create_publisher(kind, 'answer', 10)
        self.create_subscription(
            Image, 'image_raw', lambda image: answer(self.publisher, image), qos.SENSOR
        )


class Ticking(Node):
    """Answers the newest image at each tick of its clock, with the time of that."""

    def __init__(self):
        super().__init__('ticking')
        self.newest = None
        self.create_subscription(Image, 'image_raw', self.on_image, qos.SENSOR)
        self.publisher = self.create_publisher(PointStamped, 'answer', 10)
        self.create_timer(0.05, self.tick)

    def on_image(self, image):
        self.newest = image

    def tick(self):
        if self.newest is not None:
            answer = PointStamped(header=self.newest.header)
            answer.point.x = self.get_clock().now().nanoseconds * 1e-9
            self.publisher.publish(answer)
            self.newest = None


class Copier(Node):
    """Publishes every compressed image again."""

    def __init__(self):
        super().__init__('copier')
        publisher = self.create_publisher(CompressedImage, 'copy', 10)
        self.create_subscription(
            CompressedImage, 'image_raw/compressed', publisher.publish, qos.SENSOR
        )


def shades(count=5):
    return [np.full((6, 8, 3), 10 * number, np.uint8) for number in range(count)]


def test_every_image_is_answered_before_the_next(make_bag, node_bench):
    node_bench.start(Brightness)
    result = node_bench.play(make_bag(shades(20)), OUTPUT)
    result.assert_no_drops()
    assert [m.point.x for m in result.outputs('/brightness')] == list(range(0, 200, 10))
    assert [outcome.number for outcome in result.outcomes] == list(range(20))
    assert all(outcome.latency_ms > 0 for outcome in result.outcomes)
    assert result.rate_hz > 0


def test_what_a_node_does_not_answer_is_a_drop(make_bag, node_bench):
    node_bench.start(lambda: Brightness(skip=3))
    result = node_bench.play(make_bag(shades(7)), OUTPUT, deadline_s=0.2)
    assert [outcome.number for outcome in result.outcomes if outcome.dropped] == [2, 5]
    result.assert_no_drops(at_most=2)
    with pytest.raises(AssertionError) as failed:
        result.assert_no_drops()
    assert str(failed.value).splitlines() == [
        '2 of 7 images were dropped; the limit is 0',
        '2 of them: no result on /brightness within 0.2 s',
        'first: image 2 of /image_raw (stamp 1700000000.200 s)',
    ]


def test_what_a_callback_raises_fails_the_test(make_bag, node_bench):
    node = node_bench.start(Brightness)
    node.answer = None
    with pytest.raises(AttributeError, match='publish'):
        node_bench.play(make_bag(shades()), OUTPUT, deadline_s=60.0)


def test_faults_on_the_way_to_a_node(make_bag, node_bench):
    node_bench.start(Brightness)
    result = node_bench.play(
        make_bag(shades(8)), OUTPUT, faults=['stall at=0.25 for=0.2 stream=/image_raw']
    )
    dropped = [outcome for outcome in result.outcomes if outcome.dropped]
    assert [outcome.number for outcome in dropped] == [3, 4]
    assert dropped[0].dropped == 'lost or held back by a fault'
    assert result.notes == ['2 messages touched by stall']


def test_image_that_cannot_be_decoded(tmp_path, node_bench):
    header = messages.header(1, 'lens')
    with BagWriter(tmp_path / 'b.mcap') as bag:
        for number in range(2):
            picture = messages.png(shades(1)[0], header)
            picture.data = picture.data if number else picture.data[:40]
            bag.write('/image_raw/compressed', 'sensor_msgs/msg/CompressedImage', number, picture)
    node_bench.start(Brightness)
    result = node_bench.play(tmp_path / 'b.mcap', OUTPUT)
    assert [bool(outcome.dropped) for outcome in result.outcomes] == [True, False]
    assert result.outcomes[0].dropped.startswith('/image_raw/compressed: data is')


def test_result_without_a_header_belongs_to_the_last_input(make_bag, node_bench):
    node_bench.start(Brightness)
    for results in ({'/plain': Float64}, {**OUTPUT, '/plain': Float64}):
        result = node_bench.play(make_bag(shades()), results)
        result.assert_no_drops()
        assert [m.data for m in result.outputs('/plain')] == [0, 10, 20, 30, 40]


@pytest.mark.parametrize('late_ms', [-20, 20])
def test_what_belongs_to_an_image_is_there_before_it(tmp_path, node_bench, late_ms):
    """Depth of the same stamp, though it may have been recorded after its image."""
    with BagWriter(tmp_path / 'b.mcap') as bag:
        for number, picture in enumerate(shades()):
            time_ns = (1 + number) * 100_000_000
            header = messages.header(time_ns, 'lens')
            depth = np.full((6, 8), 100 + number, np.uint16)
            bag.write('/image_raw', 'sensor_msgs/msg/Image', time_ns,
                      messages.image(picture, 'rgb8', header))
            bag.write('/depth', 'sensor_msgs/msg/Image', time_ns + late_ms * 1_000_000,
                      messages.image(depth, '16UC1', header))
    node_bench.start(Brightness)
    result = node_bench.play(tmp_path / 'b.mcap', OUTPUT)
    result.assert_no_drops()
    assert [m.point.y for m in result.outputs('/brightness')] == [100, 101, 102, 103, 104]


def test_time_of_the_bag(make_bag, node_bench):
    """A node with use_sim_time stamps with the time of the bag, also in a second run."""
    node_bench.start(Brightness, use_sim_time=True)
    bag = make_bag(shades())
    for _ in range(2):
        result = node_bench.play(bag, OUTPUT, start_s=0.1, duration_s=0.2)
        result.assert_no_drops()
        clocks = [m.point.z for m in result.outputs('/brightness')]
        np.testing.assert_allclose(clocks, 1_700_000_000 + np.array([0.1, 0.2, 0.3]), atol=1e-3)


def test_compressed_pictures_are_decoded_unless_asked_not_to(make_bag, node_bench):
    bag = make_bag(shades(), compressed=True)
    node_bench.start(Brightness)
    result = node_bench.play(bag, OUTPUT)
    assert [m.point.x for m in result.outputs('/brightness')] == [0, 10, 20, 30, 40]
    node_bench.start(Copier)
    copied = node_bench.play(bag, {'/copy': CompressedImage}, decode=False)
    assert [m.format for m in copied.outputs('/copy')] == ['rgb8; png compressed bgr8'] * 5


def test_what_does_not_fit_is_told(make_bag, node_bench):
    bag = make_bag(shades())
    node_bench.start(Brightness)
    with pytest.raises(pytest.fail.Exception, match=r'no node subscribes /eye.*/image_raw'):
        node_bench.play(bag, OUTPUT, remap={'/image_raw': '/eye'})
    with pytest.raises(pytest.fail.Exception, match=r'no node publishes /mood.*/brightness'):
        node_bench.play(bag, {'/mood': PointStamped})
    with pytest.raises(ValueError, match='results is empty'):
        node_bench.play(bag, {})
    with pytest.raises(BagError, match=r"no topic \['/eye'\]"):
        node_bench.play(bag, OUTPUT, inputs='/eye')
    with pytest.raises(AssertionError, match='object_detector does not configure'):
        node_bench.start(object_detector.make, model='/nowhere')


ANSWER = {'/answer': PointStamped}


def test_first_result_of_an_image_counts_and_others_are_told(make_bag, node_bench):
    def twice(publisher, image):
        for number in (1.0, 2.0, 3.0):
            answer = PointStamped(header=image.header)
            answer.point.x = number
            publisher.publish(answer)

    node_bench.start(lambda: Odd(twice))
    result = node_bench.play(make_bag(shades(10)), ANSWER)
    result.assert_no_drops()
    assert [answer.point.x for answer in result.outputs('/answer')] == [1.0] * 10
    assert [outcome.extra for outcome in result.outcomes] == [2] * 10
    assert result.notes == [
        '/answer: 20 results more than one an image, which are left out; first at image 0 of '
        '/image_raw (stamp 1700000000.000 s)'
    ]


def test_extra_results_without_a_header(make_bag, node_bench):
    def twice(publisher, image):
        for number in (0.0, 0.5):
            publisher.publish(Float64(data=image.data[0] + number))

    node_bench.start(lambda: Odd(twice, Float64))
    result = node_bench.play(make_bag(shades(10)), {'/answer': Float64})
    assert [each.data for each in result.outputs('/answer')] == list(range(0, 100, 10))
    assert [outcome.extra for outcome in result.outcomes] == [1] * 10


def test_stamps_of_no_image_and_topics_that_never_answer(make_bag, node_bench):
    """Of the many images only the first few are waited for in full."""
    node_bench.start(lambda: Odd(lambda publisher, _: publisher.publish(PointStamped())))
    result = node_bench.play(make_bag(shades(6)), ANSWER, deadline_s=0.5)
    reasons = [outcome.dropped for outcome in result.outcomes]
    assert reasons == [f'no result on /answer within {s} s' for s in ['0.5'] * 3 + ['0.2'] * 3]
    with pytest.raises(AssertionError) as failed:
        result.assert_no_drops()
    assert '6 results came with stamps of no image, such as 0.000 s' in str(failed.value)
    assert 'never a result; after 3 images it was waited for only 0.2 s' in str(failed.value)
    assert result.outputs('/answer') == []
    with pytest.raises(ValueError, match=r"no results are of /typo; topics are \['/answer'\]"):
        result.outputs('/typo')


def test_topic_that_has_answered_is_waited_for_in_full(make_bag, node_bench):
    """Though its first answer comes late, and others stay out again."""
    def seldom(publisher, image):
        if image.data[0] == 40:
            publisher.publish(PointStamped(header=image.header))

    node_bench.start(lambda: Odd(seldom))
    result = node_bench.play(make_bag(shades(6)), ANSWER, deadline_s=0.3)
    limits = [outcome.dropped[-5:] for outcome in result.outcomes]
    assert limits == ['0.3 s', '0.3 s', '0.3 s', '0.2 s', '', '0.3 s']
    assert result.notes == []


def test_failure_names_the_image(make_bag, node_bench):
    def leave(publisher, image):
        if image.data[0] == 20:
            raise SystemExit(3)
        publisher.publish(PointStamped(header=image.header))

    node_bench.start(lambda: Odd(leave))
    where = r'/image_raw in node odd, at image 2 of /image_raw \(stamp 1700000000.200 s\) called'
    with pytest.raises(pytest.fail.Exception, match=where):
        node_bench.play(make_bag(shades()), ANSWER)


def test_timer_in_the_time_of_the_bag(make_bag, node_bench):
    node_bench.start(Ticking, use_sim_time=True)
    result = node_bench.play(make_bag(shades()), ANSWER)
    result.assert_no_drops()
    ticks = [answer.point.x - 1_700_000_000 for answer in result.outputs('/answer')]
    for number, tick in enumerate(ticks):
        assert 0.1 * number < tick < 0.1 * (number + 1)


def test_faults_that_nothing_comes_of(make_bag, node_bench):
    node_bench.start(Brightness)
    bag = make_bag(shades())
    with pytest.raises(FaultError, match="stream is 'color'; the streams here are /image_raw"):
        node_bench.play(bag, OUTPUT, faults=['stall at=0.1 stream=color'])
    result = node_bench.play(bag, OUTPUT, faults=['stall at=50'])
    result.assert_no_drops()
    note, = result.notes
    assert 'touched nothing: it begins after the end, at 0.400 s' in note


def test_compressed_topic_of_any_name(tmp_path, node_bench):
    """Decoded where the nodes subscribe it as Image; else as it is."""
    with BagWriter(tmp_path / 'b.mcap') as bag:
        for number, picture in enumerate(shades()):
            message = messages.png(picture, messages.header(number + 1, 'lens'))
            bag.write('/eye/packed', 'sensor_msgs/msg/CompressedImage', number, message)
    node_bench.start(Brightness)
    result = node_bench.play(tmp_path / 'b.mcap', OUTPUT, remap={'/eye/packed': '/image_raw'})
    assert [m.point.x for m in result.outputs('/brightness')] == [0, 10, 20, 30, 40]
    node_bench.start(Copier)
    copied = node_bench.play(
        tmp_path / 'b.mcap', {'/copy': CompressedImage},
        remap={'/eye/packed': '/image_raw/compressed'},
    )
    copied.assert_no_drops()


def test_types_that_do_not_fit(make_bag, node_bench):
    node_bench.start(Brightness)
    bag = make_bag(shades(), compressed=True)
    with pytest.raises(pytest.fail.Exception, match=(
        'node brightness publishes /brightness as geometry_msgs/msg/PointStamped; '
        'results has std_msgs/msg/Float64'
    )):
        node_bench.play(bag, {'/brightness': Float64})
    with pytest.raises(pytest.fail.Exception, match=(
        'node brightness subscribes /image_raw as sensor_msgs/msg/Image; /image_raw/compressed '
        'of the bag is played on it as sensor_msgs/msg/CompressedImage; see remap and decode'
    )):
        node_bench.play(bag, OUTPUT, remap={'/image_raw/compressed': '/image_raw'}, decode=False)
    with pytest.raises(ValueError, match='results is .*expected topics'):
        node_bench.play(bag, {'/brightness'})


def test_golden_of_nodes(make_bag, node_bench, one_box_package, tmp_path):
    node = node_bench.start(
        object_detector.make, model=str(one_box_package), score_threshold=0.4
    )
    bag = make_bag(
        shades(), depth=np.full((6, 8), 2000, np.uint16), camera=60.0, depth_topic='/depth'
    )
    options = {'remap': {'/depth': '/aligned_depth/image_raw'}}
    output = {'/detections': DetectionArray}
    first = node_bench.play(bag, output, **options)
    first.assert_detects('person', at_least=5, score=0.8, distance_m=(1.9, 2.1))
    first.update_goldens = True
    first.assert_matches(tmp_path / 'golden.mcap')
    stored.clear()      # this run of pytest writes none
    second = node_bench.play(bag, output, **options)
    second.assert_matches(tmp_path / 'golden.mcap')
    node.set_parameters([rclpy.Parameter('score_threshold', value=0.95)])
    blind = node_bench.play(bag, output, **options)
    with pytest.raises(AssertionError, match='person of score 0.90 is not found') as failed:
        blind.assert_matches(tmp_path / 'golden.mcap')
    changed = [line for line in str(failed.value).splitlines() if line.startswith('changed')]
    assert changed == [
        'changed: parameters object_detector score_threshold: 0.4 in the golden, 0.95 here'
    ]


def test_one_remap_for_bags_with_and_without_calibration(make_bag, node_bench):
    node_bench.start(Brightness)
    bag = make_bag(shades(2), topic='/eye')
    remap = {'/eye': '/image_raw', '/info': '/camera_info'}
    result = node_bench.play(bag, OUTPUT, remap=remap)
    result.assert_no_drops()
    assert result.notes == ['/info is not in the bag, to be remapped']


def test_label_that_the_node_does_not_know(make_bag, node_bench, one_box_package):
    node_bench.start(object_detector.make, model=str(one_box_package))
    result = node_bench.play(make_bag(shades(2)), {'/detections': DetectionArray})
    result.assert_detects('chair', at_most=0)
    with pytest.raises(ValueError, match="label is 'Chair'; the detector reports person, chair"):
        result.assert_detects('Chair', at_most=0)


def test_nodes_and_library_find_the_same(node_bench, run_networks):
    """The shipped networks on the committed bag, once through DDS and once without."""
    node_bench.start(object_detector.make, use_sim_time=True)
    node_bench.start(style_transfer.make, use_sim_time=True)
    through = node_bench.play(
        SCENE, {'/detections': DetectionArray, '/style/image': Image}, remap=TO_NODES
    )
    through.assert_no_drops()
    straight = run_networks(SCENE)
    pairs = zip(through.outcomes, straight.outcomes, strict=True)
    for ours, theirs in pairs:
        assert ours.stamp_ns == theirs.stamp_ns
        picture = ours.outputs['/style/image']
        pixels = np.frombuffer(picture.data, np.uint8).reshape(240, 320, 3)
        assert np.array_equal(pixels, theirs.outputs['/camera/color/image_raw/style'])
        found, = ours.outputs['/detections'].detections
        expected, = theirs.outputs['/camera/color/image_raw/detections'].detections
        for name in ('x_min', 'y_min', 'x_max', 'y_max', 'score', 'label'):
            assert getattr(found, name) == pytest.approx(getattr(expected, name))
        assert found.position_valid
        assert found.position.z == pytest.approx(expected.position.z)

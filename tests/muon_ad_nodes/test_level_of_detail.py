"""The level of detail of the tasks: under load, of plain scenes, and in their status.

The networks take no time; the model is slowed down by what the test says, as a load would do.
"""

import shutil
import time

import numpy as np
import pytest
import yaml
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image
from sensor_msgs.msg import RegionOfInterest

from muon_ad.images import to_rgb
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.style import StyleModel
from muon_ad_msgs.msg import DetectionArray
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.nodes import object_detector
from muon_ad_nodes.nodes import style_transfer
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.images import to_message

COSTS_S = {'large': 0.02, 'small': 0.005}
DEADLINE_MS = 200.0
LOAD = 15       # large takes 300 ms under it, small 75
GIVEN = {
    'lod__variants': ['large', 'small'], 'lod__patience': 3, 'deadline_ms': 0.0,
    # Images come when results have come, so that every variant is about as fast as the camera.
    'lod__keep_rate': False,
}
RICH = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
PLAIN = np.full((48, 64, 3), 100, np.uint8)


class Stream:
    """Sends images to the node and keeps its results and statuses."""

    def __init__(self, bench, node):
        self.load = 1.0
        self.node = node
        self._bench = bench
        self._publisher = bench.probe.create_publisher(Image, 'image_raw', qos.PUBLISH)
        self.regions = bench.probe.create_publisher(
            RegionOfInterest, '/style_transfer/roi', qos.PUBLISH
        )
        self.results = bench.listen(Image, 'style/image')
        self.statuses = bench.listen(TaskStatus, '/style_transfer/status', qos.LATCHED)
        bench.wait(
            lambda: node._publisher.get_subscription_count() > 0
            and self._publisher.get_subscription_count() > 0
            and self.regions.get_subscription_count() > 0, 'the topics to be connected',
        )

    def size(self, pixels=RICH, age_s=0):
        """Send an image taken now, or before; return (width, height) of its result."""
        before = len(self.results)
        stamp = self.node.get_clock().now().to_msg()
        stamp.sec -= age_s
        self._publisher.publish(to_message(pixels, 'rgb8', stamp, ''))
        self._bench.wait(lambda: len(self.results) > before, 'a result')
        assert (to_rgb(self.results[-1])[0, 0] == 255 - pixels[0, 0]).all()
        return self.results[-1].width, self.results[-1].height

    def until(self, size, pixels=RICH, most=100):
        """Send images until the results have this size; return how many it took."""
        for number in range(1, most + 1):
            if self.size(pixels) == size:
                return number
        return pytest.fail(f'no result of {size} among {most}')

    def status(self):
        """Return the values of a status made now, and its variant."""
        before = len(self.statuses)
        self.node.publish_status()
        self._bench.wait(lambda: len(self.statuses) > before, 'a status')
        status = self.statuses[-1]
        return {pair.key: pair.value for pair in status.values} | {'variant': status.variant}


@pytest.fixture
def start(bench, negative_package, monkeypatch):
    """Start the node with parameters beside GIVEN; return its Stream."""
    loads = []
    stylise = StyleModel.stylise

    def slowly(model, rgb):
        time.sleep(COSTS_S[model.variant.name] * (loads[0].load if loads else 1.0))
        return stylise(model, rgb)

    def start(**given):
        monkeypatch.setattr(StyleModel, 'stylise', slowly)
        node = bench.start(
            style_transfer.make, **{'model': str(negative_package), **GIVEN, **given}
        )
        loads.append(Stream(bench, node))
        return loads[0]

    return start


def test_it_degrades_instead_of_missing_the_deadline_and_returns(start):
    stream = start(deadline_ms=DEADLINE_MS)
    stream.until((128, 96))
    assert stream.status()['variant'] == 'large'
    stream.load = LOAD
    stream.until((64, 48))
    assert {stream.size() for _ in range(3)} == {(64, 48)}
    seen = stream.status()
    assert (seen['variant'], seen['lod_variants']) == ('small', 'large > small')
    assert float(seen['lod_predicted_ms']) >= 75
    stream.load = 1.0
    stream.until((128, 96))
    seen = stream.status()
    assert seen['variant'] == 'large'
    assert int(seen['lod_switches']) >= 2


def test_an_image_that_is_late_already_gets_the_fastest(start):
    stream = start(deadline_ms=60_000.0)
    assert stream.size() == (128, 96)
    assert stream.size(age_s=3600) == (64, 48)


def test_plain_scenes_are_not_worth_the_best(start):
    stream = start()
    assert stream.size(PLAIN) == (64, 48)
    assert stream.status()['lod_entropy'] == '0.000'
    assert stream.status()['lod_wanted'] == 'small'
    stream.until((128, 96), RICH)
    assert stream.status()['lod_wanted'] == 'large'


def test_always_wanted(start):
    stream = start(lod__entropy=[0, 0])
    assert {stream.size(PLAIN) for _ in range(5)} == {(128, 96)}


HALF = np.hstack([RICH[:, :32], PLAIN[:, 32:]])


def test_the_parameter_says_where_to_look(start):
    assert start(lod__roi=[0.5, 0.0, 0.5, 1.0]).size(HALF) == (64, 48)


def test_the_topic_says_where_to_look_until_it_says_nowhere(start, bench):
    stream = start(lod__roi=[32, 0, 32, 48])
    assert stream.size(HALF) == (64, 48)
    for region, size in (
        (RegionOfInterest(width=32, height=48), (128, 96)),
        (RegionOfInterest(), (64, 48)),
    ):
        stream.regions.publish(region)
        stream.until(size, HALF)


def test_a_region_outside_the_image_is_said_and_the_whole_is_measured(start, bench):
    stream = start(lod__roi=[640, 0, 100, 100])
    assert stream.size() == (128, 96)
    warned = stream.node._warned
    assert any('[640, 0, 100, 100] lies outside images of 64x48' in text for text in warned)


def test_results_of_one_size(start):
    stream = start(lod__same_size=True)
    assert stream.size(PLAIN) == (128, 96)
    assert stream.status()['variant'] == 'small'


def test_the_variant_is_the_one_to_begin_with(start):
    stream = start(variant='small', lod__patience=1000)
    assert stream.status()['variant'] == 'small'
    assert stream.size() == (64, 48)


def test_after_a_restart_it_begins_anew(start, bench):
    stream = start()
    stream.size(PLAIN)
    node = stream.node
    for transition in ('deactivate', 'cleanup', 'configure', 'activate'):
        assert getattr(node, f'trigger_{transition}')() == TransitionCallbackReturn.SUCCESS
    bench.wait(lambda: stream._publisher.get_subscription_count() > 0, 'the node to subscribe')
    bench.wait(lambda: node._publisher.get_subscription_count() > 0, 'the probe to subscribe')
    bench.wait(lambda: stream.regions.get_subscription_count() == 1, 'one subscription alone')
    assert stream.status()['lod_switches'] == '0'
    assert stream.size() == (128, 96)


@pytest.fixture
def two_boxes_package(one_box_package, tmp_path):
    """The package that finds one person, with two variants."""
    folder = shutil.copytree(one_box_package, tmp_path / 'two')
    package = yaml.safe_load((folder / 'model.yaml').read_text())
    only = package['variants']['only']
    package['variants'] = {'best': only, 'fast': only}
    (folder / 'model.yaml').write_text(yaml.safe_dump(package, sort_keys=False))
    return folder


@pytest.mark.parametrize('deadline_ms, variant', [(0.0, 'best'), (0.001, 'fast')])
def test_the_detector_chooses_as_well(
    bench, two_boxes_package, deadline_ms, variant, monkeypatch
):
    used = []
    detect = Detector.detect
    monkeypatch.setattr(
        Detector, 'detect', lambda self, rgb: used.append(self.variant.name) or detect(self, rgb)
    )
    node = bench.start(
        object_detector.make, model=str(two_boxes_package), lod__variants=['best', 'fast'],
        lod__keep_rate=False, deadline_ms=deadline_ms,
    )
    publisher = bench.probe.create_publisher(Image, 'image_raw', qos.PUBLISH)
    found = bench.listen(DetectionArray, 'detections')
    statuses = bench.listen(TaskStatus, '/object_detector/status', qos.LATCHED)
    bench.wait(
        lambda: node._publisher.get_subscription_count() > 0
        and publisher.get_subscription_count() > 0, 'the topics to be connected',
    )
    publisher.publish(to_message(PLAIN, 'rgb8', node.get_clock().now().to_msg(), ''))
    bench.wait(lambda: found, 'detections')
    assert [each.label for each in found[0].detections] == ['person']
    node.publish_status()
    bench.wait(lambda: statuses and statuses[-1].frames == 1, 'the status')
    assert statuses[-1].variant == used[-1] == variant


@pytest.mark.parametrize(
    'parameters, complaint',
    [
        ({'lod__variants': ['large', 'tiny']}, "no variant 'tiny'"),
        ({'lod__variants': ['large', 'large']}, "['large', 'large']; expected names, none empty"),
        ({'lod__variants': ['large', '']}, "['large', '']; expected names, none empty"),
        ({'lod__variants': ['large'], 'variant': 'small'}, "parameter variant is 'small'"),
        ({'lod__entropy': [0.5]}, 'parameter lod.entropy is [0.5]; expected two numbers'),
        ({'lod__entropy': [0.5, 0.4]}, 'ascending'),
        ({'lod__roi': [1, 2, 3]}, 'parameter lod.roi is [1.0, 2.0, 3.0]; expected [] or'),
    ],
)
def test_bad_parameter_fails_configure_with_a_reason(
    bench, negative_package, parameters, complaint
):
    chosen = {'model': str(negative_package), **GIVEN, **parameters}
    node = bench.run(style_transfer.make, **chosen)
    statuses = bench.listen(TaskStatus, '/style_transfer/status', qos.LATCHED)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    bench.wait(lambda: any(complaint in s.message for s in statuses), 'the reason in the status')

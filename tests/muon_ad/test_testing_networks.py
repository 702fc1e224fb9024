"""run_networks: what it refuses, what a fault makes of it, and the picture of the worst frame."""

import cv2
import numpy as np
import onnxruntime
import pytest

from muon_ad.testing.result import stored

GREY = np.full((48, 64, 3), 100, np.uint8)


@pytest.fixture
def run(run_networks, negative_package, one_box_package):
    """run_networks with the two tiny networks."""
    models = {'style_model': str(negative_package), 'detector_model': str(one_box_package)}
    return lambda bag, **options: run_networks(bag, **{**models, **options})


@pytest.fixture
def bag(make_bag):
    return make_bag([GREY] * 6)


@pytest.mark.parametrize(
    'options, error, said',
    [
        ({'start_s': 99}, ValueError, 'start is 99 s, after the end'),
        ({'start_s': -1}, ValueError, 'start is -1 s; expected 0 or more'),
        ({'duration_s': 0}, ValueError, 'duration is 0 s'),
        ({'faults': 'stall stream=colour'}, ValueError, "stream is 'colour'; the streams here"),
        ({'image': '/nowhere'}, ValueError, 'image /nowhere: is not in the bag'),
        ({'threshold': 1}, TypeError, 'run_networks has no option threshold; it takes .* seed'),
        ({'classes': 'unicorn'}, ValueError, 'unicorn'),
        ({'threads': -1}, ValueError, 'threads is -1; expected 0 to 64'),
        ({'threads': 999999}, ValueError, 'threads is 999999; expected 0 to 64'),
        ({'seed': -3, 'faults': 'stall'}, ValueError, 'seed is -3; expected 0 or more'),
        ({'depth': '/image_raw'}, ValueError, 'depth /image_raw: is the image itself'),
    ],
)
def test_what_cannot_be_run_is_told(run, bag, options, error, said):
    with pytest.raises(error, match=said) as raised:
        run(bag, **options)
    assert '--' not in str(raised.value), 'this is not the command line'


def test_providers_that_are_not_there_are_told_with_those_that_are(run, bag, monkeypatch):
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: ['CPUExecutionProvider'])
    with pytest.raises(ValueError, match='providers is tensorrt,cuda; this ONNX Runtime has cpu'):
        run(bag, providers=['tensorrt', 'cuda'])
    run(bag, providers=['cuda', 'cpu']).assert_no_drops()


def test_single_names_need_no_list(run, bag):
    result = run(bag, faults='stall at=9', providers='cpu', classes='person', image='/image_raw')
    result.assert_detects('person', at_least=6)
    assert any('touched nothing' in note for note in result.notes)


def test_negative_limits_need_a_detector_that_knows_the_label(run, bag):
    run(bag, classes='chair').assert_detects('chair', at_most=0)
    with pytest.raises(AssertionError, match='no result has detections'):
        run(bag, detector_model='').assert_detects('person', at_most=0)
    with pytest.raises(ValueError, match="label is 'Person'; the detector reports person, chair"):
        run(bag).assert_detects('Person', at_most=0)
    with pytest.raises(AssertionError, match='none of 6 images gave its results'):
        run(bag, faults='short for=9').assert_detects('chair', at_most=0)


def test_lost_images_are_drops_and_doubled_ones_count_once(run, bag):
    result = run(bag, faults=['unplug at=.1 for=.15'])
    with pytest.raises(AssertionError, match='2 of 6 images were dropped; .*\n2 of them: lost by'):
        result.assert_no_drops()
    result = run(bag, faults=['duplicate at=0.05 for=0.25 every=1'])
    assert [outcome.number for outcome in result.outcomes] == [0, 1, 2, 3, 4, 5]
    result.assert_no_drops()
    with pytest.raises(AssertionError, match='in 6 of 6 images'):
        result.assert_detects('person', at_most=5)


def test_worst_frame_is_drawn_on_its_image(run, bag, make_bag, tmp_path):
    golden = tmp_path / 'g.mcap'
    result = run(bag)
    result.update_goldens = True
    result.assert_matches(golden)
    stored.clear()      # this run of pytest writes none
    result = run(bag, detector_model='', style='light')
    with pytest.raises(AssertionError, match='worst frame'):
        result.assert_matches(golden)
    wide = run(make_bag([GREY] * 6), score_threshold=0.95, style_model='')
    with pytest.raises(AssertionError, match='the worst frame, expected and got: ') as failed:
        wide.assert_matches(golden, mean_abs=255)
    picture = cv2.imread(str(failed.value).rpartition(': ')[2])
    middle = picture[picture.shape[0] * 6 // 10]
    assert (middle[490:520] == 100).all(), 'the image itself, beside the box'

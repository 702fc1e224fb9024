"""Ranges of activations against numpy, and frames to calibrate with."""

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import precision_networks as networks
import pytest

from muon_ad.precision.calibration import calibrate
from muon_ad.precision.error import PrecisionError
from muon_ad.precision.frames import hold_out
from muon_ad.precision.frames import read_frames
from muon_ad.precision.graph import prepared
from muon_ad.train.images import DataError

TENSOR = 'second.relu'


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return prepared(networks.plain_network(tmp_path_factory.mktemp('plain') / 'plain.onnx'))


@pytest.fixture(scope='module')
def feeds():
    return networks.random_feeds(4)


@pytest.fixture(scope='module')
def values(model, feeds):
    """What the tensor really holds over all frames."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(
        onnx.helper.make_tensor_value_info(TENSOR, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(shown.SerializeToString(), providers=['CPUExecutionProvider'])
    return np.concatenate([session.run([TENSOR], each)[0].ravel() for each in feeds])


def span(model, feeds, *method):
    found = calibrate(model, feeds, *method)[TENSOR].range_value
    return [np.asarray(value).item() for value in found]


def test_minmax_is_the_whole_range(model, feeds, values):
    assert span(model, feeds, 'minmax') == pytest.approx([values.min(), values.max()])


@pytest.mark.parametrize('percentile', [99.9, 99.0, 90.0])
def test_percentile_is_that_of_numpy(model, feeds, values, percentile):
    cut = (100 - percentile) / 2
    lowest, highest = span(model, feeds, 'percentile', percentile)
    bins = 2 * values.max() / 2048      # of the histogram
    assert highest == pytest.approx(np.percentile(values, 100 - cut), abs=2 * bins)
    assert lowest == pytest.approx(np.percentile(values, cut), abs=2 * bins)


def test_entropy_cuts_off_a_rare_peak(model, feeds, values):
    lowest, highest = span(model, feeds, 'entropy')
    assert 0.2 * values.max() < highest <= values.max() * 1.01
    assert lowest <= 0


def test_bad_settings_are_named(model, feeds):
    with pytest.raises(PrecisionError, match="calibration is 'mean'; expected one of"):
        calibrate(model, feeds, 'mean')
    with pytest.raises(PrecisionError, match='percentile is 20; expected more than 50'):
        calibrate(model, feeds, 'percentile', 20)
    with pytest.raises(PrecisionError, match='no frames'):
        calibrate(model, [], 'minmax')


def test_frames_of_the_scene_differ_and_are_divided():
    frames = read_frames(None, 8)
    assert len(frames) == 8 and all(frame.dtype == np.uint8 for frame in frames)
    assert all((a != b).any() for a, b in zip(frames, frames[1:], strict=False))
    used, held = hold_out(frames)
    assert len(used) == 6 and len(held) == 2
    assert held[0] is frames[3] and not any(each is frames[3] for each in used)


def test_frames_of_a_folder(tmp_path):
    for index in range(6):
        cv2.imwrite(str(tmp_path / f'{index}.png'), np.full((60, 80, 3), 40 * index, np.uint8))
    frames = read_frames(tmp_path, 4)
    assert len(frames) == 4
    assert [int(frame.mean()) for frame in frames] == [0, 80, 120, 200]


def test_too_few_frames_or_none(tmp_path):
    with pytest.raises(PrecisionError, match='count is 2; expected 4'):
        read_frames(None, 2)
    cv2.imwrite(str(tmp_path / 'one.png'), np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(PrecisionError, match='1 frames; expected 4 or more'):
        read_frames(tmp_path, 8)
    with pytest.raises(DataError, match='no such file or folder'):
        read_frames(tmp_path / 'none', 8)

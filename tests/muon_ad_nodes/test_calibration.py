"""Calibration files: what the calibrator writes is read, anything else is a named error."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from builtin_interfaces.msg import Time

from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.calibration import CalibrationError
from muon_ad_nodes.parts.calibration import load_calibration

# As camera_calibration's cameracalibrator.py writes it.
GOOD = """\
image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [438.783367, 0.000000, 305.593336, 0.000000, 437.302876, 243.738352, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.361976, 0.110510, 0.001014, 0.000505, 0.000000]
rectification_matrix:
  rows: 3
  cols: 3
  data: [0.999978, 0.002789, -0.006046, -0.002816, 0.999986, -0.004401, 0.006034, 0.004417, 0.999972]
projection_matrix:
  rows: 3
  cols: 4
  data: [393.653800, 0.000000, 322.797939, 0.0, 0.0, 393.653800, 241.090902, 0.0, 0, 0, 1, 0]
"""  # noqa: E501


@pytest.fixture
def good(tmp_path) -> Path:
    path = tmp_path / 'camera.yaml'
    path.write_text(GOOD)
    return path


def test_the_calibrators_file_is_read(good):
    calibration = load_calibration(str(good))
    assert calibration.calibrated
    assert (calibration.width, calibration.height) == (640, 480)
    assert calibration.model == 'plumb_bob'
    assert calibration.k[0] == 438.783367 and calibration.k[8] == 1.0
    assert calibration.d == (-0.361976, 0.110510, 0.001014, 0.000505, 0.0)
    assert len(calibration.p) == 12


def test_file_urls_are_read(good):
    assert load_calibration(good.as_uri()) == load_calibration(str(good))


def test_the_message_carries_everything(good):
    calibration = load_calibration(str(good))
    message = calibration.message(Time(sec=3, nanosec=4), 'eye')
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (3, 4)
    assert message.header.frame_id == 'eye'
    assert (message.width, message.height) == (640, 480)
    assert message.distortion_model == 'plumb_bob'
    np.testing.assert_array_equal(message.k, calibration.k)
    np.testing.assert_array_equal(message.p, calibration.p)
    np.testing.assert_array_equal(message.r, calibration.r)
    np.testing.assert_array_equal(message.d, calibration.d)


def test_an_uncalibrated_camera_has_zeros():
    message = Calibration(640, 480).message(Time(), 'eye')
    assert (message.width, message.height) == (640, 480)
    assert not np.any(message.k) and not np.any(message.p) and not np.any(message.r)
    assert len(message.d) == 0 and message.distortion_model == ''
    assert Calibration(640, 480).scaled(320, 200) == Calibration(320, 200)


def test_scaling_keeps_directions(good):
    """A point seen at (u, v) is seen at half of both in the halved picture."""
    full = load_calibration(str(good))
    half = full.scaled(320, 240)
    point = np.array([0.2, -0.1, 1.5])
    for name, shape in (('k', (3, 3)), ('p', (3, 4))):
        homogeneous = point if name == 'k' else np.append(point, 1.0)
        large = np.reshape(getattr(full, name), shape) @ homogeneous
        small = np.reshape(getattr(half, name), shape) @ homogeneous
        np.testing.assert_allclose(small[:2] / small[2], large[:2] / large[2] / 2)
    assert half.d == full.d and half.r == full.r


def test_another_aspect_ratio_is_an_error(good):
    with pytest.raises(CalibrationError, match='640x480.*1280x720.*aspect'):
        load_calibration(str(good)).scaled(1280, 720)


def test_rounding_to_whole_pixels_is_no_other_aspect_ratio(good):
    assert load_calibration(str(good)).scaled(427, 320).width == 427


def altered(**changes):
    data = {**yaml.safe_load(GOOD), **changes}
    return yaml.safe_dump({key: value for key, value in data.items() if value is not None})


def matrix(count, value=1.0):
    return {'rows': 1, 'cols': count, 'data': [value] * count}


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('', 'expected a mapping'),
        ('[1, 2]', 'expected a mapping'),
        ('image_width: [', 'not readable as YAML'),
        (altered(image_width=None), 'image_width is None'),
        (altered(image_height=-480), 'image_height is -480'),
        (altered(image_height='tall'), "image_height is 'tall'"),
        (altered(camera_matrix=None), 'camera_matrix is None'),
        (altered(camera_matrix=matrix(8)), 'list of 9 finite numbers'),
        (altered(camera_matrix=matrix(9, 0.0)), 'expected fx > 0'),
        (altered(projection_matrix=matrix(9)), 'projection_matrix.*list of 12'),
        (altered(projection_matrix=matrix(12, float('nan'))), 'finite numbers'),
        (altered(rectification_matrix=[1, 2]), 'rectification_matrix'),
        (altered(rectification_matrix=matrix(9, 'x')), 'rectification_matrix'),
        (altered(distortion_model='fish'), "distortion_model is 'fish'.*plumb_bob"),
        (altered(distortion_model='equidistant'), 'distortion_coefficients.*list of 4'),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, expected):
    path = tmp_path / 'bad.yaml'
    path.write_text(text)
    with pytest.raises(CalibrationError, match=expected) as caught:
        load_calibration(str(path))
    assert str(path) in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(CalibrationError, match='no such calibration file'):
        load_calibration(str(tmp_path / 'none.yaml'))
    with pytest.raises(CalibrationError, match='no such calibration file'):
        load_calibration(str(tmp_path))
    with pytest.raises(CalibrationError, match='no package'):
        load_calibration('package://no_such_package/camera.yaml')
    with pytest.raises(CalibrationError, match='is not understood'):
        load_calibration('ftp://host/camera.yaml')
    (tmp_path / 'binary.yaml').write_bytes(bytes(range(128, 256)))
    with pytest.raises(CalibrationError, match='not readable as YAML'):
        load_calibration(str(tmp_path / 'binary.yaml'))

"""Position of an object from depth: geometry, units, invalid pixels, sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muon_ad.runtime.positions import DepthError
from muon_ad.runtime.positions import Intrinsics
from muon_ad.runtime.positions import locate

CAMERA = Intrinsics(fx=300.0, fy=310.0, cx=160.0, cy=120.0)
SIZE = (320, 240)


def plane(distance: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A wall at `distance` metres, parallel to the image."""
    return np.full(size[::-1], distance, np.float32)


@given(
    st.floats(0.2, 9), st.integers(0, 250), st.integers(0, 180), st.integers(16, 64),
    st.integers(16, 60),
)
def test_a_wall_is_found_where_the_pinhole_model_puts_it(distance, x, y, width, height):
    box = np.float32([x, y, x + width, y + height])
    place = locate(plane(distance), box, SIZE, CAMERA)
    assert place.valid
    # The centre of the box in pixel coordinates, where pixel 0 has its centre at 0.
    column, row = x + width / 2 - 0.5, y + height / 2 - 0.5
    expected = [(column - 160) / 300 * distance, (row - 120) / 310 * distance, distance]
    np.testing.assert_allclose(place.point, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(place.variance, 0, atol=1e-9)


@given(st.integers(1, 65535))
def test_millimetres_and_metres_agree(millimetres):
    box = np.float32([100, 80, 160, 140])
    depth = np.full(SIZE[::-1], millimetres, np.uint16)
    first = locate(depth, box, SIZE, CAMERA)
    second = locate(depth.astype(np.float32) / 1000, box, SIZE, CAMERA)
    assert first == second
    assert first.point[2] == pytest.approx(millimetres / 1000)


@given(st.sampled_from([(160, 120), (640, 480), (424, 240), (100, 300)]))
def test_depth_of_another_size_gives_the_same_place(size):
    box = np.float32([60, 40, 140, 160])
    expected = locate(plane(2.5), box, SIZE, CAMERA)
    assert locate(plane(2.5, size), box, SIZE, CAMERA).point == pytest.approx(expected.point)


def test_depth_of_another_size_is_read_at_the_right_pixels():
    depth = plane(5, (160, 120))
    depth[20:80, 30:70] = 2
    box = np.float32([60, 40, 140, 160])
    assert locate(depth, box, SIZE, CAMERA).point[2] == pytest.approx(2)


@pytest.mark.parametrize('bad', [0, np.nan, np.inf, -np.inf, -1])
def test_invalid_pixels_do_not_count(bad):
    depth = plane(3)
    depth[::2] = bad
    box = np.float32([100, 80, 160, 140])
    assert locate(depth, box, SIZE, CAMERA).point[2] == pytest.approx(3)


def test_background_at_the_border_and_flying_pixels_do_not_count():
    depth = plane(6)
    depth[90:130, 115:145] = 2
    depth[100, 120:130] = 0.1
    place = locate(depth, np.float32([100, 80, 160, 140]), SIZE, CAMERA)
    assert place.point[2] == pytest.approx(2)


def test_too_little_depth_gives_no_position():
    depth = np.zeros(SIZE[::-1], np.uint16)
    box = np.float32([100, 80, 160, 140])
    assert not locate(depth, box, SIZE, CAMERA).valid
    depth[110, 120:135] = 1000
    assert not locate(depth, box, SIZE, CAMERA, minimum=16).valid
    assert locate(depth, box, SIZE, CAMERA, minimum=15).valid


def test_a_box_of_one_pixel_needs_that_pixel_only():
    depth = np.zeros(SIZE[::-1], np.uint16)
    depth[50, 60] = 1500
    place = locate(depth, np.float32([60, 50, 61, 51]), SIZE, CAMERA)
    assert place.point[2] == pytest.approx(1.5)


def test_a_box_at_the_lower_right_corner_stays_inside():
    place = locate(plane(2), np.float32([319.5, 239.5, 320, 240]), SIZE, CAMERA)
    assert place.valid


def test_variance_is_that_of_the_noise():
    rng = np.random.default_rng(0)
    depth = rng.normal(3, 0.05, SIZE[::-1]).astype(np.float32)
    box = np.float32([200, 30, 300, 130])
    place = locate(depth, box, SIZE, CAMERA)
    assert place.variance[2] == pytest.approx(0.05**2, rel=0.15)
    ray = (249.5 - 160) / 300
    assert place.variance[0] == pytest.approx(ray**2 * place.variance[2])


@pytest.mark.parametrize(('depth', 'message'), [
    (np.zeros((4, 4), np.float64), 'float64; expected uint16'),
    (np.zeros((4, 4, 1), np.uint16), r'shape \(4, 4, 1\)'),
    (np.zeros((0, 4), np.uint16), r'shape \(0, 4\)'),
])
def test_other_depth_is_an_error(depth, message):
    with pytest.raises(DepthError, match=message):
        locate(depth, np.float32([0, 0, 2, 2]), (4, 4), CAMERA)


def test_intrinsics_come_from_a_calibrated_matrix_only():
    matrix = np.array([300.0, 0, 160, 0, 310, 120, 0, 0, 1])
    assert Intrinsics.from_matrix(matrix) == CAMERA
    with pytest.raises(DepthError, match='fx = 0.0'):
        Intrinsics.from_matrix(np.zeros(9))

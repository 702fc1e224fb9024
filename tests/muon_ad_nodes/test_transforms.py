"""Extrinsics as messages: rotations, frames, and their agreement with the SDK's meaning."""

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st

from muon_ad_nodes.parts.realsense_frames import Extrinsics
from muon_ad_nodes.parts.transforms import camera_frames
from muon_ad_nodes.parts.transforms import quaternion
from muon_ad_nodes.parts.transforms import transform

ANGLES = st.tuples(*(st.floats(-np.pi, np.pi) for _ in range(3)))


def rotation_of(angles):
    turns = []
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        turns.append(turn)
    return turns[0] @ turns[1] @ turns[2]


def matrix_of(x, y, z, w):
    """The textbook matrix of a unit quaternion."""
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])


def pose(message):
    where, turn = message.transform.translation, message.transform.rotation
    matrix = np.eye(4)
    matrix[:3, :3] = matrix_of(turn.x, turn.y, turn.z, turn.w)
    matrix[:3, 3] = where.x, where.y, where.z
    return matrix


@given(ANGLES)
def test_quaternions_turn_as_their_matrix_does(angles):
    rotation = rotation_of(angles)
    found = quaternion(rotation)
    assert np.linalg.norm(found) == pytest.approx(1.0)
    assert found[3] >= 0
    np.testing.assert_allclose(matrix_of(*found), rotation, atol=1e-9)


def test_a_transform_names_its_frames():
    message = transform('a', 'b', np.eye(3), np.array([1.0, 2.0, 3.0]), Time(sec=5))
    assert (message.header.frame_id, message.child_frame_id) == ('a', 'b')
    assert message.header.stamp.sec == 5
    np.testing.assert_array_equal(pose(message)[:3, 3], (1, 2, 3))


@given(ANGLES)
def test_the_tree_agrees_with_the_extrinsics(angles):
    """Depth optical to colour optical through the tree is what the SDK says directly."""
    rotation, translation = rotation_of(angles), (-0.015, 0.001, 0.002)
    extrinsics = Extrinsics(tuple(rotation.ravel()), translation)
    frames = {m.child_frame_id: m for m in camera_frames('camera', extrinsics, Time())}
    assert set(frames) == {f'camera_{stream}_{kind}' for stream in ('depth', 'color')
                           for kind in ('frame', 'optical_frame')}
    to_link = {
        stream: pose(frames[f'camera_{stream}_frame'])
        @ pose(frames[f'camera_{stream}_optical_frame'])
        for stream in ('depth', 'color')
    }
    point = np.array([0.3, -0.2, 1.5, 1.0])
    through_tree = np.linalg.inv(to_link['color']) @ to_link['depth'] @ point
    np.testing.assert_allclose(through_tree[:3], rotation @ point[:3] + translation, atol=1e-9)


def test_the_colour_camera_of_a_d415_is_to_the_right_of_the_link():
    extrinsics = Extrinsics(tuple(np.eye(3).ravel()), (-0.015, 0.0, 0.0))
    frames = {m.child_frame_id: m for m in camera_frames('camera', extrinsics, Time())}
    where = frames['camera_color_frame'].transform.translation
    assert (where.x, where.y, where.z) == pytest.approx((0.0, -0.015, 0.0))   # y is left

"""Where the cameras of a RealSense are, in the messages that ROS has for it."""

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node

from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.realsense_frames import Extrinsics

try:
    from tf2_msgs.msg import TFMessage
except ImportError:     # has no wheel
    TFMessage = None
try:
    from realsense2_camera_msgs.msg import Extrinsics as ExtrinsicsMessage
except ImportError:     # comes with realsense-ros
    ExtrinsicsMessage = None

# Turns body axes (x forward, y left, z up) into optical ones (REP-103), as a matrix whose columns
# are the optical axes in the body frame.
_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def quaternion(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """Return x, y, z, w of a rotation matrix [3, 3], with w >= 0.

    Bar-Itzhack's method (2000): the eigenvector of the largest eigenvalue, which also copes with
    the rounding of a calibrated rotation.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    k = np.array([
        [xx - yy - zz, yx + xy, zx + xz, zy - yz],
        [yx + xy, yy - xx - zz, zy + yz, xz - zx],
        [zx + xz, zy + yz, zz - xx - yy, yx - xy],
        [zy - yz, xz - zx, yx - xy, xx + yy + zz],
    ])
    x, y, z, w = np.linalg.eigh(k)[1][:, -1]
    sign = -1.0 if w < 0 else 1.0
    return float(x * sign), float(y * sign), float(z * sign), float(w * sign)


def transform(
    parent: str, child: str, rotation: np.ndarray, translation: np.ndarray, stamp: Time
) -> TransformStamped:
    """Return the transform that carries points of `child` to `parent`."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = stamp
    where, turn = message.transform.translation, message.transform.rotation
    where.x, where.y, where.z = (float(value) for value in translation)
    turn.x, turn.y, turn.z, turn.w = quaternion(rotation)
    return message


def camera_frames(name: str, extrinsics: Extrinsics, stamp: Time) -> list[TransformStamped]:
    """Return realsense-ros's tree of frames below `<name>_link`, which is at the depth camera."""
    rotation = np.reshape(extrinsics.rotation, (3, 3))
    # The colour camera as seen from the depth camera, in body axes.
    turn = _OPTICAL @ rotation.T @ _OPTICAL.T
    place = _OPTICAL @ (-rotation.T @ np.array(extrinsics.translation))
    link, here, zero = f'{name}_link', np.eye(3), np.zeros(3)
    frames = []
    for stream, pose in (('depth', (here, zero)), ('color', (turn, place))):
        frame = f'{name}_{stream}_frame'
        frames.append(transform(link, frame, *pose, stamp))
        frames.append(transform(frame, f'{name}_{stream}_optical_frame', _OPTICAL, zero, stamp))
    return frames


class ExtrinsicsPublisher:
    """Publishes the extrinsics once, latched.

    `~/extrinsics/depth_to_color` is a realsense2_camera_msgs/Extrinsics where that package is
    installed, else a geometry_msgs/TransformStamped of the same meaning. `/tf_static` gets
    `camera_frames` where tf2_msgs is installed.
    """

    def __init__(self, node: Node) -> None:
        kind = ExtrinsicsMessage or TransformStamped
        self._node = node
        self._publisher = node.create_publisher(kind, '~/extrinsics/depth_to_color', qos.LATCHED)
        self._tf = TFMessage and node.create_publisher(TFMessage, '/tf_static', qos.LATCHED)

    def publish(self, name: str, extrinsics: Extrinsics, stamp: Time) -> None:
        """Publish the extrinsics of the camera called `name`."""
        rotation = np.reshape(extrinsics.rotation, (3, 3))
        if ExtrinsicsMessage is not None:
            # Column by column, as in the SDK.
            message = ExtrinsicsMessage(
                rotation=rotation.T.ravel().tolist(), translation=list(extrinsics.translation)
            )
        else:
            parent, child = f'{name}_color_optical_frame', f'{name}_depth_optical_frame'
            message = transform(parent, child, rotation, extrinsics.translation, stamp)
        self._publisher.publish(message)
        if self._tf is not None:
            self._tf.publish(TFMessage(transforms=camera_frames(name, extrinsics, stamp)))

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in filter(None, (self._publisher, self._tf)):
            self._node.destroy_publisher(publisher)

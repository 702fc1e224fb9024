"""The three quality-of-service profiles of the suite."""

from rclpy.qos import DurabilityPolicy
from rclpy.qos import HistoryPolicy
from rclpy.qos import qos_profile_system_default
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy

# For subscribing to images: the newest frame, whatever was lost before it. Best effort matches
# publishers of both kinds.
SENSOR = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE,
)

# For publishing images and results: reliable, so that every subscriber's wish can be met.
PUBLISH = qos_profile_system_default

# For what a late subscriber needs at once: calibration, extrinsics, status.
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)

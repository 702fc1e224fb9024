"""Listens to the ways of the frames of every task in the domain."""

import os

from rclpy.node import Node
from rclpy.qos import HistoryPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy

from muon_ad_msgs.msg import FrameTrace
from muon_ad_nodes.parts.discovery import Discovery
from muon_ad_nodes.parts.shared_memory import ports_of_the_dead_avoided

# So many may wait while others are handled. Best effort costs the nodes no answers, and begins at
# once: a reliable reader that has missed the first messages may wait three seconds for them.
EVERY = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=200, reliability=ReliabilityPolicy.BEST_EFFORT
)


class Recorder(Node):
    """Keeps every FrameTrace that comes, in `traces`, which may be replaced at any time."""

    def __init__(self) -> None:
        super().__init__(
            f'muon_ad_trace_{os.getpid()}', enable_rosout=False, start_parameter_services=False
        )
        self.traces: list[FrameTrace] = []
        self.discovery = Discovery(
            self, FrameTrace, 'muon_ad_msgs/msg/FrameTrace', EVERY,
            lambda trace: self.traces.append(trace),
        )

    @property
    def domain_id(self) -> int:
        """The ROS domain in which this node listens."""
        return self.context.get_domain_id()


def make() -> Recorder:
    """Return the node, whatever killed processes have left behind."""
    with ports_of_the_dead_avoided():
        return Recorder()

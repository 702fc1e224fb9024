"""The ways of a node's frames on `~/trace`, for `muon-ad trace`."""

import os
import socket
import threading
import time

from rclpy.node import Node

from muon_ad_msgs.msg import FrameTrace
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.frame_times import FrameTimes
from muon_ad_nodes.parts.stamps import to_stamp


class TraceTopic:
    """Publishes muon_ad_msgs/FrameTrace, and makes none while nobody subscribes."""

    def __init__(self, node: Node) -> None:
        self._task = node.get_fully_qualified_name()
        self._host = socket.gethostname()
        self._publisher = node.create_publisher(FrameTrace, '~/trace', qos.PUBLISH)

    def publish(self, times: FrameTimes, dropped: str) -> None:
        """Publish the way of a frame that the calling thread is done with."""
        if self._publisher.get_subscription_count() == 0:
            return
        to_system_ns = time.time_ns() - time.monotonic_ns()
        self._publisher.publish(
            FrameTrace(
                stamp=to_stamp(times.stamp_ns),
                frame_ids=times.frame_ids,
                task=self._task,
                host=self._host,
                pid=os.getpid(),
                thread=threading.get_native_id(),
                captured=times.captured,
                dropped=dropped,
                begin_ns=times.begun_ns + to_system_ns,
                stages=[stage for stage, _ in times.ends_ns],
                ends_ns=[end_ns + to_system_ns for _, end_ns in times.ends_ns],
            )
        )

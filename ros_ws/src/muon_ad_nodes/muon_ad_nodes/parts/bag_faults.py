"""The faults of a player of bags, which sends what they hold back when it is due."""

from collections.abc import Iterable
from typing import Any

from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

from muon_ad.faults.fault import DEPTH
from muon_ad.faults.fault import IMAGE
from muon_ad.faults.fault import INFO
from muon_ad_nodes.parts.bag_topics import Route
from muon_ad_nodes.parts.fault_injection import FaultInjection
from muon_ad_nodes.parts.lifecycle import SuiteNode

# The encoding of an image, and so whether it is depth, is known with the first one only.
_CARRIED = {Image: (IMAGE, DEPTH), CompressedImage: (IMAGE,), CameraInfo: (INFO,)}


class BagFaults(FaultInjection):
    """The faults of `node`. A camera goes on, a bag ends: here no message waits for the next."""

    def __init__(self, node: SuiteNode, routes: Iterable[Route]) -> None:
        """Raises ParameterError for a schedule that makes no sense."""
        streams = {route.name: _CARRIED.get(route.published_kind, ()) for route in routes}
        super().__init__(node, False, streams)

    @property
    def left_s(self) -> float | None:
        """Seconds until the next message is due that is held back; None where none is."""
        next_s = self._messages.next_s
        return None if next_s is None else max(next_s - self.now_s(), 0.0)

    def due(self) -> list[tuple[str, Any]]:
        """Return and forget the messages that are due, with their streams."""
        return self._messages.due()

    def rest(self) -> list[tuple[str, Any]]:
        """Return and forget all messages that are held back, with their streams."""
        return self._messages.rest()

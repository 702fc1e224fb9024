"""The thread of a camera node that takes frames from a source and publishes them."""

import threading
import time
from collections.abc import Callable

from muon_ad.images import ImageError
from muon_ad_nodes.parts.calibration import CalibrationError
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.source import EndOfInput
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import FrameError
from muon_ad_nodes.parts.source import Source

WAIT_S = 0.5
SILENCE_S = 2.0     # without frames from a live source, before the status says so


class CaptureThread:
    """Reads `source` in a thread of its own, and gives each frame to `publish`, until stopped.

    A frame that cannot be used is counted and logged; the end of the input ends the thread and
    stands in the node's status. An exception else is a defect or a dead camera: it ends the
    process through `node.fail`, to be restarted.
    """

    def __init__(
        self, node: SuiteNode, source: Source, publish: Callable[[Frame], None], live: bool
    ) -> None:
        self._node = node
        self._source = source
        self._publish = publish
        self._live = live
        self._last_frame_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name='capture')
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the frame in work."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                # A driver that never comes back shows in the status as a frame that never ends.
                with self._node.monitor.working():
                    self._step()
        except EndOfInput as end:
            self._node.get_logger().info(str(end))
            self._node.say(str(end))
        except Exception as error:  # noqa: BLE001 - reported by the node, which then ends
            self._node.fail(error)

    def _step(self) -> None:
        try:
            frame = self._source.read(self._stopping, WAIT_S)
            if frame is None:
                self._tell_silence()
                return
            self._last_frame_s = time.monotonic()
            self._node.say('')
            self._node.monitor.received()
            self._publish(frame)
        except (FrameError, ImageError, CalibrationError) as error:
            self._node.drop_invalid(str(error))

    def _tell_silence(self) -> None:
        silence = time.monotonic() - self._last_frame_s
        if self._live and silence > SILENCE_S:
            self._node.say(f'no frame from the camera for {silence:.0f} s')

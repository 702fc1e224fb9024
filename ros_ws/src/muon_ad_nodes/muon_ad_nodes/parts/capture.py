"""What a camera node does with its source: keeps it open, reads it in a thread, stamps frames."""

import threading
from collections.abc import Callable

from diagnostic_msgs.msg import KeyValue

from muon_ad.images import ImageError
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.calibration import CalibrationError
from muon_ad_nodes.parts.fault_injection import FaultInjection
from muon_ad_nodes.parts.frame_clock import FrameClock
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.reconnect import Reconnecting
from muon_ad_nodes.parts.source import EndOfInput
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import FrameError
from muon_ad_nodes.parts.source import Source

WAIT_S = 0.5

STALL = (
    Parameter(
        'stall_s', 5.0,
        'Seconds without a frame after which a camera is closed and opened again; 0: never. Files '
        'do not stall.',
        range=(0.0, 300.0),
    ),
)


class Capture:
    """Reads the source that `open_source` opens, in a thread of its own while it is started, and
    gives each frame, with its stamp in ns of the node's clock, to `publish`.

    A frame that cannot be used is counted and logged. What is wrong with the camera, and the end
    of the input, which ends the thread, stand in the node's status. Any other exception is a
    defect: it ends the process through `node.fail`, to be restarted. `stall_s`, `present` and
    `reset` are those of Reconnecting; `faults` are done to the source on purpose.
    """

    def __init__(
        self,
        node: SuiteNode,
        open_source: Callable[[], Source],
        clock: FrameClock,
        publish: Callable[[Frame, int], None],
        faults: FaultInjection,
        stall_s: float,
        present: Callable[[], bool] | None = None,
        reset: Callable[[], None] | None = None,
    ) -> None:
        self._node = node
        self._clock = clock
        self._publish = publish
        self._faults = faults

        def open_anew() -> Source:
            clock.restart()
            source = open_source()
            realtime.release_memory()   # decoders and textures take much more while they are made
            return source

        self._source = Reconnecting(faults.around(open_anew), stall_s, present, reset)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Open the source unless it is open. Raises SourceError."""
        self._source.open()

    def start(self) -> None:
        """Open the source unless it is open, and begin to read."""
        self._source.open()
        self._faults.begin()
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name='capture')
        self._thread.start()

    def stop(self) -> None:
        """Cease to read, after the frame in work, and close the source."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._faults.end()
        self._source.close()

    def calibration(self, stream: str) -> Calibration | None:
        """Return what the source knows of the camera behind a stream."""
        return self._source.calibration(stream)

    def request_reset(self) -> None:
        """Reset the camera and open it anew."""
        self._source.request_reset()

    def describe(self, status: TaskStatus) -> None:
        """Add how often the source was lost and opened anew, and what is known of its clock."""
        values = {**self._source.values(), **self._clock.values()}
        status.values += [KeyValue(key=key, value=value) for key, value in values.items()]

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                # A driver that never comes back shows in the status as a frame that never ends.
                with self._node.monitor.working(), self._node.in_budget():
                    self._step()
        except EndOfInput as end:
            self._node.get_logger().info(str(end))
            self._node.say(str(end))
        except Exception as error:  # noqa: BLE001 - reported by the node, which then ends
            self._node.fail(error)

    def _step(self) -> None:
        before = self._source.trouble
        try:
            frame = self._source.read(self._stopping, WAIT_S)
            if frame is not None:
                self._node.monitor.received()
                self._publish(frame, self._clock.stamp_ns(frame))
        except (FrameError, ImageError, CalibrationError) as error:
            self._node.drop_invalid(str(error))
        trouble = self._source.trouble
        self._node.say(trouble)
        if trouble and trouble != before:
            self._node.get_logger().warning(trouble)
        elif before and not trouble:
            self._node.get_logger().info('frames come again')

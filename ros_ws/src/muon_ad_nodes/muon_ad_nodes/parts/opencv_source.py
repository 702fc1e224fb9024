"""Frames from a GStreamer pipeline through OpenCV, whose calls may never come back."""

import threading

import cv2

from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.mailbox import Mailbox
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import Request
from muon_ad_nodes.parts.source import SourceError

OPEN_S = 10.0       # until a pipeline that is not open by then is given up
CLOSE_S = 1.0       # until a reader that has not ended by then is left behind
RETRY_S = 0.1
MOST_STUCK = 8
_STUCK = 'stuck in OpenCV'      # name of a thread that was left behind


def stuck_readers() -> int:
    """Return how many threads of this process were left behind in OpenCV, and are there yet."""
    return sum(thread.name == _STUCK for thread in threading.enumerate())


class OpenCvSource:
    """A GStreamer pipeline through OpenCV. Live.

    Where Argus stalls, OpenCV waits for a frame without limit. So a thread of its own opens, reads
    and releases the pipeline, and hands over the newest frame; `read` returns in time. A thread
    that does not come back is left behind: it ends, and lets go of the camera, once it can.
    """

    def __init__(self, pipeline: str, sink: str, request: Request) -> None:
        """Open the pipeline; SourceError where that fails or takes longer than OPEN_S."""
        if stuck_readers() >= MOST_STUCK:
            raise SourceError(
                f'{MOST_STUCK} threads are stuck in OpenCV, as the pipeline gives neither frames '
                'nor errors; restart nvargus-daemon, then this node'
            )
        self._pipeline = pipeline
        self._request = request
        self._frames: Mailbox[Frame] = Mailbox()
        self._trouble = ''
        self._opened = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(f'{pipeline} ! {sink}',), name='opencv', daemon=True
        )
        self._thread.start()
        opened = self._opened.wait(OPEN_S)
        if self._trouble or not opened:
            self.close()
            raise SourceError(self._trouble or (
                f'OpenCV has not opened the pipeline {pipeline!r} after {OPEN_S:g} s; '
                'nvargus-daemon may need a restart'
            ))

    def read(self, _stopping: threading.Event, timeout_s: float) -> Frame | None:
        """Return the newest frame, or None where none came in time."""
        frame = self._frames.take(timeout_s)
        if frame is None and self._trouble:
            raise SourceError(self._trouble)
        return frame

    def calibration(self, _stream: str) -> Calibration | None:
        """Return None: the pipeline does not know its lens."""
        return None

    def close(self) -> None:
        """Stop the pipeline and let go of the camera, as soon as OpenCV does."""
        self._closing.set()
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._thread.name = _STUCK

    # What the thread does.

    def _run(self, pipeline: str) -> None:
        try:
            self._capture_all(cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER))
        except cv2.error as error:
            self._trouble = f'OpenCV: {error}'
        finally:
            self._opened.set()
            self._frames.close()

    def _capture_all(self, capture: cv2.VideoCapture) -> None:
        if not capture.isOpened():
            self._trouble = (
                f'OpenCV cannot open the pipeline {self._pipeline!r}; try it with gst-launch-1.0, '
                'with fakesink at its end, to see why'
            )
            return
        self._opened.set()
        number, last_ms = 0, 0.0
        while not self._closing.is_set():
            good, pixels = capture.read()
            if not good:    # at once where the pipeline has ended
                self._closing.wait(RETRY_S)
                continue
            arrival_ns = self._request.now_ns()
            # The buffer's time, in the clock of the pipeline; not every OpenCV has it.
            taken_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
            device_ns = round(taken_ms * 1e6) if taken_ms > last_ms else None
            last_ms = max(last_ms, taken_ms)
            self._frames.put(self._request.frame(pixels, arrival_ns, number, device_ns))
            number += 1
        capture.release()

"""Frames from a GStreamer pipeline: a CSI camera through NVIDIA's Argus, or any other.

Two ways lead to GStreamer: PyGObject, and an OpenCV that was built with it, as JetPack's is (the
wheels of the package index are not). The first that is there is taken.
"""

import re
import threading
import time

import cv2
import numpy as np

from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.opencv_source import OpenCvSource
from muon_ad_nodes.parts.source import DEFAULT_FPS
from muon_ad_nodes.parts.source import EndOfInput
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import Request
from muon_ad_nodes.parts.source import SourceError

try:
    import gi

    gi.require_version('Gst', '1.0')
    gi.require_version('GstApp', '1.0')
    from gi.repository import GLib
    from gi.repository import Gst
    from gi.repository import GstApp
except (ImportError, ValueError):   # ValueError: no bindings of that version
    Gst = None

# A mode of the IMX219 that covers its full field of view at 30 frames a second and more.
SIZE = (1280, 720)
FIRST_FRAME_S = 5.0
SLICE_S = 0.1       # an error of the pipeline is seen after this long
# BGRx costs no conversion on the CPU before it gets here; one buffer holds the newest frame.
_SINK = 'appsink name=sink drop=true max-buffers=1 sync=false caps=video/x-raw,format=BGRx'


def argus_pipeline(sensor_id: int, request: Request) -> str:
    """Return the pipeline of a CSI camera up to, not including, its sink.

    Argus chooses the sensor's mode by these caps (facts of NVIDIA's nvarguscamerasrc).
    """
    width, height = request.size_for(*SIZE)
    fps = request.fps or DEFAULT_FPS
    return (
        f'nvarguscamerasrc sensor-id={sensor_id} ! video/x-raw(memory:NVMM),width={width},'
        f'height={height},framerate={round(fps)}/1,format=NV12 ! nvvidconv ! '
        'video/x-raw,format=BGRx'
    )


def opencv_has_gstreamer() -> bool:
    """Return whether OpenCV was built with GStreamer; its list of backends does not tell."""
    return re.search(r'GStreamer:\s+YES', cv2.getBuildInformation()) is not None


def open_gstreamer(pipeline: str, request: Request) -> 'GObjectSource | OpenCvSource':
    """Open the pipeline with what is there; SourceError says what to install where nothing is."""
    if Gst is not None:
        return GObjectSource(pipeline, request)
    if opencv_has_gstreamer():
        return OpenCvSource(pipeline, _SINK, request)
    raise SourceError(
        'source argus needs GStreamer from Python, and there is none: install the system packages '
        'python3-gi and gir1.2-gst-plugins-base-1.0 (a virtual environment sees them with '
        '--system-site-packages), or use an OpenCV built with GStreamer, as in JetPack'
    )


class GObjectSource:
    """A GStreamer pipeline through PyGObject. Live."""

    def __init__(self, pipeline: str, request: Request) -> None:
        self._request = request
        self._number = 0
        Gst.init(None)
        try:
            self._pipeline = Gst.parse_launch(f'{pipeline} ! {_SINK}')
        except GLib.Error as error:
            raise SourceError(
                f'GStreamer cannot build the pipeline {pipeline!r}: {error.message} '
                '(nvarguscamerasrc and nvvidconv come with JetPack)'
            ) from error
        self._sink: GstApp.AppSink = self._pipeline.get_by_name('sink')
        # A live pipeline gives nothing while it is paused, and ends by a failure only.
        paused = self._pipeline.set_state(Gst.State.PAUSED)
        self._live = paused == Gst.StateChangeReturn.NO_PREROLL
        self._pipeline.set_state(Gst.State.PLAYING)
        try:
            self._await_first(pipeline)
        except (SourceError, EndOfInput):
            self.close()
            raise

    def read(self, _stopping: threading.Event, timeout_s: float) -> Frame | None:
        """Return the next frame, or None where none came in time."""
        sample = self._pull(timeout_s)
        if sample is None:
            return None
        arrival_ns = self._request.now_ns()
        form = sample.get_caps().get_structure(0)
        width, height = form.get_value('width'), form.get_value('height')
        buffer = sample.get_buffer()
        data = np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8)
        bgrx = data.reshape(height, -1)[:, :4 * width].reshape(height, width, 4)
        self._number += 1
        timed = self._live and buffer.pts != Gst.CLOCK_TIME_NONE
        device_ns = buffer.pts if timed else None
        return self._request.frame(bgrx, arrival_ns, self._number - 1, device_ns)

    def calibration(self, _stream: str) -> Calibration | None:
        """Return None: the pipeline does not know its lens."""
        return None

    def close(self) -> None:
        """Stop the pipeline and let go of the camera."""
        self._pipeline.set_state(Gst.State.NULL)

    def _await_first(self, pipeline: str) -> None:
        deadline = time.monotonic() + FIRST_FRAME_S
        while self._pull(SLICE_S) is None:
            if time.monotonic() > deadline:
                raise SourceError(
                    f'no frame within {FIRST_FRAME_S:g} s from pipeline {pipeline!r}'
                )

    def _pull(self, timeout_s: float) -> 'Gst.Sample | None':
        sample = self._sink.try_pull_sample(round(timeout_s * Gst.SECOND))
        if sample is None:
            message = self._pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
            if message is not None:
                error, details = message.parse_error()
                raise SourceError(f'GStreamer: {error.message} {" ".join(details.split())}')
            if self._sink.is_eos() and self._live:
                raise SourceError('the pipeline of the camera ended')
            if self._sink.is_eos():
                raise EndOfInput('end of input: the pipeline ended')
        return sample

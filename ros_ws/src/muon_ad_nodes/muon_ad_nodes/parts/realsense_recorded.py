"""What a RealSense camera saw before: a recording of Intel's SDK, .bag or .db3."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from muon_ad.bags import BagError
from muon_ad.bags import open_bag
from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.realsense_frames import Framer
from muon_ad_nodes.parts.realsense_sdk import require_sdk
from muon_ad_nodes.parts.realsense_sdk import rs
from muon_ad_nodes.parts.source import EndOfInput
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import SourceError

SUFFIXES = ('.bag', '.db3')
REMEMBERED = 32     # more framesets than pass before the SDK obeys a seek


class RecordedCamera:
    """A recording, through the SDK's pipeline, which synchronises it as it does a camera.

    At its own pace (`real_time`) it is as a live camera, and whoever is late loses frames; else
    it waits for whoever reads, and every frameset that the SDK puts together is delivered. Plays
    from the first `read` on.
    """

    def __init__(
        self, path: Path, framer: Framer, now_ns: Callable[[], int], real_time: bool, loop: bool
    ) -> None:
        """Open the file; SourceError where it is none, is damaged, or lacks a stream."""
        require_sdk()
        _check(path)
        self._path = path
        self._framer = framer
        self._now_ns = now_ns
        self._real_time = real_time
        self._loop = loop
        self._pipeline: rs.pipeline | None = None
        self._delivered = 0
        self._recent: deque[tuple[int, int | None]] = deque(maxlen=REMEMBERED)
        self._open()

    def read(self, _stopping: threading.Event, timeout_s: float) -> Frame | None:
        """Return the next frame, when it is due or at once."""
        if self._pipeline is None:
            self._start()
        arrived, frames = self._pipeline.try_wait_for_frames(round(timeout_s * 1e3))
        if arrived:
            return self._new(self._framer.frame(frames, self._now_ns()))
        if self._player.current_status() == rs.playback_status.stopped:
            self._end()
        return None

    def calibration(self, stream: str) -> Calibration | None:
        """Return the recorded intrinsics; None before the first frame."""
        return self._framer.calibrations.get(stream)

    def close(self) -> None:
        """Close the file."""
        if self._pipeline is not None:
            self._pipeline.stop()
        self._pipeline = self._player = self._config = None

    def _open(self) -> None:
        self._config = rs.config()
        self._config.enable_device_from_file(str(self._path), repeat_playback=False)
        try:
            profile = self._config.resolve(rs.pipeline_wrapper(rs.pipeline()))
        except RuntimeError as error:
            raise _unplayable(self._path, error) from error
        recorded = {stream.stream_type().name for stream in profile.get_streams()}
        lacking = [name for name in self._framer.streams if name not in recorded]
        if lacking:
            raise SourceError(
                f'{self._path}: recorded without {" and ".join(lacking)} (it has '
                f'{", ".join(sorted(recorded)) or "no streams"}); set '
                f'{" and ".join(f"enable_{name}" for name in lacking)} to false'
            )
        self._player = profile.get_device().as_playback()
        # Before it starts: the first frames would be lost to whoever is late.
        self._player.set_real_time(self._real_time)

    def _start(self) -> None:
        self._framer.forget()
        self._recent.clear()
        self._delivered = 0
        self._pipeline = rs.pipeline()
        self._pipeline.start(self._config)
        if not self._real_time:
            # Once more from the beginning: frames of the sensor that starts first may have passed
            # before the next one has. (Pausing meanwhile holds the SDK up for 10 s at times.)
            self._player.seek(timedelta())

    def _new(self, frame: Frame | None) -> Frame | None:
        """Count a frame; None for one that came already, before the SDK went back to the start."""
        if frame is None or (mark := (frame.number, frame.device_ns)) in self._recent:
            return None
        self._recent.append(mark)
        self._delivered += 1
        return frame

    def _end(self) -> None:
        """Start over, or raise EndOfInput."""
        delivered = self._delivered
        self.close()
        if not self._loop or not delivered:
            raise EndOfInput(f'end of input after {delivered} frames')
        self._open()


def _check(path: Path) -> None:
    """Raise SourceError for what the SDK would not name well, or take for something else."""
    expected = f'expected a recording of the SDK, ending in {" or ".join(SUFFIXES)}'
    if not path.is_file():
        there = 'a folder' if path.is_dir() else 'not there'
        raise SourceError(f'parameter path is {str(path)!r}, which is {there}; {expected}')
    if path.suffix not in SUFFIXES:
        raise SourceError(f'parameter path is {str(path)!r}; {expected}')
    if path.stat().st_size == 0:
        raise SourceError(f'{path}: the file is empty (0 bytes); {expected}')
    if path.suffix == '.bag':
        _check_records(path)


def _check_records(path: Path) -> None:
    """Raise SourceError for a .bag whose records do not follow one another to its index.

    The SDK looks for the next record of such a file for ever, and cannot be stopped. Chunks are
    passed over; what is damaged within one, the SDK leaves out.
    """
    try:
        with open_bag(path) as bag:
            trouble = bag.trouble
    except BagError as error:
        trouble = str(error)
    if trouble:
        raise _unplayable(path, trouble)


def _unplayable(path: Path, why: object) -> SourceError:
    return SourceError(
        f'{path}: the SDK cannot play it ({why}); expected a whole recording of the SDK or of '
        'realsense-viewer'
    )

"""A source of frames that is opened again, for as long as it takes, when its camera is lost."""

import threading
import time
from collections.abc import Callable

from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import FrameError
from muon_ad_nodes.parts.source import Source
from muon_ad_nodes.parts.source import SourceError

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 10.0
POLL_S = 0.25       # looking whether the camera is back
FIRST_FRAME_S = 5.0     # what any camera may take from being opened
SILENCE_S = 2.0     # without frames, before there is a word of it
RESET_EVERY = 3     # each so many attempts without a frame, a camera that is there is reset


class Reconnecting:
    """A source itself, around what `open_source` opens.

    A SourceError, or `stall_s` without a frame (0: never; FIRST_FRAME_S at least for the first
    frame), closes the source; it is opened again with doubling delays, at once when `present`
    tells that the camera is back, and `read` returns None meanwhile. Where opening it alone does
    not help, `reset` is called. `trouble` says what is wrong, empty while frames come.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        stall_s: float,
        present: Callable[[], bool] | None = None,
        reset: Callable[[], None] | None = None,
    ) -> None:
        self.trouble = ''
        self.losses = self.stalls = self.reopened = self.resets = 0
        self._open_source = open_source
        self._stall_s = stall_s
        self._present = present
        self._reset = reset
        self._reset_asked = threading.Event()
        self._source: Source | None = None
        self._heard_s: float | None = None
        self._patience_s = 0.0
        self._attempt = 0       # since the last frame
        self._due_s = 0.0
        self._absent = False

    def open(self) -> None:
        """Open the source unless it is open; raises what `open_source` does."""
        if self._source is None:
            self.trouble = ''
            self._attempt = 0
            self._reset_asked.clear()
            self._source = self._open_source()
        self._expect_first()

    def read(self, stopping: threading.Event, timeout_s: float) -> Frame | None:
        """Return the next frame, or None while there is none to be had."""
        if self._reset_asked.is_set() and self._source is not None:
            self._lose('reset on request')
        if self._source is None and not self._reopen(stopping, timeout_s):
            return None
        self._heard_s = self._heard_s or time.monotonic()
        try:
            frame = self._source.read(stopping, timeout_s)
        except SourceError as error:
            self.losses += 1
            self._lose(str(error))
            return None
        except FrameError:
            self._heard()
            raise
        if frame is None:
            self._watch(stopping)
        else:
            self._heard()
        return frame

    def calibration(self, stream: str) -> Calibration | None:
        """Return what the source knows of the camera behind a stream; None while it is lost."""
        return self._source.calibration(stream) if self._source else None

    def request_reset(self) -> None:
        """Reset the camera, and open it anew, with the next `read`. From any thread."""
        self._reset_asked.set()

    def close(self) -> None:
        """Close the source."""
        if self._source is not None:
            source, self._source = self._source, None
            source.close()

    def values(self) -> dict[str, str]:
        """Return the counters by name, for the status."""
        return {
            'losses': str(self.losses),
            'stalls': str(self.stalls),
            'reopened': str(self.reopened),
            'resets': str(self.resets),
        }

    def _expect_first(self) -> None:
        self._heard_s = None
        self._patience_s = max(self._stall_s, FIRST_FRAME_S)

    def _heard(self) -> None:
        self._heard_s = time.monotonic()
        self._patience_s = self._stall_s
        self._attempt = 0
        self.trouble = ''

    def _watch(self, stopping: threading.Event) -> None:
        if not self._stall_s or stopping.is_set():
            return
        silence_s = time.monotonic() - self._heard_s
        if silence_s > self._patience_s:
            self.stalls += 1
            self._lose(f'no frame from the camera for {silence_s:.1f} s')
        elif silence_s > SILENCE_S and not self._attempt:
            self.trouble = f'no frame from the camera for more than {SILENCE_S:g} s'

    def _lose(self, why: str) -> None:
        self.close()
        self._absent = False
        self._retry_later(why)

    def _retry_later(self, why: str) -> None:
        delay_s = min(FIRST_DELAY_S * 2.0 ** min(self._attempt, 10), LONGEST_DELAY_S)
        self._attempt += 1
        self._due_s = time.monotonic() + delay_s
        self.trouble = f'{why}; attempt {self._attempt} to open the camera in {delay_s:g} s'

    def _reopen(self, stopping: threading.Event, timeout_s: float) -> bool:
        """Open the source when that is due; False where it is not, or failed."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < self._due_s and not self._came_back():
            if time.monotonic() >= deadline or stopping.wait(POLL_S):
                return False
        try:
            if self._reset_where_futile():
                self._retry_later('the camera was reset')
                return False
            self._source = self._open_source()
        except SourceError as error:
            self._retry_later(str(error))
            return False
        self.reopened += 1
        self._expect_first()
        return True

    def _came_back(self) -> bool:
        """Whether the camera is there and was not, when that was asked the last time."""
        if self._present is None:
            return False
        try:
            present = self._present()
        except SourceError:     # the bus could not be asked: it changes
            present = False
        was_absent, self._absent = self._absent, not present
        return was_absent and present

    def _reset_where_futile(self) -> bool:
        """Reset a camera that is there and was asked for, or tried in vain; whether that was."""
        wanted = self._reset_asked.is_set() or self._attempt % RESET_EVERY == 0
        self._reset_asked.clear()
        if self._reset is None or not wanted or not (self._present is None or self._present()):
            return False
        self._reset()
        self.resets += 1
        return True

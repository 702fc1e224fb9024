"""The demo's pictures: camera, stylised, detections; as a video and a contact sheet."""

from pathlib import Path

import cv2
import numpy as np

from muon_ad.drawing import draw_detections
from muon_ad.drawing import panel
from muon_ad_nodes.demo.recorder import Snapshot

PANEL = (400, 300)
VIDEO_FPS = 10
SHEET_ROWS = 6


def compose(snapshots: dict[str, Snapshot]) -> np.ndarray:
    """Return one picture, uint8 RGB: a row a camera of frame, stylised frame and detections."""
    rows = []
    for camera, shown in snapshots.items():
        found = None
        if shown.searched is not None and shown.detections is not None:
            found = draw_detections(shown.searched, shown.detections)
        rows.append(
            np.hstack(
                [
                    panel(shown.frame, f'{camera}: camera', PANEL),
                    panel(shown.stylised, f'{camera}: stylised', PANEL),
                    panel(found, f'{camera}: detections', PANEL),
                ]
            )
        )
    return np.vstack(rows)


class Film:
    """Writes composed pictures to an MP4 at a fixed rate, and samples them for a contact sheet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: cv2.VideoWriter | None = None
        self._stills: list[np.ndarray] = []
        self._frames = 0
        self._every = VIDEO_FPS // 2

    def add(self, picture: np.ndarray) -> None:
        """Append a picture (uint8 RGB); raises OSError where the video cannot be written."""
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        if self._writer is None:
            size = (bgr.shape[1], bgr.shape[0])
            code = cv2.VideoWriter_fourcc(*'mp4v')
            self._writer = cv2.VideoWriter(str(self._path), code, VIDEO_FPS, size)
            if not self._writer.isOpened():
                raise OSError(f'cannot write the video {self._path}')
        self._writer.write(bgr)
        if self._frames % self._every == 0:
            self._keep(bgr)
        self._frames += 1

    def _keep(self, bgr: np.ndarray) -> None:
        """Keep stills evenly spread over a film of unknown length, in bounded memory."""
        self._stills.append(bgr)
        if len(self._stills) > 8 * SHEET_ROWS:
            self._stills = self._stills[::2]
            self._every *= 2

    def close(self, sheet: Path) -> None:
        """Finish the video and write the contact sheet."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        if self._stills:
            # The first still may lack results, so samples lie inside the film.
            places = np.linspace(0, len(self._stills) - 1, SHEET_ROWS + 1)[1:]
            chosen = [self._stills[i] for i in sorted({round(place) for place in places})]
            cv2.imwrite(str(sheet), np.vstack(chosen))

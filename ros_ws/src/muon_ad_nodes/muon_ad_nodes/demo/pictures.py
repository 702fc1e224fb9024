"""The demo's pictures: camera, stylised, detections; as a video and a contact sheet."""

from pathlib import Path

import cv2
import numpy as np

from muon_ad_msgs.msg import DetectionArray
from muon_ad_nodes.demo.recorder import Snapshot

PANEL = (400, 300)
CAPTION_HEIGHT = 26
VIDEO_FPS = 10
SHEET_ROWS = 6

_BOX = (80, 220, 60)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def compose(snapshots: dict[str, Snapshot]) -> np.ndarray:
    """Return one picture, uint8 RGB: a row a camera of frame, stylised frame and detections."""
    rows = []
    for camera, shown in snapshots.items():
        found = draw_detections(shown.searched, shown.detections)
        rows.append(
            np.hstack(
                [
                    _panel(shown.frame, f'{camera}: camera'),
                    _panel(shown.stylised, f'{camera}: stylised'),
                    _panel(found, f'{camera}: detections'),
                ]
            )
        )
    return np.vstack(rows)


def draw_detections(
    picture: np.ndarray | None, detections: DetectionArray | None
) -> np.ndarray | None:
    """Return a copy of `picture` with boxes, labels, scores and distances."""
    if picture is None or detections is None:
        return None
    picture = picture.copy()
    scale = picture.shape[1] / 640
    for found in detections.detections:
        corner = (round(found.x_min), round(found.y_min))
        opposite = (round(found.x_max), round(found.y_max))
        cv2.rectangle(picture, corner, opposite, _BOX, max(1, round(3 * scale)), cv2.LINE_AA)
        text = f'{found.label} {found.score:.2f}'
        if found.position_valid:
            text += f' {found.position.z:.1f} m'
        _label(picture, text, corner, scale)
    return picture


def _label(picture: np.ndarray, text: str, corner: tuple[int, int], scale: float) -> None:
    size, thick = 0.7 * scale, max(1, round(2 * scale))
    (width, height), base = cv2.getTextSize(text, _FONT, size, thick)
    left = max(0, min(corner[0], picture.shape[1] - width))
    bottom = max(height + base, corner[1])
    cv2.rectangle(picture, (left, bottom - height - base), (left + width, bottom), _BOX, -1)
    cv2.putText(
        picture, text, (left, bottom - base // 2), _FONT, size, (0, 0, 0), thick, cv2.LINE_AA
    )


def _panel(picture: np.ndarray | None, caption: str) -> np.ndarray:
    """Return a picture of panel size with a caption; a grey one where there is no picture yet."""
    width, height = PANEL
    panel = np.full((height + CAPTION_HEIGHT, width, 3), 24, np.uint8)
    cv2.putText(
        panel, caption, (8, CAPTION_HEIGHT - 8), _FONT, 0.55, (235, 235, 235), 1, cv2.LINE_AA
    )
    if picture is not None:
        scale = min(width / picture.shape[1], height / picture.shape[0])
        size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        fitted = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        left, top = (width - size[0]) // 2, CAPTION_HEIGHT + (height - size[1]) // 2
        panel[top : top + size[1], left : left + size[0]] = fitted
    return panel


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

"""A replay to look at: a contact sheet, and the frame that differs most from a stored run."""

import os
from pathlib import Path

import cv2
import numpy as np

from muon_ad.drawing import BOX
from muon_ad.drawing import draw_detections
from muon_ad.drawing import panel
from muon_ad.drawing import zoom_for
from muon_ad.replay.compare import Difference
from muon_ad.replay.error import ReplayError
from muon_ad.replay.pipeline import Frame

PANEL = (320, 240)
ROWS = 8
AMPLIFIED = 8

_EXPECTED = BOX
_GOT = (240, 90, 60)


class Sheet:
    """Samples frames evenly over a run of unknown length, in bounded memory."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._every = 1
        self._seen = 0

    def add(self, frame: Frame) -> None:
        """Take a frame; dropped ones have nothing to show."""
        if frame.rgb is None:
            return
        if self._seen % self._every == 0:
            self._rows.append(row_of(frame))
            if len(self._rows) == 2 * ROWS:
                self._rows = self._rows[::2]
                self._every *= 2
        self._seen += 1

    def save(self, path: Path) -> None:
        """Write the sheet. Raises ReplayError where nothing came or the file cannot be written."""
        if not self._rows:
            raise ReplayError(f'{path}: no image could be used, so there is no picture')
        places = np.linspace(0, len(self._rows) - 1, min(ROWS, len(self._rows)))
        save(path, np.vstack([self._rows[round(place)] for place in places]))


def row_of(frame: Frame) -> np.ndarray:
    """Return image, stylised image and detections side by side, uint8 RGB."""
    found = None
    if frame.detections is not None:
        zoom = zoom_for(frame.rgb, 2 * PANEL[0])
        found = draw_detections(frame.rgb, frame.detections, zoom=zoom)
    title = f'{frame.number}: {frame.stamp_ns * 1e-9:.2f} s'
    return np.hstack([
        panel(frame.rgb, title, PANEL),
        panel(frame.stylised, 'stylised', PANEL),
        panel(found, 'detections', PANEL),
    ])


def can_draw(difference: Difference | None) -> bool:
    """Whether there is a difference beyond its limits that `worst_picture` can show."""
    if difference is None or difference.worse <= 1:
        return False
    pair = (difference.expected, difference.got)
    return (all(hasattr(each, 'detections') for each in pair)
            or all(isinstance(each, np.ndarray) for each in pair))


def worst_picture(difference: Difference) -> np.ndarray:
    """Return expected, got and their difference side by side, uint8 RGB.

    Of a picture the difference is amplified; of detections both are drawn into the image, in one
    picture without labels, which would cover each other.
    """
    size = (480, 360)
    if hasattr(difference.expected, 'detections'):
        shape = (difference.expected.image_height, difference.expected.image_width, 3)
        source = np.full(shape, 60, np.uint8) if difference.source is None else difference.source
        zoom = zoom_for(source, 2 * size[0])
        expected = draw_detections(source, difference.expected, _EXPECTED, zoom)
        got = draw_detections(source, difference.got, _GOT, zoom)
        boxes = (
            draw_detections(source, difference.expected, _EXPECTED, zoom, labels=False),
            draw_detections(source, difference.got, _GOT, zoom, labels=False),
        )
        pictures = (expected, got, cv2.addWeighted(boxes[0], 0.5, boxes[1], 0.5, 0))
        titles = ('expected', 'got', 'both')
    else:
        pictures = (
            _shown(difference.expected), _shown(difference.got), _amplified(difference),
        )
        titles = ('expected', 'got', f'difference x {AMPLIFIED}')
    panels = np.hstack([
        panel(picture, title, size) for picture, title in zip(pictures, titles, strict=True)
    ])
    text = f'frame {difference.number} of {difference.topic}: {difference}'
    return np.vstack([panel(None, text, (panels.shape[1], 0)), panels])


def can_save(path: Path) -> bool:
    """Whether the ending of a name is that of a picture that can be written."""
    try:
        return cv2.haveImageWriter(str(path))
    except cv2.error:       # no ending at all
        return False


def refused(path: Path) -> str:
    """Return why a file cannot be written at `path`, '' where nothing speaks against it."""
    if path.is_dir():
        return 'it is a folder'
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if there != path and not there.is_dir():
        return f'{there} is no folder'
    return '' if os.access(there, os.W_OK) else f'{there} is write-protected'


def save(path: Path, rgb: np.ndarray) -> None:
    """Write a picture; raises ReplayError where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    except (OSError, cv2.error) as error:
        raise ReplayError(f'{path}: cannot be written: {error}') from error
    if not written:
        raise ReplayError(f'{path}: cannot be written; expected a name such as sheet.png')


def _amplified(difference: Difference) -> np.ndarray | None:
    expected, got = _shown(difference.expected), _shown(difference.got)
    if expected.shape != got.shape:
        return None
    apart = np.abs(expected.astype(np.int16) - got) * AMPLIFIED
    return np.minimum(apart, 255).astype(np.uint8)


def _shown(picture: np.ndarray) -> np.ndarray:
    """Return a picture as it is, depth as grey: black is unknown, white 8 m and farther."""
    if picture.ndim == 3:
        return picture
    metres = picture / 1000 if picture.dtype == np.uint16 else np.nan_to_num(picture)
    return cv2.cvtColor(np.clip(metres / 8 * 255, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2RGB)

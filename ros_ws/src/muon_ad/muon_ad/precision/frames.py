"""Frames to calibrate with and to measure on: pictures, a video, or the project's own scene."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from muon_ad.precision.error import PrecisionError
from muon_ad.scene import Scene
from muon_ad.scene import SceneError
from muon_ad.scene import View
from muon_ad.train.images import load_images

# Of so many frames one measures, and does not calibrate.
HELD_OUT = 4
_SIDE = 480
_VIEW_DEG = 60.0
# Seconds between frames of the scene: its motions have periods of 3 to 17 s.
_STEP_S = 2.7


def read_frames(source: Path | None, count: int) -> list[np.ndarray]:
    """Return up to `count` frames, uint8 [H, W, 3] RGB, evenly chosen.

    `source` is a folder of pictures, a picture or a video; None renders the scene of
    muon_ad.scene at several times. Raises PrecisionError where the count is too small, and
    DataError where the source holds no picture.
    """
    if count < HELD_OUT:
        raise PrecisionError(f'count is {count}; expected {HELD_OUT} frames or more')
    if source is None:
        return _scene(count)
    found = load_images([source], _SIDE, count)
    if len(found) < HELD_OUT:
        raise PrecisionError(f'{source}: {len(found)} frames; expected {HELD_OUT} or more')
    chosen = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [found[index] for index in chosen]


def _scene(count: int) -> list[np.ndarray]:
    try:
        scene = Scene(View.from_fov(_SIDE * 4 // 3, _SIDE, _VIEW_DEG))
        frames = [scene.rgb(_STEP_S * index) for index in range(count)]
    except SceneError as error:
        raise PrecisionError(f'{error}; or name pictures with --frames') from error
    # Dark and bright rooms, too: a camera's exposure is not always right.
    gains = (1.0, 0.5, 1.4)
    return [cv2.convertScaleAbs(frame, alpha=gains[index % len(gains)])
            for index, frame in enumerate(frames)]


def hold_out(frames: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Divide frames into those to calibrate with and those to measure on."""
    held = set(range(HELD_OUT - 1, len(frames), HELD_OUT))
    return ([frame for index, frame in enumerate(frames) if index not in held],
            [frames[index] for index in sorted(held)])

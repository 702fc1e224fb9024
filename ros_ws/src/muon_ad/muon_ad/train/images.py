"""Training images held in memory: folders and video frames in, random crops out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from tqdm import tqdm

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp')
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mkv', '.mov')
HELD_OUT = 8    # one picture of so many validates
Picture = TypeVar('Picture')


class DataError(ValueError):
    """Training data is missing or unreadable; the message names the path."""


def load_images(sources: Sequence[Path], side: int, frames: int = 60) -> list[np.ndarray]:
    """Load every image of the given folders, and `frames` spread over every video in them.

    A source is a folder (searched without subfolders), an image or a video. Images become uint8
    RGB with a short side of `side` pixels. Raises DataError where a source does not exist, holds
    nothing, or a file cannot be decoded.
    """
    paths = [path for source in sources for path in _files(Path(source))]
    images: list[np.ndarray] = []
    for path in tqdm(paths, desc='reading images', unit='file'):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            images += [_scaled(frame, side) for frame in _video_frames(path, frames)]
        else:
            images.append(_scaled(_read(path), side))
    return images


def _files(source: Path) -> list[Path]:
    if not source.exists():
        raise DataError(f'{source}: no such file or folder')
    known = IMAGE_SUFFIXES + VIDEO_SUFFIXES
    candidates = sorted(source.iterdir()) if source.is_dir() else [source]
    found = [path for path in candidates if path.suffix.lower() in known]
    if not found:
        raise DataError(f'{source}: no image or video in it; expected one of {known}')
    return found


def _read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f'{path}: cannot be decoded as an image')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _video_frames(path: Path, count: int) -> list[np.ndarray]:
    """Return up to `count` frames, evenly spread; read in order, since seeking is unreliable."""
    capture = cv2.VideoCapture(str(path))
    try:
        total = max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        step = max(1, total // count)
        found = []
        for index in range(total):
            if not capture.grab():
                break
            if index % step == 0:
                good, frame = capture.retrieve()
                if good:
                    found.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    if not found:
        raise DataError(f'{path}: cannot be decoded as a video')
    return found[:count]


def _scaled(image: np.ndarray, side: int) -> np.ndarray:
    ratio = side / min(image.shape[:2])
    size = [max(side, round(n * ratio)) for n in image.shape[1::-1]]
    method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=method)


def hold_out(pictures: Sequence[Picture]) -> tuple[list[Picture], list[Picture]]:
    """Divide pictures into those to learn from and, of each eight, one to validate with.

    Raises DataError for fewer than two.
    """
    if len(pictures) < 2:
        raise DataError(f'{len(pictures)} pictures; some are to validate with, so 2 or more are '
                        'needed: give more, or --curriculum off')
    held = set(range(HELD_OUT - 1, len(pictures), HELD_OUT)) or {len(pictures) - 1}
    return ([each for index, each in enumerate(pictures) if index not in held],
            [pictures[index] for index in sorted(held)])


def random_crop(
    images: Sequence[np.ndarray], size: int, rng: np.random.Generator,
    zoom: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """Return a random, possibly mirrored crop, uint8 [size, size, 3].

    It shows a square of `zoom[0]`..`zoom[1]` times `size` pixels, or what the image has.
    """
    image = images[rng.integers(len(images))]
    side = min(round(size * rng.uniform(*zoom)), *image.shape[:2])
    top = rng.integers(image.shape[0] - side + 1)
    left = rng.integers(image.shape[1] - side + 1)
    crop = image[top:top + side, left:left + side]
    if side != size:
        method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        crop = cv2.resize(crop, (size, size), interpolation=method)
    return crop[:, ::-1] if rng.random() < 0.5 else crop

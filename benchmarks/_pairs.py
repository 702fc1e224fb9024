"""Pairs of a photograph and a style for the benchmark of latents, of one size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from _common import ROOT
from skimage import data

STYLES = ROOT / 'models' / 'style_default' / 'styles'
# Photographs that come with scikit-image, and styles that the project draws itself.
PAIRS = (('astronaut', 'mosaic'), ('chelsea', 'swirls'), ('coffee', 'ink_wash'),
         ('rocket', 'waves'))


@dataclass(frozen=True)
class Pair:
    """Content and style, uint8 [size, size, 3] RGB; `style_path` is the file of the style."""

    name: str
    content: np.ndarray
    style: np.ndarray
    style_path: Path


def default_pairs(size: int, count: int) -> list[Pair]:
    """Return the first `count` of PAIRS."""
    found = []
    for photo, style in PAIRS[:count]:
        path = STYLES / f'{style}.png'
        found.append(Pair(f'{photo}, {style}', square(getattr(data, photo)(), size),
                          square(read(path), size), path))
    return found


def given_pairs(size: int, paths: Sequence[tuple[Path, Path]]) -> list[Pair]:
    """Return pairs of files. Raises FileNotFoundError for one that cannot be read."""
    return [Pair(f'{content.stem}, {style.stem}', square(read(content), size),
                 square(read(style), size), style) for content, style in paths]


def read(path: Path) -> np.ndarray:
    """Return a picture as uint8 RGB. Raises FileNotFoundError for what is none."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(f'{path}: no picture that can be read')
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def square(picture: np.ndarray, size: int) -> np.ndarray:
    """Return the largest square in the middle, at `size` pixels a side."""
    side = min(picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    cut = picture[top:top + side, left:left + side]
    method = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(cut, (size, size), interpolation=method)

"""Stylises frames with a style package; the style can be changed while frames are running."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from muon_ad.paths import expanded
from muon_ad.picture_files import PictureFileError
from muon_ad.picture_files import read_picture
from muon_ad.runtime.engine import Engine
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import Variant

STYLE_SIZE = 256  # side of the image that the encoder takes
STEP = 8  # the network takes multiples of it
SMALLEST = 16  # a style image below this holds no strokes to speak of


class StyleError(ValueError):
    """A style, frame or package cannot be used for stylising; the message says which and why."""


class _Level:
    """One variant, ready for frames: its engine, and a buffer for those of another size."""

    def __init__(self, variant: Variant, engine: Engine, resize: str) -> None:
        self.variant = variant
        self.engine = engine
        self._fits = resize == 'fit'
        self._frame = np.empty((1, variant.height, variant.width, 3), np.uint8)

    def size(self, rgb: np.ndarray) -> tuple[int, int]:
        """Return width and height that the network works at for such a frame."""
        limit = (self.variant.width, self.variant.height)
        return fitting(rgb.shape[1::-1], limit) if self._fits else limit

    def fitted(self, rgb: np.ndarray) -> np.ndarray:
        """Return the frame as [1, h, w, 3] at the network's size, without a copy if it is so."""
        size = self.size(rgb)
        if self._frame.shape[2:0:-1] != size:
            self._frame = np.empty((1, size[1], size[0], 3), np.uint8)
        if rgb.shape[1::-1] != size:
            shrinks = rgb.shape[1] > size[0] or rgb.shape[0] > size[1]
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            cv2.resize(rgb, size, dst=self._frame[0], interpolation=method)
            return self._frame
        if rgb.flags.c_contiguous:
            return rgb[None]
        np.copyto(self._frame[0], rgb)
        return self._frame


@dataclass
class StyleModel:
    """A style network ready for frames, at the size of one variant, or of several to `use`.

    `lower` names the variants beside the first one, all loaded: those of one file share a session.
    With `same_size` results of the others are resized to the size of the first.

    `stylise` and `use` belong to one thread; `set_style` may be called from another at any time,
    and the next frame uses the new style. Raises StyleError where the package is not of task
    `style`.
    """

    package: ModelPackage
    variant_name: str = ''
    options: EngineOptions = field(default_factory=EngineOptions)
    lower: Sequence[str] = ()
    same_size: bool = False

    def __post_init__(self) -> None:
        if self.package.task != 'style' or self.package.style_encoder is None:
            raise StyleError(
                f'{self.package.folder}: task is {self.package.task!r}; expected a style package'
            )
        variants = [self.package.variant(name) for name in (self.variant_name, *self.lower)]
        self._levels: list[_Level] = []
        for variant in variants:
            engine = self._engine(variant)
            self._levels.append(_Level(variant, engine, self.package.input.resize))
        self._level = self._levels[0]
        self._resized: np.ndarray | None = None
        images = {name: read_style(path) for name, path in self.package.styles.items()}
        self._known = dict(zip(images, self._encode(list(images.values())), strict=True))
        # One tuple, replaced as a whole, so that a running stylise never sees half a change.
        self._current = (self.package.default_style, self._known[self.package.default_style])

    def _engine(self, variant: Variant) -> Engine:
        """Load a variant, or share the session of one that is loaded."""
        for level in self._levels:
            # TensorRT builds an engine for one size; for two of them it would build anew.
            if level.variant.file == variant.file and level.engine.provider != 'TensorRT':
                return level.engine.twin()
        size = (variant.width, variant.height)
        return Engine(variant.file, replace(self.options, size=size))

    @property
    def variant(self) -> Variant:
        """The variant in use."""
        return self._level.variant

    @property
    def engine(self) -> Engine:
        """The engine of the variant in use."""
        return self._level.engine

    def use(self, index: int) -> None:
        """Use another variant from the next frame on: 0 is the first, then those of `lower`."""
        self._level = self._levels[index]

    @property
    def styles(self) -> tuple[str, ...]:
        """Names of the built-in styles, in the package's order."""
        return tuple(self._known)

    @property
    def style(self) -> str:
        """The style in use: a built-in name, or the path it was read from."""
        return self._current[0]

    def set_style(self, name_or_path: str | Path) -> None:
        """Use a built-in style or the image at a path, from the next frame on.

        Raises StyleError where it is neither; the style in use then stays.
        """
        name = str(name_or_path)
        vector = self._known.get(name)
        if vector is None:
            if not name.strip():
                raise StyleError(f'no style given; expected one of {self.styles} or an image path')
            vector = self._encode([read_style(expanded(name), self.styles)])[0]
        self._current = (name, vector)

    def stylise(self, rgb: np.ndarray) -> np.ndarray:
        """Stylise one frame, uint8 [H, W, 3] RGB of any size.

        Returns uint8 [height, width, 3] at the variant's size (that of the first variant where
        `same_size`), or inside it with the frame's aspect where the package says `resize: fit`: a
        buffer that the next call overwrites. Raises StyleError for a frame that is not such an
        array or is empty.
        """
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
            raise StyleError(
                f'frame is {rgb.dtype} {rgb.shape}; expected uint8 (height, width, 3), not empty'
            )
        feeds = {'image': self._level.fitted(rgb), 'style': self._current[1]}
        result = self._level.engine.run(feeds)[0][0]
        return self._at_first_size(rgb, result) if self.same_size else result

    def _at_first_size(self, rgb: np.ndarray, result: np.ndarray) -> np.ndarray:
        size = self._levels[0].size(rgb)
        if result.shape[1::-1] == size:
            return result
        if self._resized is None or self._resized.shape[1::-1] != size:
            self._resized = np.empty((size[1], size[0], 3), np.uint8)
        return cv2.resize(result, size, dst=self._resized, interpolation=cv2.INTER_LINEAR)

    def _encode(self, images: list[np.ndarray]) -> list[np.ndarray]:
        """Return a style vector, float32 [1, S], for each image of `read_style`.

        The encoder is loaded for the purpose and dropped: it is needed once per style, and memory
        is short on the robot.
        """
        engine = Engine(self.package.style_encoder, replace(self.options, providers=('cpu',)))
        return [engine.run({'image': image[None]})[0].copy() for image in images]


def fitting(frame: tuple[int, int], limit: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size (width, height) in `limit` of the frame's aspect, in steps of 8."""
    scale = min(limit[0] / frame[0], limit[1] / frame[1])
    return tuple(
        max(STEP, min(most, round(side * scale / STEP) * STEP))
        for side, most in zip(frame, limit, strict=True)
    )


def read_style(path: Path, names: tuple[str, ...] = ()) -> np.ndarray:
    """Read a style image; returns the middle square as uint8 [256, 256, 3] RGB.

    Grey, 16-bit and transparent images (over white) are converted. Raises StyleError naming the
    path and the problem; `names` are the built-in styles to suggest.
    """
    hint = f'; the built-in styles are {names}' if names else ''
    try:
        image = read_picture(path)
    except PictureFileError as error:
        raise StyleError(f'{error}{hint}') from error
    side = min(image.shape[:2])
    if side < SMALLEST:
        raise StyleError(
            f'{path}: {image.shape[1]}x{image.shape[0]} pixels is too small for a style; '
            f'expected at least {SMALLEST}x{SMALLEST}'
        )
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = np.ascontiguousarray(image[top:top + side, left:left + side])
    if side == STYLE_SIZE:
        return square
    method = cv2.INTER_AREA if side > STYLE_SIZE else cv2.INTER_LINEAR
    return cv2.resize(square, (STYLE_SIZE, STYLE_SIZE), interpolation=method)

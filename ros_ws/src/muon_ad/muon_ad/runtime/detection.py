"""Object detection on one frame: prepare, run the network, decode, suppress."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from muon_ad.runtime.boxes import area
from muon_ad.runtime.boxes import Fit
from muon_ad.runtime.boxes import fit
from muon_ad.runtime.boxes import suppress
from muon_ad.runtime.decoders import Candidates
from muon_ad.runtime.decoders import Frame
from muon_ad.runtime.decoders import make_decoder
from muon_ad.runtime.engine import Engine
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.package import InputSpec
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import Variant


class DetectorError(ValueError):
    """A frame, an option or a network does not suit the detector."""


@dataclass(frozen=True)
class Detections:
    """What was found in one frame, highest score first.

    `boxes` float32 [N, 4]: x_min, y_min, x_max, y_max in pixels of the frame, inside it and not
    empty. `scores` float32 [N], 0 to 1. `class_ids` int64 [N], indices into Detector.classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


class Detector:
    """A detection package at work. `detect` is not re-entrant: it owns the network's buffers.

    `keep` names the classes to report (empty: all). `score_threshold`, `iou_threshold` and
    `max_detections` may be changed between frames. Raises DetectorError for an option out of
    range or a network that does not match its package, EngineError where it cannot be loaded,
    PackageError for a variant that does not exist.
    """

    def __init__(
        self,
        package: ModelPackage,
        variant: str = '',
        options: EngineOptions | None = None,
        *,
        score_threshold: float = 0.4,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
        keep: Sequence[str] = (),
    ) -> None:
        if package.task != 'detection':
            raise DetectorError(f'{package.folder}: task is {package.task}; expected detection')
        self.classes = package.classes
        self.variant = package.variant(variant)
        self.engine = Engine(self.variant.file, options or EngineOptions())
        self.score_threshold = _fraction('score_threshold', score_threshold)
        self.iou_threshold = _fraction('iou_threshold', iou_threshold)
        self.max_detections = _positive('max_detections', max_detections)
        self._kept_ids = _ids(keep, self.classes)
        self.reported = tuple(dict.fromkeys(keep)) or self.classes
        self._preparation = Preparation(package.input, self.variant)
        self._input_name = _only_input(self.engine)
        decoder = dict(package.decoder)
        frame = Frame(self.variant.width, self.variant.height, len(self.classes))
        try:
            self._decode = make_decoder(decoder.pop('name'), frame, decoder)
            # A first run, so that a network of another format fails here and not in the stream.
            self.detect(np.zeros((self.variant.height, self.variant.width, 3), np.uint8))
        except ValueError as error:
            raise DetectorError(f'{package.folder}/model.yaml: {error}') from error

    def detect(self, rgb: np.ndarray) -> Detections:
        """Find objects in a frame, uint8 [H, W, 3] RGB.

        Raises DetectorError for another dtype or shape or an empty frame, EngineError where
        inference fails.
        """
        check_frame(rgb)
        height, width = rgb.shape[:2]
        feed, placed = self._preparation(rgb)
        found = self._decode(self.engine.run({self._input_name: feed}), self.score_threshold)
        return self._select(found, placed, width, height)

    def _select(self, found: Candidates, placed: Fit, width: int, height: int) -> Detections:
        boxes = placed.to_source(found.boxes).astype(np.float32)
        # Also turns what an overflowing exp() left infinite into the frame's border.
        boxes = np.clip(boxes, 0, np.float32([width, height, width, height]))
        usable = (area(boxes) > 0) & np.isfinite(found.scores)
        if self._kept_ids is not None:
            usable &= np.isin(found.class_ids, self._kept_ids)
        boxes, scores = boxes[usable], found.scores[usable]
        class_ids = found.class_ids[usable]
        kept = suppress(boxes, scores, class_ids, self.iou_threshold, self.max_detections)
        return Detections(
            boxes[kept], scores[kept].astype(np.float32), class_ids[kept].astype(np.int64)
        )


class Preparation:
    """Turns a frame into the network's input, in buffers allocated once."""

    def __init__(self, spec: InputSpec, variant: Variant) -> None:
        self._spec = spec
        self._size = (variant.width, variant.height)
        shape = (variant.height, variant.width, 3)
        self._canvas = np.full(shape, spec.pad_value, np.uint8)
        self._fit: Fit | None = None
        order = shape if spec.layout == 'nhwc' else (3, *shape[:2])
        self._input = np.empty((1, *order), spec.dtype)
        # The same memory, seen as rows, columns and channels in the frame's order, RGB.
        view = self._input[0] if spec.layout == 'nhwc' else self._input[0].transpose(1, 2, 0)
        self._view = view if spec.color == 'rgb' else view[:, :, ::-1]
        direction = 1 if spec.color == 'rgb' else -1
        self._mean = np.float32(spec.mean)[::direction]
        self._scale = 1 / np.float32(spec.std)[::direction]

    def __call__(self, rgb: np.ndarray) -> tuple[np.ndarray, Fit]:
        """Return the input (overwritten by the next call) and where the frame lies in it."""
        height, width = rgb.shape[:2]
        placed = fit((width, height), self._size, self._spec.resize)
        if placed != self._fit:
            self._canvas[:] = self._spec.pad_value
            self._fit = placed
        inside = self._canvas[: placed.height, : placed.width]
        # Linear interpolation reads four pixels, and would alias where a frame shrinks further.
        method = cv2.INTER_AREA if placed.scale_x < 0.5 else cv2.INTER_LINEAR
        cv2.resize(rgb, (placed.width, placed.height), dst=inside, interpolation=method)
        if self._spec.dtype == 'uint8':
            self._view[:] = self._canvas
        else:
            self._normalise()
        return self._input, placed

    def _normalise(self) -> None:
        for channel in range(3):  # plane by plane: four times as fast as through a strided view
            plane = self._view[:, :, channel]
            np.subtract(
                self._canvas[:, :, channel], self._mean[channel], out=plane, dtype=np.float32
            )
            plane *= self._scale[channel]


def check_frame(rgb: np.ndarray) -> None:
    """Raise DetectorError unless `rgb` is a frame: uint8 [H, W, 3], not empty."""
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8:
        raise DetectorError(f'frame has dtype {getattr(rgb, "dtype", type(rgb))}; expected uint8')
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise DetectorError(f'frame has shape {rgb.shape}; expected [height, width, 3]')
    if 0 in rgb.shape:
        raise DetectorError(f'frame has shape {rgb.shape}; expected at least one pixel')


def _fraction(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise DetectorError(f'{name} is {value}; expected 0 to 1')
    return float(value)


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise DetectorError(f'{name} is {value}; expected at least 1')
    return int(value)


def _ids(keep: Sequence[str], classes: tuple[str, ...]) -> np.ndarray | None:
    unknown = sorted(set(keep) - set(classes))
    if unknown:
        raise DetectorError(f'classes to keep: {unknown} not known; the model has {list(classes)}')
    return np.array([classes.index(name) for name in keep]) if keep else None


def _only_input(engine: Engine) -> str:
    if len(engine.inputs) != 1:
        raise DetectorError(
            f'{engine.path}: has inputs {list(engine.inputs)}; a detector has one, the image'
        )
    return next(iter(engine.inputs))

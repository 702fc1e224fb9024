"""From frames to what a network takes: as its package prepares them when it runs."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto

from muon_ad.precision.calibration import Feeds
from muon_ad.precision.error import PrecisionError
from muon_ad.runtime.detection import Preparation
from muon_ad.runtime.engine import Engine
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import Variant
from muon_ad.runtime.style import fitting
from muon_ad.runtime.style import read_style

DEFAULT_SIZE = (320, 240)       # of a bare network that takes pictures of any size


def style_feeds(
    package: ModelPackage, variant: Variant, frames: Sequence[np.ndarray]
) -> list[Feeds]:
    """Return image and style for each frame; the built-in styles take turns."""
    encoder = Engine(package.style_encoder)
    vectors = [encoder.run({'image': read_style(path)[None]})[0].copy()
               for path in package.styles.values()]
    made = []
    for index, frame in enumerate(frames):
        size = fitting(frame.shape[1::-1], (variant.width, variant.height))
        image = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        made.append({'image': image[None], 'style': vectors[index % len(vectors)]})
    return made


def detection_feeds(
    package: ModelPackage, variant: Variant, frames: Sequence[np.ndarray]
) -> list[Feeds]:
    """Return the detector's input for each frame."""
    name = next(iter(Engine(variant.file).inputs))
    prepare = Preparation(package.input, variant)
    return [{name: prepare(frame)[0].copy()} for frame in frames]


def bare_feeds(path: Path, model: onnx.ModelProto, frames: Sequence[np.ndarray]) -> list[Feeds]:
    """Return the input of a network without a package: one picture, uint8 [1, H, W, 3].

    Raises PrecisionError for any other: what it takes is only known to a package.
    """
    inputs = model.graph.input
    kind = inputs[0].type.tensor_type if len(inputs) == 1 else None
    if kind is None or kind.elem_type != TensorProto.UINT8 or len(kind.shape.dim) != 4:
        raise PrecisionError(
            f'{path}: has inputs {[value.name for value in inputs]}; expected one picture, uint8 '
            '[1, height, width, 3]. Give the model package that the file belongs to'
        )
    height, width = (each.dim_value for each in kind.shape.dim[1:3])
    size = width or DEFAULT_SIZE[0], height or DEFAULT_SIZE[1]
    return [{inputs[0].name: cv2.resize(frame, size, interpolation=cv2.INTER_AREA)[None]}
            for frame in frames]

"""A package's network built again from its weights, and compared with its ONNX files."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from torch import nn

from muon_ad.deploy.agreement import check
from muon_ad.networks.weights import load_network
from muon_ad.networks.weights import WeightsError
from muon_ad.runtime.detection import Preparation
from muon_ad.runtime.engine import Engine
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import Variant
from muon_ad.runtime.style import read_style

# Greatest difference in units of the output. A stylised pixel is a rounded grey level; that of
# reduced precision is bounded on average, since a single pixel may fall on either side of an edge.
GREY_LEVELS = 1.0
REDUCED_GREY_LEVELS = 8.0       # mean
RAW_BOX = 1e-2                  # of logarithmic sizes, offsets in cells and probabilities


def exported_network(path: Path) -> nn.Module:
    """Build the module that was exported from a file of weights. Raises WeightsError."""
    kind = load_network(path).kind
    if kind == 'style':
        from muon_ad.train.style_export import ExportedStudent
        from muon_ad.train.style_weights import load_student

        return ExportedStudent(load_student(path)).eval()
    if kind == 'detector':
        from muon_ad.networks.detector import Exported
        from muon_ad.networks.detector import load_detector

        return Exported(load_detector(path)[0]).eval()
    raise WeightsError(f'{path}: weights of a {kind!r}; expected of a style or detector')


def agreement(
    package: ModelPackage, variant: Variant, weights: Path, pictures: Sequence[np.ndarray],
) -> str:
    """Compare on pictures, uint8 [H, W, 3] RGB, and return the figure in words.

    Raises DisagreementError where the file is further from its network than is due to its
    precision, WeightsError, EngineError.
    """
    network = exported_network(weights)
    style = package.task == 'style'
    feeds = (_style_feeds if style else _detector_feeds)(package, variant, pictures)
    if variant.precision == 'int8':
        limit = {'mean': REDUCED_GREY_LEVELS} if style else {'mean': 0.1}
    else:
        limit = {'greatest': GREY_LEVELS if style else RAW_BOX}
    difference, = check(network, variant.file, feeds, **limit)
    unit = ' grey levels' if style else ''
    return f'up to {difference.greatest:.2g}, mean {difference.mean:.2g}{unit}'


def _style_feeds(
    package: ModelPackage, variant: Variant, pictures: Sequence[np.ndarray],
) -> list[dict[str, np.ndarray]]:
    sheet = read_style(package.styles[package.default_style])
    vector = Engine(package.style_encoder).run({'image': sheet[None]})[0].copy()
    size = (variant.width, variant.height)
    return [{'image': cv2.resize(picture, size)[None], 'style': vector} for picture in pictures]


def _detector_feeds(
    package: ModelPackage, variant: Variant, pictures: Sequence[np.ndarray],
) -> list[dict[str, np.ndarray]]:
    prepare = Preparation(package.input, variant)
    name = next(iter(Engine(variant.file).inputs))
    return [{name: prepare(picture)[0].copy()} for picture in pictures]

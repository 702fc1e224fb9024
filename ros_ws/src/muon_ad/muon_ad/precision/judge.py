"""How far the results of a converted network are from those of the fp32 network."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from muon_ad.metrics.detection import average_precisions
from muon_ad.metrics.detection import mean
from muon_ad.metrics.detection import Truth
from muon_ad.precision.calibration import Feeds
from muon_ad.precision.error import PrecisionError
from muon_ad.runtime.boxes import iou
from muon_ad.runtime.detection import Detections
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.engine import Engine
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import Variant

# An object that the fp32 network is this sure of has to be found with a like score.
_SURE, _LEAST = 0.2, 0.02
_SAME = 0.5     # overlap (IoU) of boxes that are of one object


class Judge(Protocol):
    """Compares a network's results with those of the fp32 network on the same frames."""

    unit: str

    def error(self, path: Path) -> float:
        """Return the error of the network in a file, in `unit`; 0 for equal results."""

    def more(self, path: Path) -> dict[str, float]:
        """Return further figures for the report."""


@dataclass
class PixelJudge:
    """Mean difference of stylised pixels, in grey levels."""

    original: Path
    feeds: Sequence[Feeds]
    unit: str = 'grey levels'

    def __post_init__(self) -> None:
        self._expected = _outputs(self.original, self.feeds)

    def error(self, path: Path) -> float:
        """Return the mean absolute difference over all pixels of all frames."""
        return float(np.mean([
            np.abs(got[0].astype(np.float32) - want[0]).mean()
            for got, want in zip(_outputs(path, self.feeds), self._expected, strict=True)
        ]))

    def more(self, path: Path) -> dict[str, float]:
        """Return the peak signal-to-noise ratio of the pictures in dB."""
        squares = [np.square(got[0].astype(np.float32) - want[0]).mean()
                   for got, want in zip(_outputs(path, self.feeds), self._expected, strict=True)]
        return {'psnr_db': _decibels(255.0 ** 2, float(np.mean(squares)))}


@dataclass
class NumberJudge:
    """Difference of the outputs of any network, relative to their own size."""

    original: Path
    feeds: Sequence[Feeds]
    unit: str = "of the outputs' root mean square"

    def __post_init__(self) -> None:
        self._expected = _outputs(self.original, self.feeds)

    def error(self, path: Path) -> float:
        """Return the root mean square of the difference over that of the fp32 outputs."""
        noise = signal = 0.0
        for got, want in zip(_outputs(path, self.feeds), self._expected, strict=True):
            for a, b in zip(got, want, strict=True):
                noise += float(np.square(a.astype(np.float64) - b).sum())
                signal += float(np.square(b.astype(np.float64)).sum())
        return (noise / max(signal, 1e-30)) ** 0.5

    def more(self, path: Path) -> dict[str, float]:
        """Nothing more is known of such a network."""
        return {}


class ScoreJudge:
    """Mean change of the score of an object, 0 to 1; one that is lost loses all of its score."""

    unit = 'of the score'

    def __init__(
        self, package: ModelPackage, variant: Variant, frames: Sequence[np.ndarray]
    ) -> None:
        self._package, self._variant, self._frames = package, variant, frames
        self._expected = self._detect(variant.file, _SURE)
        if not any(map(len, self._expected)):
            raise PrecisionError(
                f'{package.name}: finds nothing in the frames to measure on; name some with '
                f'objects of {list(package.classes)} with --frames'
            )

    def error(self, path: Path) -> float:
        """Return the mean over the objects that the fp32 network finds."""
        changes = [
            change for want, got in zip(self._expected, self._detect(path, _LEAST), strict=True)
            for change in _changes(want, got)
        ]
        return float(np.mean(changes))

    def more(self, path: Path) -> dict[str, float]:
        """Return the average precision with what the fp32 network finds as the truth."""
        truths = [Truth(each.boxes, each.class_ids) for each in self._expected]
        found = self._detect(path, _LEAST)
        return {'ap_against_fp32': mean(average_precisions(truths, found))}

    def _detect(self, path: Path, threshold: float) -> list[Detections]:
        name = self._variant.name
        variants = {name: replace(self._variant, file=path)}
        package = replace(self._package, variants=variants, default_variant=name)
        detector = Detector(package, name, score_threshold=threshold)
        return [detector.detect(frame) for frame in self._frames]


def _changes(want: Detections, got: Detections) -> list[float]:
    """Return for each detection wanted how far the best one of its class and place is off."""
    changes = []
    for box, score, kind in zip(want.boxes, want.scores, want.class_ids, strict=True):
        alike = got.class_ids == kind
        near = iou(box[None], got.boxes[alike])[0] >= _SAME if alike.any() else np.zeros(0, bool)
        found = got.scores[alike][near].max(initial=0.0)
        changes.append(abs(float(score) - float(found)))
    return changes


def _outputs(path: Path, feeds: Sequence[Feeds]) -> list[list[np.ndarray]]:
    engine = Engine(path)
    return [[result.copy() for result in engine.run(each)] for each in feeds]


def _decibels(signal: float, noise: float) -> float:
    return 10 * float(np.log10(signal / max(noise, 1e-12)))

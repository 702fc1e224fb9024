"""One variant of any package as a function of a frame, as the nodes run it."""

from collections.abc import Callable

import numpy as np

from muon_ad.runtime.detection import Detections
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.style import StyleModel


def runner(
    package: ModelPackage, variant: str, threads: int = 1,
) -> Callable[[np.ndarray], np.ndarray | Detections]:
    """Load a variant; returns a function of a frame, uint8 [H, W, 3] RGB.

    It returns the stylised frame, or the detections with score 0.05 or more. Raises what
    StyleModel and Detector raise.
    """
    options = EngineOptions(threads=threads)
    if package.task == 'style':
        return StyleModel(package, variant, options).stylise
    return Detector(package, variant, options, score_threshold=0.05).detect

"""The networks of a replay: a style model and a detector, and what there is to know about them."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from muon_ad.replay.error import ReplayError
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.engine import EngineError
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.engine import PROVIDERS
from muon_ad.runtime.installed import find_package
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import sha256_of
from muon_ad.runtime.package import Variant
from muon_ad.runtime.style import StyleModel

# The networks are small: more threads would wait for each other.
MOST_THREADS = 4
# More than any robot's machine has cores; so many that they cannot be made hang ONNX Runtime.
THREADS_LIMIT = 64
# Beside the models, these decide about results.
_LIBRARIES = (np, onnxruntime, cv2)


@dataclass(frozen=True)
class Choice:
    """Which networks to run, and how; '' in place of a package leaves that task out.

    Packages by path or by name of a shipped one, variants by name ('': the package's default),
    `style` by name or path of a picture ('': the package's default), `classes` to report
    (none: all). `threads` inside an operator, up to THREADS_LIMIT; 0: one a core, up to
    MOST_THREADS. Raises ReplayError for another number of threads.
    """

    style_model: str = 'style_default'
    style: str = ''
    style_variant: str = ''
    detector_model: str = 'detector_default'
    detector_variant: str = ''
    score_threshold: float = 0.4
    classes: tuple[str, ...] = ()
    providers: tuple[str, ...] = ('cpu',)
    threads: int = 0
    models: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threads <= THREADS_LIMIT:
            raise ReplayError(f'threads is {self.threads}; expected 0 to {THREADS_LIMIT}')


@dataclass(frozen=True)
class Networks:
    """The loaded networks, and `about`: what they are, for the record of a run."""

    styler: StyleModel | None
    detector: Detector | None
    about: dict


def load(choice: Choice) -> Networks:
    """Load what was chosen.

    Raises ReplayError where nothing was chosen or a network cannot be loaded, PackageError,
    StyleError and DetectorError (all ValueError) for what the packages do not accept.
    """
    if not (choice.style_model or choice.detector_model):
        raise ReplayError('no network is chosen; expected a style model, a detector, or both')
    _expect_provider(choice.providers)
    threads = choice.threads or min(MOST_THREADS, len(os.sched_getaffinity(0)))
    options = EngineOptions(providers=choice.providers, threads=threads)
    about: dict = {
        'versions': {library.__name__: library.__version__ for library in _LIBRARIES},
        'machine': platform.machine(),
    }
    try:
        styler = _styler(choice, options, about) if choice.style_model else None
        detector = _detector(choice, options, about) if choice.detector_model else None
    except EngineError as error:
        raise ReplayError(str(error)) from error
    return Networks(styler, detector, about)


def _expect_provider(wanted: tuple[str, ...]) -> None:
    """Raise ReplayError where all of `wanted` are known, and none is there."""
    installed = onnxruntime.get_available_providers()
    there = [name for name, provider in PROVIDERS.items() if provider in installed]
    if set(wanted) <= PROVIDERS.keys() and not set(wanted) & set(there):
        raise ReplayError(
            f'providers is {",".join(wanted)}; this ONNX Runtime has {", ".join(there)}, expected '
            'one of these'
        )


def _styler(choice: Choice, options: EngineOptions, about: dict) -> StyleModel:
    package = load_package(find_package(choice.style_model, choice.models))
    styler = StyleModel(package, choice.style_variant, options)
    if choice.style:
        styler.set_style(choice.style)
    picture = package.styles.get(styler.style) or Path(styler.style).expanduser()
    about['style'] = {
        **_about(package, styler.variant, styler.engine.provider),
        'style': Path(styler.style).name, 'style_sha256': sha256_of(picture),
    }
    return styler


def _detector(choice: Choice, options: EngineOptions, about: dict) -> Detector:
    package = load_package(find_package(choice.detector_model, choice.models))
    detector = Detector(
        package, choice.detector_variant, options,
        score_threshold=choice.score_threshold, keep=choice.classes,
    )
    about['detector'] = {
        **_about(package, detector.variant, detector.engine.provider),
        'score_threshold': detector.score_threshold, 'classes': list(choice.classes),
    }
    return detector


def _about(package: ModelPackage, variant: Variant, provider: str) -> dict:
    return {
        'package': package.name, 'variant': variant.name, 'sha256': variant.sha256,
        'provider': provider,
    }

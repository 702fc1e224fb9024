"""Who takes part in the style benchmark: our student and MicroAST, loaded and ready."""

import importlib.util
import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from _common import console
from _common import ROOT
from _common import WEIGHTS

from muon_ad.runtime.engine import Engine
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.style import StyleModel

PACKAGE = ROOT / 'models' / 'style_default'
SIZES = ((320, 240), (640, 480))
THREADS = (1, 2)
STYLE = 'mosaic'

# Takes a frame, uint8 [H, W, 3] RGB, and returns one.
Stylise = Callable[[np.ndarray], np.ndarray]


def thread_counts() -> tuple[int, ...]:
    """Return the thread counts that this machine has cores for."""
    return tuple(n for n in THREADS if n <= len(os.sched_getaffinity(0)))


def named(size: tuple[int, int]) -> str:
    """Return a size as text, width first."""
    return '{}x{}'.format(*size)


def students() -> dict[tuple, Stylise]:
    """Return our student, ready to run, for each size and thread count."""
    package = load_package(PACKAGE)
    found = {}
    for size, threads in itertools.product(SIZES, thread_counts()):
        model = StyleModel(package, variant_of(package, size), EngineOptions(threads=threads))
        model.set_style(STYLE)
        found['suite', size, threads] = model.stylise
    return found


def variant_of(package: ModelPackage, size: tuple[int, int]) -> str:
    """Return the name of the first variant of that size, the densest. Raises ValueError."""
    for name, variant in package.variants.items():
        if (variant.width, variant.height) == size:
            return name
    raise ValueError(f'{package.folder}: no variant of {named(size)}; has {[*package.variants]}')


def peers(folder: Path) -> dict[tuple, Stylise]:
    """Export MicroAST into `folder`; return it ready to run, or say why not and return nothing."""
    if importlib.util.find_spec('torch') is None:
        console.print('no peer: torch is not installed (`make bench` installs it)')
        return {}
    import _microast

    missing = [name for name in _microast.FILES.values() if not (WEIGHTS / name).is_file()]
    if missing:
        console.print(f'no peer: {WEIGHTS} lacks {", ".join(missing)}')
        return {}
    style = load_package(PACKAGE).styles[STYLE]
    found = {}
    for size in SIZES:
        path = folder / f'microast_{named(size)}.onnx'
        console.print(f'exporting MicroAST for {named(size)}')
        _microast.export(WEIGHTS, style, *size, path)
        for threads in thread_counts():
            engine = Engine(path, EngineOptions(threads=threads))
            found['microast', size, threads] = partial(_run, engine)
    return found


def _run(engine: Engine, rgb: np.ndarray) -> np.ndarray:
    return engine.run({'image': rgb[None]})[0][0]

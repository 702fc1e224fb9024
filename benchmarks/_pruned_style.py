"""The style side of the pruning benchmark: students pruned by each method, and how they look."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _common import console
from _common import ROOT
from _common import WEIGHTS
from _pruned import Case

from muon_ad.metrics.style import Judge
from muon_ad.metrics.style_report import compare
from muon_ad.metrics.style_report import frames
from muon_ad.metrics.style_report import mean_figures
from muon_ad.networks.weights import save_network
from muon_ad.prune.style import prune_style
from muon_ad.prune.style import RATES
from muon_ad.prune.style import WEIGHTS as LOSSES
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.train import perceptual
from muon_ad.train import style as training
from muon_ad.train.style_export import add_student
from muon_ad.train.style_export import add_styles
from muon_ad.train.style_export import build_package
from muon_ad.train.style_weights import ENCODER
from muon_ad.train.style_weights import load_networks
from muon_ad.train.style_weights import STUDENT
from muon_ad.train.style_weights import weights_file

PACKAGE = ROOT / 'models' / 'style_default'
FEATURES = ROOT / 'models' / 'backbone_tiny' / 'encoder'
PHOTOS = WEIGHTS.parent / 'photos'
JUDGE = WEIGHTS / 'squeezenet_v1.0.npz'
METHODS = ('taylor', 'paper', 'magnitude', 'random', 'static-l1', 'layerdrop', 'torch-pruning')
SIZE = (320, 240)


def photographs() -> tuple[list[Path], list[Path]]:
    """Return photographs to learn from, and those to judge by."""
    found = sorted(PHOTOS.glob('*.jpg'))
    judged = [path for path in found if path.name.startswith('styleid')]
    return [path for path in found if path not in judged], judged


def pruned_package(cases: Sequence[Case], steps: int, crop: int, folder: Path) -> ModelPackage:
    """Prune the shipped student as each case says; return a package of all, dense first."""
    content, _ = photographs()
    styles = sorted(load_package(PACKAGE).styles.values())
    corpus = training.load_corpus(content, [], styles)
    features = perceptual.load_features(FEATURES)
    recipe = training.Recipe(steps=steps, crop=crop, rate=RATES['muon'], warm=0, ramp=1,
                             half=False, weights=dict(LOSSES))
    target = folder / 'package'
    student, encoder = load_networks(PACKAGE)
    save_network(weights_file(target, 'dense'), student, STUDENT, student.config.to_dict())
    save_network(weights_file(target, 'encoder'), encoder, ENCODER, encoder.config.to_dict())
    add_styles(PACKAGE / 'styles', target)
    for case in cases:
        console.print(f'style: {case.name}, {steps} steps')
        made = prune_style(PACKAGE, corpus, features, recipe, case.plan(steps),
                           folder / case.name)
        add_student(made, target, case.name)
    build_package(target)
    return load_package(target)


def looks(package: ModelPackage, count: int) -> dict[str, dict[str, float]]:
    """Return SSIM, style distance and so on of each variant, over all styles and some photos."""
    _, judged = photographs()
    photos = frames(judged[:count], *SIZE)
    return mean_figures(compare(package, Judge.load(JUDGE), photos, None))


def frame(size: tuple[int, int]) -> np.ndarray:
    """Return a picture of noise, uint8 [H, W, 3], since what a frame shows takes no time."""
    return np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)

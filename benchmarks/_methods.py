"""Who takes part in the comparison of ways to stylise: all that can be loaded here."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from _common import console
from _common import ROOT
from _pairs import Pair

from muon_ad.distill.backbone import Backbone
from muon_ad.distill.baselines import make_stylizer
from muon_ad.distill.baselines import METHODS
from muon_ad.distill.settings import Settings
from muon_ad.distill.stylize import stylize
from muon_ad.metrics.style_report import Peer
from muon_ad.networks.microast import MicroAST
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.package import load_package
from muon_ad.runtime.style import StyleModel

# Takes a pair and returns the stylised picture, uint8 [H, W, 3] in the content's size.
Method = Callable[[Pair], np.ndarray]


def methods(
    backbones: dict[str, Backbone], weights: Path, vgg: Path, settings: Settings,
) -> dict[str, Method]:
    """Return them by name, ours first; those whose weights are absent are named with the reason.

    `backbones` by the name of what attends; `weights` is the folder of MicroAST's and
    `vgg` that of the distilled VGG-19's.
    """
    found = {f'ours, {name}': _ours(backbone, settings) for name, backbone in backbones.items()}
    denoiser = next((each for each in backbones.values() if len(each.timesteps(2)) > 1), None)
    for name, method in METHODS.items():
        try:
            stylizer = make_stylizer(name, vgg, denoiser)
        except ValueError as error:
            console.print(f'left out: {method.title}: {error}')
            continue
        found[method.title] = lambda pair, made=stylizer: made(pair.content, pair.style)
    try:
        found['MicroAST'] = _microast(MicroAST.load(weights))
    except FileNotFoundError as error:
        console.print(f'left out: MicroAST: {error}')
    found['student (streaming)'] = _student()
    found['the photograph itself'] = lambda pair: pair.content
    return found


def _ours(backbone: Backbone, settings: Settings) -> Method:
    return lambda pair: stylize(pair.content, pair.style, backbone, settings).image


def _microast(network: MicroAST) -> Method:
    return lambda pair: _sized(Peer(network, pair.style)(pair.content), pair)


def _student() -> Method:
    package = load_package(ROOT / 'models' / 'style_default')
    model = StyleModel(package, options=EngineOptions(threads=1))

    def run(pair: Pair) -> np.ndarray:
        model.set_style(pair.style_path)
        return _sized(model.stylise(pair.content).copy(), pair)

    return run


def _sized(picture: np.ndarray, pair: Pair) -> np.ndarray:
    size = pair.content.shape[1::-1]
    if picture.shape[1::-1] == size:
        return picture
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)

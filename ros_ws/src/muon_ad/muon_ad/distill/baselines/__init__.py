"""Other ways to stylise a picture, behind one interface: what attention distillation is measured
against.

`make_stylizer(name)` gives a function of a content and a style picture; METHODS says what there
is and what each needs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from muon_ad.distill.backbone import Backbone
from muon_ad.distill.baselines.adain import AdaIN
from muon_ad.distill.baselines.injection import Injection
from muon_ad.distill.baselines.patches import PatchMatching
from muon_ad.distill.baselines.wct import WCT


class BaselineError(ValueError):
    """There is no such method, or it was not given what it needs."""


class Stylizer(Protocol):
    """A way to stylise: content and style, uint8 [H, W, 3] RGB -> uint8 in the content's size.

    Repeats itself: the same pictures give the same result.
    """

    name: str

    def __call__(self, content: np.ndarray, style: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Method:
    """What a method is called in a table, how it is made, and from which of the two it is made."""

    title: str
    make: Callable[..., Stylizer]
    needs_weights: bool = False
    needs_backbone: bool = False


METHODS = {
    'adain': Method('AdaIN', AdaIN.load, needs_weights=True),
    'wct': Method('WCT', WCT.load, needs_weights=True),
    'patches': Method('patches (GPDM-like)', PatchMatching),
    'injection': Method('injection (StyleID-like)', Injection, needs_backbone=True),
}


def make_stylizer(
    name: str, weights: Path | None = None, backbone: Backbone | None = None,
    **options: float,
) -> Stylizer:
    """Return the method `name` of METHODS, with the fields of its class as options.

    `weights` is the folder of the distilled VGG-19 (networks/vgg.py), for AdaIN and WCT;
    `backbone` a diffusion backbone, for injection. Raises BaselineError where the name is unknown
    or the one that is needed is None, CodecError where a file in the folder is missing or bad.
    """
    method = METHODS.get(name)
    if method is None:
        raise BaselineError(f'no method {name!r}; expected one of {tuple(METHODS)}')
    if method.needs_weights and weights is None:
        raise BaselineError(f'{name} needs weights: the folder with cd_vgg19_small16x_*.pth')
    if method.needs_backbone and backbone is None:
        raise BaselineError(f'{name} needs a backbone that denoises (a U-Net or MMDiT)')
    given = [weights] * method.needs_weights + [backbone] * method.needs_backbone
    return method.make(*given, **options)

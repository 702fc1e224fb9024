"""Stylises a picture by optimising its latents under attention distillation."""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import numpy as np

from muon_ad.distill.backbone import Backbone
from muon_ad.distill.settings import Settings


@dataclass(frozen=True)
class Record:
    """The losses of one step, unweighted."""

    step: int
    timestep: float
    style: float
    content: float


@dataclass(frozen=True)
class Progress:
    """Where a stylisation is after `step` of `steps`.

    The losses are those last computed: a step with a predicted gradient computes none.
    `preview()` decodes the picture so far, uint8, when called; `preview_due` at every
    `settings.preview_every` steps and the last.
    """

    step: int
    steps: int
    style_loss: float
    content_loss: float
    preview: Callable[[], np.ndarray]
    preview_due: bool


@dataclass(frozen=True)
class Result:
    """A stylised picture, uint8 [H, W, 3] RGB ([N, H, W, 3] for a batch), and how it came about.

    `steps` were done in `seconds`, `full_steps` of them with a full backward pass and
    `predicted_steps` with a predicted gradient.
    """

    image: np.ndarray
    history: list[Record]
    steps: int
    seconds: float
    cancelled: bool
    full_steps: int
    predicted_steps: int = 0
    report: dict[str, float] = field(default_factory=dict)


class NotFiniteError(FloatingPointError, ValueError):
    """A loss, gradient or latent became NaN or infinite.

    `step` says where (the first is 1), `image` is the picture before that step.
    """

    def __init__(self, step: int, what: str, image: np.ndarray) -> None:
        super().__init__(f'step {step}: the {what} is not finite; try a lower lr, or float32')
        self.step = step
        self.image = image


def stylize(
    content: np.ndarray, style: np.ndarray, backbone: Backbone, settings: Settings,
    progress: Callable[[Progress], None] | None = None, resume: Path | None = None,
    cancel: Callable[[], bool] | None = None, save: Path | None = None,
) -> Result:
    """Return `content` in the manner of `style`.

    `content` is uint8 [H, W, 3] RGB, or [N, H, W, 3] for a batch; `style` is [H, W, 3], or
    [M, H, W, 3] for several pictures of one style. The image has the content's aspect, with at
    most `settings.size` squared pixels (sizes.py).

    `progress` is called after every step, `cancel` before every step: where it returns True, the
    picture so far is returned. `save` is a file to which the state goes every
    `settings.save_every` steps and at the end, complete or not at all; `resume` is such a file
    to continue from, which gives what an uninterrupted run would have given, and is saved to
    where `save` is None. Raises StateError for a file of another run, NotFiniteError for NaN,
    SettingsError, BackboneError, ImageError.
    """
    raise NotImplementedError

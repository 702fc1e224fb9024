"""What a stylisation reports: while it runs, at its end, and where it fails."""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field

import numpy as np
import torch


@dataclass(frozen=True)
class Record:
    """The losses of one step, unweighted; `clip` is None without a CLIP folder."""

    step: int
    timestep: float
    style: float
    content: float
    clip: float | None = None


@dataclass(frozen=True)
class Progress:
    """Where a stylisation is after `step` of `steps`.

    The losses are those last computed: a step with a predicted gradient computes none.
    `preview()` decodes the picture so far, uint8 as the result's, when called; `preview_due` at
    every `settings.preview_every` steps and the last.
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

    `steps` were done in `seconds`, `full_steps` of them with forward and backward passes (which
    `history` holds) and `predicted_steps` with a predicted gradient. `report` has, where they
    were in use, trigger_rate, cosine_before and cosine_after of conflict projection
    (optim/conflict.py), cosine_orthogonalised with LatentMuon, content_scale of balancing (its
    lambda, the last), and gpn_cosine and repeat_cosine (gpn.py).
    """

    image: np.ndarray
    history: list[Record]
    steps: int
    seconds: float
    cancelled: bool
    full_steps: int
    predicted_steps: int = 0
    report: dict[str, float] = field(default_factory=dict)


class NotFinite(FloatingPointError):
    """Something became NaN or infinite, in a step that has changed no latents."""


def check_finite(what: str, *tensors: torch.Tensor) -> None:
    """Raise NotFinite, which says what, unless all are finite."""
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise NotFinite(what)


class NotFiniteError(FloatingPointError, ValueError):
    """A loss, gradient or latent became NaN or infinite.

    `step` says where (the first is 1); `image` is the picture before that step.
    """

    def __init__(self, step: int, what: str, image: np.ndarray) -> None:
        super().__init__(f'step {step}: {what} not finite; try a lower lr, or dtype float32')
        self.step = step
        self.image = image

"""Stylises a picture by optimising its latents under attention distillation (arXiv 2502.20235).
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from muon_ad.distill.backbone import Backbone
from muon_ad.distill.descent import Descent
from muon_ad.distill.objective import Objective
from muon_ad.distill.pixels import as_batch
from muon_ad.distill.pixels import bounded_size
from muon_ad.distill.pixels import resized
from muon_ad.distill.pixels import to_pixels
from muon_ad.distill.pixels import to_tensor
from muon_ad.distill.pixels import working_size
from muon_ad.distill.result import NotFinite
from muon_ad.distill.result import NotFiniteError
from muon_ad.distill.result import Progress
from muon_ad.distill.result import Result
from muon_ad.distill.settings import Settings
from muon_ad.distill.state import identity
from muon_ad.distill.state import load_state
from muon_ad.distill.state import save_state


def stylize(
    content: np.ndarray, style: np.ndarray, backbone: Backbone, settings: Settings,
    progress: Callable[[Progress], None] | None = None, resume: Path | None = None,
    cancel: Callable[[], bool] | None = None, save: Path | None = None,
) -> Result:
    """Return `content` in the manner of `style`.

    `content` is uint8 [H, W, 3] RGB, or [N, H, W, 3] for a batch; `style` is [H, W, 3], or
    [M, H, W, 3] for several pictures of one style. The result has the content's aspect and at
    most `settings.size` squared pixels, never more than the content; the latents are those of the
    nearest size that the backbone can take.

    `progress` is called after every step, `cancel` before every step: where it returns True, the
    picture so far is returned. `save` is a file to which the state goes every
    `settings.save_every` steps, at the end and when cancelled, complete or not at all; `resume`
    is such a file to continue from, with the result of an uninterrupted run, and is saved to
    where `save` is None. On a CPU a seed determines every bit of the result.

    Raises NotFiniteError for NaN, once the state before it is saved; StateError for a file of
    another run; ImageError, BackboneError, TokensError (losses.py).
    """
    settings = settings.completed(backbone.recommended)
    run = _Run(content, style, backbone, settings, resume, save)
    began = time.perf_counter() - run.seconds
    cancelled = False
    while run.descent.step < settings.steps:
        cancelled = cancel is not None and cancel()
        if cancelled:
            break
        run.advance()
        run.seconds = time.perf_counter() - began
        if progress is not None:
            progress(run.progress())
        if run.descent.step % settings.save_every == 0:
            run.save()
    run.save()
    return run.result(cancelled)


class _Run:
    """A descent between pictures: pixels in and out, and its file."""

    def __init__(
        self, content: np.ndarray, style: np.ndarray, backbone: Backbone, settings: Settings,
        resume: Path | None, save: Path | None,
    ) -> None:
        self._backbone = backbone
        self._settings = settings
        self._single = content.ndim == 3
        content, style = as_batch('content', content), as_batch('style', style)
        self._size = bounded_size(*content.shape[1:3], settings.size)
        self.descent = _descent(content, style, self._size, backbone, settings)
        self.seconds = 0.0
        self._about = identity(content, style, backbone)
        self._path = save or resume
        if resume is not None:
            state = load_state(resume, settings, self._about)
            self.descent.load_state_dict(state['descent'])
            self.seconds = state['seconds']

    def advance(self) -> None:
        """Do one step. Raises NotFiniteError with the last good picture, once that is saved."""
        try:
            self.descent.advance()
        except NotFinite as error:
            self.save()
            raise NotFiniteError(self.descent.step + 1, str(error), self.image()) from error

    @torch.no_grad()
    def image(self) -> np.ndarray:
        """Return the picture so far, uint8."""
        pixels = to_pixels(self._backbone.decode(self.descent.latents))
        batch = resized(pixels, *self._size)
        return batch[0] if self._single else batch

    def save(self) -> None:
        """Write the state where a file was given."""
        if self._path is not None:
            run = {'descent': self.descent.state_dict(), 'seconds': self.seconds}
            save_state(self._path, self._settings, self._about, run)

    def progress(self) -> Progress:
        """Return what `progress` is told."""
        last, step, steps = self.descent.history[-1], self.descent.step, self._settings.steps
        due = step % self._settings.preview_every == 0 or step == steps
        return Progress(step, steps, last.style, last.content, self.image, due)

    def result(self, cancelled: bool) -> Result:
        """Return what is there, at the end or where it was cancelled."""
        descent = self.descent
        return Result(
            self.image(), list(descent.history), descent.step, self.seconds, cancelled,
            descent.full_steps, descent.step - descent.full_steps, descent.report())


def _descent(
    content: np.ndarray, style: np.ndarray, size: tuple[int, int], backbone: Backbone,
    settings: Settings,
) -> Descent:
    working = working_size(*size, backbone.multiple)
    # Attention maps can be held against each other only where the token counts are equal.
    style_size = working if settings.loss == 'kl' else working_size(
        *bounded_size(*style.shape[1:3], settings.size), backbone.multiple)
    objective = Objective(
        backbone, settings, to_tensor(resized(content, *working), backbone.device),
        to_tensor(resized(style, *style_size), backbone.device))
    count = min(settings.timesteps or settings.steps, settings.steps)
    return Descent(objective, settings, backbone.timesteps(count))

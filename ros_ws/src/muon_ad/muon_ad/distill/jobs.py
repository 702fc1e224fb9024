"""What passes between a program and the process that stylises for it (worker.py); no torch here.

A `Job` goes in; a `Step` comes back after every step, and at last a `Done` or a `Failed`.
"""

from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import numpy as np

from muon_ad.distill.settings import Settings


@dataclass(frozen=True)
class Job:
    """One picture to stylise, and where.

    `content` and `style` are uint8 [H, W, 3] RGB or a file. `backbone` is a local diffusers
    folder (None: the shipped one) and `attention` that of it to use, see `load_backbone`, on
    `device` (see devices.py). `threads` are those of the CPU.
    `previews`: send one every `settings.preview_every` steps.
    """

    content: np.ndarray | Path
    style: np.ndarray | Path
    settings: Settings = field(default_factory=Settings)
    backbone: Path | None = None
    attention: str | None = None
    device: str = 'auto'
    threads: int = 1
    previews: bool = False


@dataclass(frozen=True)
class Step:
    """A step is done; the first is 1. Losses are unweighted, `preview` uint8 [H, W, 3] RGB."""

    step: int
    steps: int
    style_loss: float
    content_loss: float
    preview: np.ndarray | None = None


@dataclass(frozen=True)
class Done:
    """The picture, uint8 [H, W, 3] RGB, that so far where it was `cancelled`; losses by step."""

    image: np.ndarray
    steps: int
    style_losses: list[float]
    content_losses: list[float]
    cancelled: bool = False


@dataclass(frozen=True)
class Failed:
    """Why there is no result; `image` is the last good picture where there is one."""

    message: str
    image: np.ndarray | None = None


Event = Step | Done | Failed

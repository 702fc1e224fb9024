"""What one stylisation is asked for."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace

OPTIMIZERS = ('adam', 'adamw', 'muon', 'latent-muon')
LOSSES = ('l1', 'kl')
ATTENTIONS = ('denoiser', 'features')    # of a backbone, see load_backbone
STARTS = ('content', 'palette', 'noise')
DTYPES = ('float32', 'bfloat16')

# What arXiv 2502.20235's code has for Stable Diffusion, where a backbone recommends nothing else.
REFERENCE = {'lr': 0.05, 'content_weight': 0.25, 'start': 'content'}
_LARGEST = 3.4e38   # of float32, which the latents are in

# Neither changes the result, so a run may be resumed with others.
_FREE = ('preview_every', 'save_every')


class SettingsError(ValueError):
    """A setting is out of range: its name, the value, and what was expected."""


@dataclass(frozen=True)
class Settings:
    """How to stylise.

    `steps` of `optimizer` with the learning rate `lr`, spread over `timesteps` time-steps from
    the noisiest on (None: one a step, as the reference has it; fewer are faster, since what
    style and content look like is computed once for each). `layers` are names of
    self-attention layers (None: the last six). `loss` is 'l1' on attention outputs or 'kl' on
    attention maps, `content_weight` that of the queries. `noised` adds the same noise to
    picture, style and content at each time-step; the reference leaves them clean.

    `conflict` is the cosine below which the style gradient loses its part against the content
    gradient (None: never). `balance` gives the content gradient `content_weight` times the
    norm of the style gradient. `gpn_share` of the steps after the first `gpn_warmup` use a
    predicted gradient. `clip` is a local folder of a CLIP vision model whose features hold the
    content, too, with `clip_weight`; it costs a decoded picture a step.

    `size` bounds the picture that is worked on: as many pixels as a square of that side, and
    never more than the picture has (pixels.py). `start` from the content's latents, from these
    with the mean and covariance of the style's ('palette'), or from noise. `lr`,
    `content_weight` and `start` of None are what the backbone recommends.
    `dtype` bfloat16 computes the network's passes in it; latents and losses stay in float32.
    A preview every `preview_every` steps, a saved state every `save_every`. Raises SettingsError.
    """

    steps: int = 100
    optimizer: str = 'adam'
    lr: float | None = None
    content_weight: float | None = None
    layers: tuple[str, ...] | None = None
    timesteps: int | None = None
    loss: str = 'l1'
    noised: bool = False
    conflict: float | None = None
    balance: bool = False
    clip: str | None = None
    clip_weight: float = 1.0
    gpn_share: float = 0.0
    gpn_warmup: int = 20
    size: int = 256
    start: str | None = None
    seed: int = 0
    dtype: str = 'float32'
    preview_every: int = 10
    save_every: int = 50

    def __post_init__(self) -> None:
        for name in ('steps', 'size', 'preview_every', 'save_every'):
            self._expect(name, _whole(getattr(self, name), 1), 'a whole number from 1 on')
        self._expect('seed', _whole(self.seed, 0), 'a whole number from 0 on')
        self._expect('gpn_warmup', _whole(self.gpn_warmup, 1), 'a whole number from 1 on')
        self._expect('timesteps', self.timesteps is None or _whole(self.timesteps, 1),
                     'None (one a step) or a whole number from 1 on')
        self._expect('lr', self.lr is None or _number(self.lr) and 0 < self.lr <= _LARGEST,
                     'None (as the backbone recommends) or a number above 0, up to '
                     f'{_LARGEST}')
        self._expect('content_weight', self.content_weight is None
                     or _number(self.content_weight) and self.content_weight >= 0,
                     'None (as the backbone recommends) or a number from 0 on')
        self._expect('clip_weight', _number(self.clip_weight) and self.clip_weight >= 0,
                     'a number from 0 on')
        self._expect('start', self.start is None or self.start in STARTS,
                     f'None (as the backbone recommends) or one of {STARTS}')
        self._expect('conflict', self.conflict is None
                     or _number(self.conflict) and -1 <= self.conflict <= 1,
                     'None (off) or a cosine from -1 to 1')
        self._expect('gpn_share', _number(self.gpn_share) and 0 <= self.gpn_share < 1,
                     'a share from 0 to below 1')
        self._expect('layers', self.layers is None or len(self.layers) > 0,
                     'None (the last six) or at least one name')
        for name, known in (('optimizer', OPTIMIZERS), ('loss', LOSSES), ('dtype', DTYPES)):
            self._expect(name, getattr(self, name) in known, f'one of {known}')
        if self.layers is not None:
            object.__setattr__(self, 'layers', tuple(self.layers))

    def _expect(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise SettingsError(f'{name} is {getattr(self, name)!r}; expected {expected}')

    def completed(self, recommended: Mapping[str, float | str]) -> 'Settings':
        """Return settings in which nothing is left to what a backbone recommends."""
        known = {**REFERENCE, **recommended}
        return replace(self, **{name: known[name] for name in REFERENCE
                                if getattr(self, name) is None})

    def to_dict(self) -> dict:
        """Return the fields as plain values, for a saved state or a report."""
        return asdict(self)

    def differences(self, other: 'Settings') -> list[str]:
        """Return names of fields that differ and would change the result."""
        return [field.name for field in fields(self) if field.name not in _FREE
                and getattr(self, field.name) != getattr(other, field.name)]


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)

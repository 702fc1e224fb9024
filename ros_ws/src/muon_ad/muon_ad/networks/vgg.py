"""The distilled VGG-19 encoders up to relu<level>_1, and the decoders that turn them round.

Collaborative Distillation (arXiv:2003.08436): VGG-19 with a sixteenth of its weights. Written
from the paper and the shapes in the files. Of these there are two sets: the trained ones, and
those that the training began with, whose deeper features are all but zero; they are refused.
"""

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.nn.functional as F  # noqa: N812

Weights = dict[str, torch.Tensor]
LEVELS = (1, 2, 3, 4, 5)
SOURCE = (
    'github.com/MingSun-Tse/Collaborative-Distillation, trained_models/: '
    'wct_se_16x_new/<level>SE.pth as cd_vgg19_small16x_e<level>.pth, '
    'wct_se_16x_new_sd/<level>SD.pth as cd_vgg19_small16x_d<level>.pth '
    '(small16x_ae_base, of the same shapes, is not trained)'
)
_POOL = 'pool'
_ORDER = ('11', '12', _POOL, '21', '22', _POOL, '31', '32', '33', '34', _POOL,
          '41', '42', '43', '44', _POOL, '51')
# Correlation of a smooth picture with what is decoded of it: trained decoders have 0.9 and more.
_LEAST_CORRELATION = 0.6


class CodecError(ValueError):
    """The weights of an encoder or decoder are missing, damaged, or not trained."""


@dataclass(frozen=True)
class Codec:
    """An encoder up to relu<level>_1 and its decoder, which was trained to give the image back."""

    level: int
    encoder: Weights
    decoder: Weights

    @classmethod
    def load(cls, folder: Path, level: int) -> 'Codec':
        """Read cd_vgg19_small16x_{e,d}<level>.pth, level 1 to 5.

        Raises CodecError naming the file that is missing or damaged, and where the pair does not
        give a picture back, as is so with the untrained ones of the same shapes.
        """
        if level not in LEVELS:
            raise CodecError(f'level is {level}; expected one of {LEVELS}')
        steps = _steps(level)
        encoder = _read(folder / f'cd_vgg19_small16x_e{level}.pth', ('0', *steps))
        decoder = _read(folder / f'cd_vgg19_small16x_d{level}.pth', steps)
        codec = cls(level, encoder, decoder)
        correlation = _correlation(codec)
        if not correlation > _LEAST_CORRELATION:
            raise CodecError(
                f'{folder}: what the weights of level {level} decode of a picture correlates with '
                f'it by {correlation:.2f}; expected more than {_LEAST_CORRELATION}, as of {SOURCE}'
            )
        return codec

    @torch.no_grad()
    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] RGB in 0..1, sides above 2^level pixels -> [N, C, h, w].

        h and w are H and W over 2^(level - 1), rounded up.
        """
        x = F.conv2d(image, self.encoder['conv0.weight'], self.encoder['conv0.bias'])
        for step in _steps(self.level):
            x = (F.max_pool2d(x, 2, ceil_mode=True) if step == _POOL
                 else _convolved(x, self.encoder, step).relu())
        return x

    @torch.no_grad()
    def decode(self, features: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """[N, C, h, w] -> [N, 3, H, W] RGB in 0..1; `size` is (H, W) of what was encoded."""
        x = features
        for step in reversed(_steps(self.level)):
            x = (F.interpolate(x, scale_factor=2, mode='nearest') if step == _POOL
                 else _convolved(x, self.decoder, step).relu())
        return x[..., :size[0], :size[1]].clamp(max=1)


def _steps(level: int) -> tuple[str, ...]:
    return _ORDER[:_ORDER.index(f'{level}1') + 1]


def _convolved(x: torch.Tensor, weights: Weights, step: str) -> torch.Tensor:
    padded = F.pad(x, [1, 1, 1, 1], mode='reflect')
    return F.conv2d(padded, weights[f'conv{step}.weight'], weights[f'conv{step}.bias'])


def _correlation(codec: Codec) -> float:
    """Correlate a picture of smooth colours with what is decoded of its features."""
    y, x = torch.meshgrid(torch.linspace(0, 6, 64), torch.linspace(0, 6, 64), indexing='ij')
    picture = torch.stack([y.sin(), (x + y).cos(), (2 * x).sin()])[None] / 2 + 0.5
    back = codec.decode(codec.encode(picture), (64, 64))
    return float(torch.corrcoef(torch.stack([picture.flatten(), back.flatten()]))[0, 1])


def _read(path: Path, steps: tuple[str, ...]) -> Weights:
    if not path.is_file():
        raise CodecError(f'{path}: no such file; expected the weights of {SOURCE}')
    wanted = [f'conv{step}.{kind}' for step in steps if step != _POOL
              for kind in ('weight', 'bias')]
    try:
        weights = torch.load(path, map_location='cpu', weights_only=True)
        weights = weights.get('model', weights)
        return {name: weights[name] for name in wanted}
    except (OSError, KeyError, RuntimeError, AttributeError, EOFError, UnpicklingError) as error:
        raise CodecError(f'{path}: cannot be read as such weights ({error!r}); expected those of '
                         f'{SOURCE}') from error

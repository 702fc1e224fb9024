"""MicroAST (arXiv:2211.15313) for inference, as a peer to measure the own student against.

Written from the paper; reads the four weight files of github.com/EndyWon/MicroAST.
"""

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

Weights = dict[str, torch.Tensor]
PARTS = ('content_encoder', 'style_encoder', 'modulator', 'decoder')


class MicroAST(nn.Module):
    """Arbitrary style transfer: AdaIN and modulated residual filters at two depths."""

    def __init__(self, weights: dict[str, Weights]) -> None:
        super().__init__()
        self.weights = weights

    @classmethod
    def load(cls, folder: Path) -> 'MicroAST':
        """Read `microast_<part>.pth`; raises FileNotFoundError naming the one that is missing."""
        weights = {}
        for part in PARTS:
            path = folder / f'microast_{part}.pth'
            if not path.is_file():
                raise FileNotFoundError(f'{path}: no such file; the weights are those of '
                                        'github.com/EndyWon/MicroAST')
            weights[part] = torch.load(path, map_location='cpu', weights_only=True)
        return cls(weights)

    def forward(self, image: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """[1, 3, H, W] and [1, 3, h, w] RGB in 0..1 -> [1, 3, H, W], not clipped."""
        content = _encode(image, self.weights['content_encoder'])
        pattern = _encode(style, self.weights['style_encoder'])
        decoder = self.weights['decoder']
        x = content[1]
        for depth, block in ((1, 'dec1'), (0, 'dec2')):
            scale, shift = (self._signal(kind, depth, pattern[depth])
                            for kind in ('weight', 'bias'))
            x = _modulated(_adain(x, pattern[depth]), decoder, block, scale, shift)
        for first, last in (('dec3.1', 'dec3.3'), ('dec3.6', 'dec3.8')):
            x = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)
            x = F.relu(_conv(F.relu(_conv(x, decoder, first)), decoder, last))
        return _conv(x, decoder, 'dec3.10')

    def _signal(self, kind: str, depth: int, pattern: torch.Tensor) -> torch.Tensor:
        name = f'{kind}{depth + 1}.0'
        return _conv(pattern, self.weights['modulator'], name).mean(dim=(2, 3), keepdim=True)


def _conv(x: torch.Tensor, weights: Weights, name: str, stride: int = 1) -> torch.Tensor:
    """Convolve with mirrored borders; the number of groups follows from the filter's depth."""
    kernel, bias = (weights[f'{name}.conv_layer.{kind}'] for kind in ('weight', 'bias'))
    margin = kernel.shape[2] // 2
    padded = F.pad(x, [margin] * 4, mode='reflect') if margin else x
    return F.conv2d(padded, kernel, bias, stride, groups=x.shape[1] // kernel.shape[1])


def _encode(x: torch.Tensor, weights: Weights) -> list[torch.Tensor]:
    for index, stride in ((0, 1), (2, 2), (4, 1), (6, 2), (8, 1)):
        x = F.relu(_conv(x, weights, f'enc1.{index}', stride))
    shallow = _residual(x, weights, 'enc1.10')
    return [shallow, _residual(shallow, weights, 'enc2.0')]


def _residual(x: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    return x + _conv(F.relu(_conv(x, weights, f'{name}.conv1')), weights, f'{name}.conv2')


def _modulated(
    x: torch.Tensor, weights: Weights, name: str, scale: torch.Tensor, shift: torch.Tensor,
) -> torch.Tensor:
    inner = F.relu(scale * _conv(x, weights, f'{name}.conv1') + shift * x)
    return x + scale * _conv(inner, weights, f'{name}.conv2') + shift * inner


def _adain(content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    mean, spread = _moments(content)
    mean_wanted, spread_wanted = _moments(style)
    return (content - mean) / spread * spread_wanted + mean_wanted


def _moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    variance = x.var(dim=(2, 3), keepdim=True) + 1e-5
    return x.mean(dim=(2, 3), keepdim=True), variance.sqrt()

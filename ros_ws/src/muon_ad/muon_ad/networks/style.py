"""The streaming style student: a small feed-forward network steered by one style vector.

Its shape follows from where it runs. Almost all work is dense 3x3 convolution at a quarter of the
resolution (stem by pixel-unshuffle), which CPUs, TensorRT and INT8 kernels all run well; the style
enters only as a scale and a shift per channel (FiLM, arXiv:1709.07871) after instance
normalisation, so it costs next to nothing a frame and is encoded once per style.
"""

from dataclasses import asdict
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

STRIDE = 4
# Every convolution of the student sees the picture mirrored at its border: with zeros there, the
# training learns to paint a frame.
PADDING = 'reflect'
STYLE_SIZE = 256


@dataclass(frozen=True)
class StyleConfig:
    """Sizes of the student: `channels` at quarter and `fine` at half resolution, `blocks` residual
    blocks; `encoder` lists the channels of the style encoder's stages.
    """

    channels: int = 48
    blocks: int = 4
    fine: int = 24
    encoder: tuple[int, ...] = (48, 96, 128)
    hidden: int = 128

    @property
    def style_length(self) -> int:
        """Length S of the style vector: a scale and a shift for every modulated channel."""
        return 2 * sum(self.modulated)

    @property
    def modulated(self) -> tuple[int, ...]:
        """Channels of each modulated layer: stem, one per block, fine."""
        return (self.channels,) * (self.blocks + 1) + (self.fine,)

    def to_dict(self) -> dict:
        """Return the fields as plain values, for a checkpoint."""
        return {**asdict(self), 'encoder': list(self.encoder)}

    @classmethod
    def from_dict(cls, data: dict) -> 'StyleConfig':
        """Rebuild from `to_dict`."""
        return cls(**{**data, 'encoder': tuple(data['encoder'])})


def same(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode=PADDING)


def _interpolation(mode: str) -> torch.Tensor:
    """Return [phase 2, tap 3, neighbour 3]: how a 3-wide filter on a doubled line reads the line.

    Entry [p, t, j] is the weight of the j-th nearest sample before doubling in tap t at phase p.
    """
    if mode == 'bilinear':
        rows = {-1: (0.75, 0.25, 0), 0: (0.25, 0.75, 0), 1: (0, 0.75, 0.25), 2: (0, 0.25, 0.75)}
    else:
        rows = {-1: (1, 0, 0), 0: (0, 1, 0), 1: (0, 1, 0), 2: (0, 0, 1)}
    return torch.tensor([[rows[phase + tap] for tap in (-1, 0, 1)] for phase in (0, 1)])


class UpConv(nn.Module):
    """Doubling (bilinear or nearest) and a 3x3 convolution, run as one at the low resolution.

    Both steps are linear, so their product is a 3x3 convolution with four outputs per channel
    and a pixel shuffle: the same result at a quarter of the memory traffic, without the hatch
    that a free pixel shuffle learns.
    """

    def __init__(self, inputs: int, outputs: int, mode: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3)
        line = _interpolation(mode).float()
        self.register_buffer('fold', torch.einsum('ptj,qul->pqtujl', line, line), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, 2H, 2W]."""
        weight, bias = self._folded()
        return F.pixel_shuffle(F.conv2d(F.pad(x, [1] * 4, mode=PADDING), weight, bias), 2)

    def _folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        weight = torch.einsum('octu,pqtujl->opqcjl', self.conv.weight, self.fold)
        return weight.flatten(0, 2), self.conv.bias.repeat_interleave(4)

    def plain(self) -> nn.Sequential:
        """Return the same map as an ordinary convolution and a pixel shuffle, for export."""
        weight, bias = self._folded()
        conv = same(self.conv.in_channels, len(bias))
        conv.weight.data, conv.bias.data = weight.detach(), bias.detach()
        return nn.Sequential(conv, nn.PixelShuffle(2))


class Block(nn.Module):
    """Residual block whose inner activation is normalised and modulated by the style."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = same(channels, channels)
        self.outer = same(channels, channels)

    def forward(self, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W], scale and shift [N, C, 1, 1] -> [N, C, H, W]."""
        return x + self.outer(F.relu(normalise(self.inner(x)) * scale + shift))


def normalise(x: torch.Tensor) -> torch.Tensor:
    """Instance-normalise [N, C, H, W]. The epsilon is large so that a blank wall stays blank."""
    return F.instance_norm(x, eps=1e-3)


class StyleStudent(nn.Module):
    """Image and style vector to stylised image; H and W in multiples of 8."""

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        self.stem = same(3 * STRIDE ** 2, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.blocks))
        self.fine = UpConv(width, config.fine, 'bilinear')
        self.last = UpConv(config.fine, 3, 'nearest')

    def forward(self, image: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] RGB in 0..1 and [N, S] -> [N, 3, H, W] in 0..1."""
        scales, shifts = style[:, :, None, None].chunk(2, dim=1)
        scales = scales.split(self.config.modulated, dim=1)
        shifts = shifts.split(self.config.modulated, dim=1)
        x = self.stem(F.pixel_unshuffle(image, STRIDE))
        x = F.relu(normalise(x) * scales[0] + shifts[0])
        for block, scale, shift in zip(self.blocks, scales[1:-1], shifts[1:-1], strict=True):
            x = block(x, scale, shift)
        x = F.relu(self.fine(x) * scales[-1] + shifts[-1])
        return torch.sigmoid(self.last(x))


class StyleEncoder(nn.Module):
    """Style image to style vector, from means and deviations at every depth.

    Only these statistics are read, so the vector describes texture and palette, not layout.
    """

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        widths = (3 * STRIDE ** 2, *config.encoder)
        self.stages = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=1 if index == 0 else 2, padding=1)
            for index, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.hidden = nn.Linear(2 * (3 + sum(config.encoder)), config.hidden)
        self.head = nn.Linear(config.hidden, config.style_length)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        # Scales start at one, shifts at zero.
        self.head.bias.data[:config.style_length // 2] = 1.0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[N, 3, 256, 256] RGB in 0..1 -> [N, S]."""
        x = image * 2 - 1
        statistics = _moments(x)
        x = F.pixel_unshuffle(x, STRIDE)
        for stage in self.stages:
            x = F.leaky_relu(stage(x), 0.1)
            statistics += _moments(x)
        return self.head(F.relu(self.hidden(torch.cat(statistics, dim=1))))


def _moments(x: torch.Tensor) -> list[torch.Tensor]:
    """Return mean and standard deviation of [N, C, H, W] over the plane, float32 [N, C] each."""
    mean = x.float().mean(dim=(2, 3))
    variance = (x.float() - mean[:, :, None, None]).square().mean(dim=(2, 3))
    return [mean, torch.sqrt(variance + 1e-5)]

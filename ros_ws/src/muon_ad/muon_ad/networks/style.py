"""The streaming style student: a small feed-forward network steered by one style vector.

Its shape follows from where it runs. Almost all work is dense 3x3 convolution at a quarter of the
resolution (stem by pixel-unshuffle), which CPUs, TensorRT and INT8 kernels all run well; the style
enters only as a scale and a shift per channel (FiLM, arXiv:1709.07871), so it costs next to
nothing a frame and is encoded once per style. Layers normalise nothing. Only the frame's
brightness and contrast are evened out, so that a dark frame gets all of a style's palette as well;
being linear, this is a part of the first scale and shift in what is exported.
"""

from dataclasses import asdict
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

STRIDE = 4
STYLE_SIZE = 256
# Contrast, of 0..1, that a frame is taken to have in addition: a blank wall stays blank.
PLAIN = 0.1
# Beyond the border is what lies at it: with zeros there, the training learns to paint a frame.
PADDING = 'replicate'


@dataclass(frozen=True)
class StyleConfig:
    """Sizes of the student: `channels` at quarter and `fine` at half resolution, `blocks` residual
    blocks; `encoder` lists the channels of the style encoder's stages.

    With `tokens` above 0, the student attends to tokens x tokens places of the style image as
    well, whose keys have `key` channels: its best and slowest level.
    """

    channels: int = 48
    blocks: int = 4
    fine: int = 24
    encoder: tuple[int, ...] = (48, 96, 128)
    hidden: int = 128
    tokens: int = 0
    key: int = 32

    @property
    def modulation_length(self) -> int:
        """How much of the style vector are scales and shifts of modulated channels."""
        return 2 * sum(self.modulated)

    @property
    def style_length(self) -> int:
        """Length S of the style vector: scales, shifts, then keys and values of the tokens."""
        return self.modulation_length + self.tokens ** 2 * (self.key + self.channels)

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
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode=PADDING)
    nn.init.kaiming_normal_(conv.weight, nonlinearity='relu')
    nn.init.zeros_(conv.bias)
    return conv


class Modulation(nn.Module):
    """A scale and a shift per channel, each at a place of its own in the style vector.

    The places are all that a pruned student needs to read the dense one's vector.
    """

    def __init__(self, channels: int, first: int, total: int) -> None:
        super().__init__()
        places = torch.arange(first, first + channels)
        self.register_buffer('scale', places)
        self.register_buffer('shift', places + total)

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] and [N, S] -> [N, C, H, W]."""
        return x * style[:, self.scale, None, None] + style[:, self.shift, None, None]


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

    def plain(self) -> nn.Conv2d:
        """Return the same map, but for the pixel shuffle, as an ordinary convolution."""
        weight, bias = self._folded()
        conv = same(self.conv.in_channels, len(bias))
        conv.weight.data, conv.bias.data = weight.detach(), bias.detach()
        return conv


class Block(nn.Module):
    """Residual block whose inner activation is modulated by the style."""

    residual = True     # so the network could do without it: see networks/resize.py

    def __init__(self, channels: int, first: int, total: int) -> None:
        super().__init__()
        self.inner = same(channels, channels)
        self.style = Modulation(channels, first, total)
        self.outer = same(channels, channels)
        self.outer.weight.data *= 0.2   # without normalisation: the sum must not grow by blocks

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] and [N, S] -> [N, C, H, W]."""
        return x + self.outer(F.relu(self.style(self.inner(x), style)))


class StyleAttention(nn.Module):
    """Adds to each place of the scene what the most alike places of the style image have.

    Queries come from the scene at an eighth of the resolution; keys and values lie in the style
    vector, made once per style.
    """

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        self.first, self.key = config.modulation_length, config.key
        self.tokens = config.tokens ** 2
        self.query = nn.Conv2d(config.channels, config.key, 1)
        self.merge = nn.Conv2d(config.channels, config.channels, 1)
        nn.init.zeros_(self.merge.weight)     # begins as if it were not there
        nn.init.zeros_(self.merge.bias)

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] and [N, S] -> [N, C, H, W]; H and W even."""
        count, channels, height, width = x.shape
        stored = style[:, self.first:].unflatten(1, (self.tokens, self.key + channels))
        query = self.query(F.avg_pool2d(x, 2)).flatten(2).transpose(1, 2)
        weights = (query @ stored[..., :self.key].transpose(1, 2) * self.key ** -0.5).softmax(-1)
        found = (weights @ stored[..., self.key:]).transpose(1, 2)
        found = found.reshape(count, channels, height // 2, width // 2)
        return x + F.interpolate(self.merge(found), scale_factor=2)


class StyleStudent(nn.Module):
    """Image and style vector to stylised image; H and W in multiples of 8."""

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        self.config = config
        width, total = config.channels, sum(config.modulated)
        self.stem = same(3 * STRIDE ** 2, width)
        self.style = Modulation(width, 0, total)
        self.blocks = nn.ModuleList(
            Block(width, width * (1 + index), total) for index in range(config.blocks))
        # Before the last block, which can still make strokes of what was found.
        self.attention = StyleAttention(config) if config.tokens else None
        self.fine = UpConv(width, config.fine, 'bilinear')
        self.fine_style = Modulation(config.fine, total - config.fine, total)
        self.last = UpConv(config.fine, 3, 'nearest')

    def forward(self, image: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] RGB in 0..1 and [N, S] -> [N, 3, H, W] in 0..1."""
        mean, deviation = frame_statistics(image)
        x = F.pixel_unshuffle((image - mean) / (2 * deviation), STRIDE)
        x = self.body(F.relu(self.style(self.stem(x), style)), style)
        x = F.relu(self.fine_style(self.fine(x), style))
        return torch.sigmoid(self.last(x))

    def body(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """All that happens at quarter resolution: [N, C, H, W] -> the same shape."""
        *blocks, final = self.blocks
        for block in blocks:
            x = block(x, style)
        if self.attention is not None:
            x = self.attention(x, style)
        return final(x, style)


def frame_statistics(
    image: torch.Tensor, peak: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean colour [N, 3, 1, 1] and the deviation from it [N, 1, 1, 1], in 0..1, of
    images [N, 3, H, W] in 0..peak, by every second pixel of every second row.
    """
    some = image[:, :, ::2, ::2].float() / peak
    mean = some.mean((2, 3), keepdim=True)
    variance = (some - mean).square().mean((1, 2, 3), keepdim=True)
    return mean, (variance + PLAIN ** 2).sqrt()


class StyleEncoder(nn.Module):
    """Style image to style vector: scales and shifts, and keys and values for an attention.

    Scales and shifts come from means and deviations at every depth, so they describe texture and
    palette, not layout.
    """

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        self.config = config
        widths = (3 * STRIDE ** 2, *config.encoder)
        self.stages = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=1 if index == 0 else 2, padding=1)
            for index, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.hidden = nn.Linear(2 * (3 + sum(config.encoder)), config.hidden)
        self.head = nn.Linear(config.hidden, config.modulation_length)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        # Scales start at one, shifts at zero.
        self.head.bias.data[:config.modulation_length // 2] = 1.0
        self.side = config.tokens
        self.tokens = (nn.Conv2d(config.encoder[-1], config.key + config.channels, 1)
                       if config.tokens else None)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[N, 3, 256, 256] RGB in 0..1 -> [N, S]."""
        x = image * 2 - 1
        statistics = _moments(x)
        x = F.pixel_unshuffle(x, STRIDE)
        for stage in self.stages:
            x = F.leaky_relu(stage(x), 0.1)
            statistics += _moments(x)
        vector = self.head(F.relu(self.hidden(torch.cat(statistics, dim=1))))
        if self.tokens is None:
            return vector
        places = self.tokens(F.avg_pool2d(x, x.shape[-1] // self.side))
        return torch.cat([vector, places.flatten(2).transpose(1, 2).flatten(1)], dim=1)


def _moments(x: torch.Tensor) -> list[torch.Tensor]:
    """Return mean and standard deviation of [N, C, H, W] over the plane, float32 [N, C] each."""
    mean = x.float().mean(dim=(2, 3))
    variance = (x.float() - mean[:, :, None, None]).square().mean(dim=(2, 3))
    return [mean, torch.sqrt(variance + 1e-5)]

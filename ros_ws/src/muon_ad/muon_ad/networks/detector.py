"""A small anchor-free detector: residual backbone, top-down neck, decoupled head shared by levels.

Only convolution, ReLU, max-pooling, nearest up-sampling, addition and concatenation, so that every
layer is native on a Jetson's DLA and quantises well. The output follows YOLOX (Ge et al., 2021,
arXiv:2107.08430), so that one decoder serves both.

This is the one definition of the whole family: a pruned detector is the same network with fewer
channels in its layers (networks/resize.py), as its file of weights says.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch import Tensor
from torch.nn import functional

from muon_ad.networks.resize import resize_to
from muon_ad.networks.weights import load_network
from muon_ad.networks.weights import save_network
from muon_ad.networks.weights import WeightsError

STRIDES = (8, 16, 32)
WIDTHS = (32, 64, 96, 112)  # channels at strides 4, 8, 16 and 32
NECK = 64


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return convolution, batch normalisation and ReLU; the size is kept but for the stride."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """x + 3x3(1x1(x)), with half the channels in between."""

    residual = True     # so the network could do without it: see networks/resize.py

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels // 2, 1), conv(channels // 2, channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        return x + self.body(x)


class Context(nn.Module):
    """Spatial pyramid pooling: lets the coarsest level see the whole frame at little cost."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.merge = conv(3 * inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        wide = self.pool(x)
        return self.merge(torch.cat([x, wide, self.pool(wide)], 1))


class DetectorNet(nn.Module):
    """The detector. `classes` is their number."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        w4, w8, w16, w32 = WIDTHS
        # Straight to stride 4: at full and half size, memory traffic costs more than arithmetic.
        self.stage8 = nn.Sequential(
            conv(3, w4, 7, 4), conv(w4, w8, 3, 2), Residual(w8), Residual(w8)
        )
        self.stage16 = nn.Sequential(conv(w8, w16, 3, 2), Residual(w16), Residual(w16))
        self.stage32 = nn.Sequential(conv(w16, w32, 3, 2), Residual(w32))
        self.lateral8 = conv(w8, NECK, 1)
        self.lateral16 = conv(w16, NECK, 1)
        self.lateral32 = Context(w32, NECK)
        self.box_tower = conv(NECK, NECK)
        self.class_tower = conv(NECK, NECK)
        self.box = nn.ModuleList(nn.Conv2d(NECK, 5, 1) for _ in STRIDES)
        self.label = nn.ModuleList(nn.Conv2d(NECK, classes, 1) for _ in STRIDES)
        for layer in [*self.box, *self.label]:
            nn.init.normal_(layer.weight, std=0.01)
            # Start from "nothing here": nearly every cell is background.
            nn.init.constant_(layer.bias, -4.0)
        for layer in self.box:
            nn.init.constant_(layer.bias[:4], 0.0)

    @property
    def neck(self) -> int:
        """Return the channels of the features, NECK or what pruning has left of them."""
        return self.lateral8[0].out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Detect in images [B, 3, H, W] RGB 0..1, H and W multiples of 32.

        Returns [B, N, 5 + classes] in YOLOX's raw form: x, y offset from the cell in cells, log of
        width and height in cells, then *logits* of objectness and of the classes. Cells run row by
        row, finest level first.
        """
        return self.head(self.features(x))

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the features [B, neck, H / stride, W / stride] of each level, finest first."""
        fine = self.stage8(x * 4 - 2)
        middle = self.stage16(fine)
        coarse = self.lateral32(self.stage32(middle))
        middle = self.lateral16(middle) + functional.interpolate(coarse, scale_factor=2)
        fine = self.lateral8(fine) + functional.interpolate(middle, scale_factor=2)
        return [fine, middle, coarse]

    def head(self, features: list[Tensor]) -> Tensor:
        """Turn features into the output of `forward`."""
        return joined([
            (box(self.box_tower(level)), label(self.class_tower(level)))
            for level, box, label in zip(features, self.box, self.label, strict=True)
        ])


def joined(levels: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the output of `forward` from what the layers `box` and `label` make of each level."""
    flat = [torch.cat(level, 1).flatten(2) for level in levels]
    return torch.cat(flat, 2).transpose(1, 2)


def save_detector(path: Path, net: DetectorNet, classes: Sequence[str]) -> None:
    """Write a detector, dense or pruned, as .safetensors that `load_detector` reads."""
    save_network(path, net, 'detector', {'classes': list(classes)})


def load_detector(path: Path) -> tuple[DetectorNet, tuple[str, ...]]:
    """Return the detector that a file holds, in evaluation mode, and the names of its classes.

    Raises WeightsError where the file is missing, broken or of another network.
    """
    weights = load_network(path, 'detector')
    classes = tuple(map(str, weights.config.get('classes', ())))
    if not classes:
        raise WeightsError(f'{path}: names no classes; expected a file that muon-ad wrote')
    try:
        net = resize_to(DetectorNet(len(classes)), weights.state).eval()
    except ValueError as error:
        raise WeightsError(f'{path}: {error}') from error
    if net.label[0].out_channels != len(classes):
        raise WeightsError(f'{path}: names {len(classes)} classes, and its network tells '
                           f'{net.label[0].out_channels} apart')
    return net, classes


def for_classes(
    net: DetectorNet, known: Sequence[str], wanted: Sequence[str],
) -> DetectorNet:
    """Return a detector of the `wanted` classes, in that order, in evaluation mode.

    Classes that `net` knows (`known` are the names of its own) keep what it learnt of them, others
    start afresh.
    """
    result = resize_to(DetectorNet(net.classes), net.state_dict())
    result.classes = len(wanted)
    fresh = DetectorNet(len(wanted)).label
    for level, (old, new) in enumerate(zip(net.label, fresh, strict=True)):
        inputs = old.in_channels
        layer = nn.Conv2d(inputs, len(wanted), 1)
        with torch.no_grad():
            for row, name in enumerate(wanted):
                source, index = (old, known.index(name)) if name in known else (new, row)
                layer.weight[row] = source.weight[index, :inputs]
                layer.bias[row] = source.bias[index]
        result.label[level] = layer
    return result.eval()


class Exported(nn.Module):
    """The detector as it is exported: a camera's pixels in, probabilities out."""

    def __init__(self, net: DetectorNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [1, H, W, 3] RGB -> [1, N, 5 + classes], all but the box as probabilities."""
        raw = self.net(image.permute(0, 3, 1, 2).float() / 255)
        return torch.cat([raw[..., :4], raw[..., 4:].sigmoid()], 2)


def cells(width: int, height: int) -> tuple[Tensor, Tensor]:
    """Return column and row [N, 2] and stride [N, 1] of each cell, in the order of the output."""
    places, strides = [], []
    for stride in STRIDES:
        rows, columns = torch.meshgrid(
            torch.arange(height // stride), torch.arange(width // stride), indexing='ij'
        )
        places.append(torch.stack([columns.flatten(), rows.flatten()], 1))
        strides.append(torch.full((columns.numel(), 1), stride))
    return torch.cat(places).float(), torch.cat(strides).float()


def boxes(raw: Tensor, places: Tensor, strides: Tensor) -> Tensor:
    """Turn raw output [..., N, 4+] into x_min, y_min, x_max, y_max [..., N, 4] in pixels."""
    centre = (raw[..., :2] + places) * strides
    # Beyond e^6 cells no box fits any image; the bound keeps an untrained network finite.
    half = raw[..., 2:4].clamp(max=6).exp() * strides / 2
    return torch.cat([centre - half, centre + half], -1)

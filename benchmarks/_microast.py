"""MicroAST, the peer of the style benchmark: its network, to run the published weights.

Wang et al., "MicroAST: Towards Super-Fast Ultra-Resolution Arbitrary Style Transfer", AAAI 2023:
two encoders of the same form (section 3.1), a modulator that turns style features into weights and
biases of filters (3.2, DualMod) and a decoder modulated by both. Written anew here; the names of
modules are those in the weights of EndyWon/MicroAST (MIT).
"""

import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch import Tensor
from torch.nn import functional

OPSET = 17
FILES = {
    name: f'microast_{name}.pth'
    for name in ('content_encoder', 'style_encoder', 'modulator', 'decoder')
}


class Conv(nn.Module):
    """A convolution that keeps the size (or halves it) by reflecting at the borders."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) \
            -> None:
        super().__init__()
        self.conv_layer = nn.Conv2d(
            inside, outside, kernel, stride, kernel // 2, groups=groups, padding_mode='reflect'
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        return self.conv_layer(x)


class Residual(nn.Module):
    """A residual block whose two convolutions may be modulated by a style (equation 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Conv(64, 64, 3)
        self.conv2 = Conv(64, 64, 3)

    def forward(self, x: Tensor, weight: Tensor | float = 1.0, bias: Tensor | float = 0.0) \
            -> Tensor:
        """Return x plus its modulated residual."""
        hidden = functional.relu(weight * self.conv1(x) + bias * x)
        return x + weight * self.conv2(hidden) + bias * hidden


class Encoder(nn.Module):
    """RGB [1, 3, H, W] to two feature maps [1, 64, H/4, W/4]."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1 = nn.Sequential(
            Conv(3, 16, 9), nn.ReLU(),
            Conv(16, 32, 3, stride=2, groups=16), nn.ReLU(), Conv(32, 32, 1), nn.ReLU(),
            Conv(32, 64, 3, stride=2, groups=32), nn.ReLU(), Conv(64, 64, 1), nn.ReLU(),
            Residual(),
        )
        self.enc2 = nn.Sequential(Residual())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode."""
        first = self.enc1(x)
        return first, self.enc2(first)


class Modulator(nn.Module):
    """Style features to the weight and bias [1, 64, 1, 1] of each modulated block."""

    def __init__(self) -> None:
        super().__init__()
        for name in ('weight1', 'bias1', 'weight2', 'bias2'):
            layers = nn.Sequential(Conv(64, 64, 3, groups=64), nn.AdaptiveAvgPool2d(1))
            self.add_module(name, layers)

    def forward(self, features: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], ...]:
        """Return (weight, bias) for the second-last and the last block to run."""
        first, second = features
        return (
            (self.weight1(first), self.bias1(first)), (self.weight2(second), self.bias2(second))
        )


class Decoder(nn.Module):
    """Feature maps back to RGB."""

    def __init__(self) -> None:
        super().__init__()
        self.dec1 = Residual()
        self.dec2 = Residual()
        self.dec3 = nn.Sequential(
            nn.Upsample(scale_factor=2, mode='bilinear'),
            Conv(64, 32, 3, groups=32), nn.ReLU(), Conv(32, 32, 1), nn.ReLU(),
            nn.Upsample(scale_factor=2, mode='bilinear'),
            Conv(32, 16, 3, groups=16), nn.ReLU(), Conv(16, 16, 1), nn.ReLU(),
            Conv(16, 3, 9),
        )


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, [1, C, 1, 1]."""
    variance, mean = torch.var_mean(x, (2, 3), keepdim=True)
    return mean, (variance + 1e-5).sqrt()


def adapt(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return x with another mean and deviation (adaptive instance normalisation)."""
    own_mean, own_deviation = statistics(x)
    return (x - own_mean) * (deviation / own_deviation) + mean


class Stylised(nn.Module):
    """Pixels in and out, uint8 [1, H, W, 3], for one style whose signals are constants."""

    def __init__(self, folder: Path, style: np.ndarray) -> None:
        """`folder` holds the four weight files; `style` is a uint8 [H, W, 3] RGB image."""
        super().__init__()
        self.content = _loaded(Encoder(), folder / FILES['content_encoder'])
        self.decoder = _loaded(Decoder(), folder / FILES['decoder'])
        encoder = _loaded(Encoder(), folder / FILES['style_encoder'])
        modulator = _loaded(Modulator(), folder / FILES['modulator'])
        with torch.no_grad():
            features = encoder(_planes(torch.from_numpy(style)[None]))
            self.features = [statistics(map_) for map_ in features]
            self.filters = modulator(features)

    def forward(self, image: Tensor) -> Tensor:
        """Stylise one frame."""
        _, x = self.content(_planes(image))
        x = self.decoder.dec1(adapt(x, *self.features[1]), *self.filters[1])
        x = self.decoder.dec2(adapt(x, *self.features[0]), *self.filters[0])
        result = self.decoder.dec3(x).clamp(0, 1)
        return (result * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1)


def _planes(image: Tensor) -> Tensor:
    return image.permute(0, 3, 1, 2).float() / 255


def _loaded(module: nn.Module, path: Path) -> nn.Module:
    module.load_state_dict(torch.load(path, map_location='cpu', weights_only=True))
    return module.eval().requires_grad_(False)


def export(weights: Path, style: Path, width: int, height: int, path: Path) -> None:
    """Write the ONNX file for frames of one size and one style image."""
    picture = cv2.cvtColor(cv2.imread(str(style)), cv2.COLOR_BGR2RGB)
    frame = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # As in muon_ad/train; the others say that ONNX Runtime will fold some constants itself.
        warnings.simplefilter('ignore', DeprecationWarning)
        warnings.simplefilter('ignore', UserWarning)
        torch.onnx.export(
            Stylised(weights, picture), (frame,), str(path), input_names=['image'],
            output_names=['stylised'], opset_version=OPSET, dynamo=False,
        )

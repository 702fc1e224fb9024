"""A small encoder whose features imitate a VGG's: eyes for attention and for losses.

Half the convolutions of VGG-19 up to relu4_1; every level has as many channels as the distilled
VGG-19 that it learns from (train/perceptual.py), a quarter of the original's, so no adapter lies
between them. Its features have a root mean square of about one at every level. diffusers' model
classes give it their folder format.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import ConfigMixin
from diffusers import ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

LEVELS = ('relu1_1', 'relu2_1', 'relu3_1', 'relu4_1')


class FeatureEncoder(ModelMixin, ConfigMixin):
    """Picture to features at four levels, each half as large as the one before.

    `channels` are those of the levels; between two levels lies one more convolution.
    """

    @register_to_config
    def __init__(self, channels: tuple[int, int, int, int] = (16, 32, 64, 128)) -> None:
        super().__init__()
        inputs = (3, *channels[:-1])
        self.enter = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, padding_mode='replicate')
            for a, b in zip(inputs, channels, strict=True)
        )
        self.mix = nn.ModuleList(
            nn.Conv2d(c, c, 3, padding=1, padding_mode='replicate') for c in channels[:-1]
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """[N, 3, H, W] RGB in 0..1 -> [N, C, H / 2^k, W / 2^k] at LEVELS, rounded up."""
        found = [F.relu(self.enter[0](image * 2 - 1))]
        for mix, enter in zip(self.mix, self.enter[1:], strict=True):
            x = F.max_pool2d(F.relu(mix(found[-1])), 2, ceil_mode=True)
            found.append(F.relu(enter(x)))
        return found

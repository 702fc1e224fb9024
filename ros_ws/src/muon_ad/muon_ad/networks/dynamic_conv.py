"""Depthwise dynamic convolution, which takes the place of self-attention over image tokens."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

BASES = 4
KERNEL = 5


class DynamicConv(nn.Module):
    """A depthwise convolution whose kernel is mixed anew for every picture.

    Sample b is convolved with sum_k a[b, k] * bases[k], where a = softmax over k of a linear map
    of the input's mean over all places (Chen et al., arXiv 1912.03458, made depthwise; Muon-AD
    names the layer and gives no formula). Input and output are [B, C, H, W] in the parameters'
    dtype; the cost is that of one depthwise convolution, however many `bases`.

    The bases begin at zero, so that a network in which it replaces a residual branch begins
    without that branch; the map begins random, or all bases would learn the same. Raises
    ValueError for sizes that are no kernel.
    """

    def __init__(self, channels: int, bases: int = BASES, kernel: int = KERNEL) -> None:
        super().__init__()
        for name, value, good, expected in (
            ('channels', channels, channels > 0, 'above 0'),
            ('bases', bases, bases > 0, 'above 0'),
            ('kernel', kernel, kernel > 0 and kernel % 2, 'odd and above 0'),
        ):
            if not good:
                raise ValueError(f'{name} is {value}; expected a number that is {expected}')
        self.gate = nn.Linear(channels, bases)
        self.bases = nn.Parameter(torch.zeros(bases, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> the same shape."""
        samples, channels, height, width = x.shape
        shares = self.gate(x.mean(dim=(2, 3))).softmax(dim=1)
        kernels = torch.einsum('bk,kchw->bchw', shares, self.bases)
        # Samples become groups of one convolution, as each has a kernel of its own.
        found = F.conv2d(x.reshape(1, -1, height, width), kernels.flatten(0, 1).unsqueeze(1),
                         padding=kernels.shape[-1] // 2, groups=samples * channels)
        return found.reshape(x.shape) + self.bias[:, None, None]


class TokenDynamicConv(DynamicConv):
    """The same over tokens [B, H * W, C], where diffusers' transformers have self-attention.

    They do not pass height and width on: `tell_shape`, a hook of the module around, does.
    """

    shape: tuple[int, int] | None = None

    def forward(self, hidden_states: torch.Tensor, **_ignored: object) -> torch.Tensor:
        """[B, tokens, C] -> the same shape; masks and texts, which attention takes, are ignored.

        Without a `shape` the picture is taken to be square; raises ValueError where it is not.
        """
        tokens = hidden_states.shape[1]
        height, width = self.shape or (math.isqrt(tokens),) * 2
        if height * width != tokens:
            raise ValueError(f'hidden_states has {tokens} tokens; expected {height} x {width}')
        picture = hidden_states.transpose(1, 2).unflatten(2, (height, width))
        return super().forward(picture).flatten(2).transpose(1, 2)


def tell_shape(module: nn.Module, inputs: tuple, named: dict) -> None:
    """Tell the convolutions in a transformer what it is given: a pre-forward hook with kwargs."""
    picture = inputs[0] if inputs else named['hidden_states']
    for part in module.modules():
        if isinstance(part, TokenDynamicConv):
            part.shape = tuple(picture.shape[2:])


class NoAttention(nn.Module):
    """Where an attention layer was: adds nothing to its residual connection."""

    def forward(self, hidden_states: torch.Tensor, **_ignored: object) -> torch.Tensor:
        """Return zeros like the tokens."""
        return torch.zeros_like(hidden_states)

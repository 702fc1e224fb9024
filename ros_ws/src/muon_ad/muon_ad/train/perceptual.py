"""Perceptual features and the losses of style training.

The feature network is a VGG-19 encoder distilled to a quarter of its channels (Collaborative
Distillation, arXiv:2003.08436, `cd_vgg19_small16x_e4.pth`), cheap enough for training on a CPU.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

UNTRAINED = 0.02    # deepest features of the trained weights are above 0.2
LAYERS = ('relu1_1', 'relu2_1', 'relu3_1', 'relu4_1')
_PLAN = ('11', '12', 'pool', '21', '22', 'pool', '31', '32', '33', '34', 'pool', '41')


class FeatureError(ValueError):
    """The weights of the feature network are missing or are something else."""


def _convolution(name: str, inputs: int, outputs: int) -> nn.Conv2d:
    size = 1 if name == '0' else 3
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


class Features(nn.Module):
    """Distilled VGG-19 up to relu4_1. Without `weights`, randomly initialised (for tests only)."""

    def __init__(self, weights: dict[str, torch.Tensor] | None = None) -> None:
        super().__init__()
        widths = {'0': (3, 3), '11': (3, 16), '12': (16, 16), '21': (16, 32), '22': (32, 32),
                  '31': (32, 64), '32': (64, 64), '33': (64, 64), '34': (64, 64), '41': (64, 128)}
        for name, (inputs, outputs) in widths.items():
            self.add_module(f'conv{name}', _convolution(name, inputs, outputs))
        if weights is not None:
            self.load_state_dict({key: weights[key] for key in self.state_dict()})
        self.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """[N, 3, H, W] RGB in 0..1 -> activations at LAYERS."""
        x = self.conv0(image)
        found = []
        for step in _PLAN:
            if step == 'pool':
                x = F.max_pool2d(x, 2, ceil_mode=True)
                continue
            x = F.relu(getattr(self, f'conv{step}')(x))
            if step.endswith('1'):
                found.append(x)
        return found


def load_features(path: Path) -> nn.Module:
    """Load a frozen feature network: the distilled VGG-19, or the encoder of a backbone.

    `path` is the former's file or the latter's folder, such as models/backbone_tiny/encoder;
    both map pictures to features at LAYERS. Raises FeatureError saying where to get them.
    """
    if path.is_dir():
        return _load_encoder(path)
    advice = (
        'expected cd_vgg19_small16x_e4.pth of github.com/MingSun-Tse/Collaborative-Distillation '
        '(PytorchWCT models), or the folder of a feature encoder (models/backbone_tiny/encoder); '
        'give its path with --features'
    )
    if not path.is_file():
        raise FeatureError(f'{path}: no such file; {advice}')
    try:
        weights = torch.load(path, map_location='cpu', weights_only=True)
        features = Features(weights.get('model', weights))
    except (KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise FeatureError(f'{path}: not these weights ({error!r}); {advice}') from error
    if _strength(features) < UNTRAINED:
        warnings.warn(f'{path}: deep features are all but zero, as in the weights that the '
                      f'distillation began with (small16x_ae_base); {advice}', stacklevel=2)
    return features


@torch.no_grad()
def _strength(features: nn.Module) -> float:
    """Return the root mean square of the deepest features of noise."""
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return float(features(noise)[-1].square().mean().sqrt())


def _load_encoder(folder: Path) -> nn.Module:
    # Here, not above: diffusers takes seconds to import, and its weights are one choice of two.
    from muon_ad.networks.feature_encoder import FeatureEncoder

    try:
        encoder = FeatureEncoder.from_pretrained(
            folder, torch_dtype=torch.float32, low_cpu_mem_usage=False)
    except (OSError, ValueError) as error:
        raise FeatureError(f'{folder}: no feature encoder ({error}); expected config.json and '
                           'weights such as models/backbone_tiny/encoder has') from error
    return encoder.eval().requires_grad_(False)


def statistics(features: list[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return per layer the mean [N, C] and the covariance [N, C, C] over the plane."""
    found = []
    for x in features:
        # Pixels before channels, as the features lie in memory: half the time of the other order.
        flat = x.permute(0, 2, 3, 1).flatten(1, 2).float()
        mean = flat.mean(dim=1)
        moment = flat.transpose(1, 2) @ flat / flat.shape[1]
        found.append((mean, moment - mean[:, :, None] * mean[:, None, :]))
    return found


def style_loss(found: list, wanted: list) -> torch.Tensor:
    """Compare two `statistics`, each layer relative to the size of what is wanted."""
    total = torch.zeros(())
    for (mean, cov), (mean_wanted, cov_wanted) in zip(found, wanted, strict=True):
        spread = cov.diagonal(dim1=1, dim2=2).clamp_min(1e-8).sqrt()
        spread_wanted = cov_wanted.diagonal(dim1=1, dim2=2).clamp_min(1e-8).sqrt()
        total = total + _relative(mean, mean_wanted) + _relative(spread, spread_wanted)
        total = total + _relative(cov.flatten(1), cov_wanted.flatten(1))
    return total / len(found)


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Squared distance over squared size, averaged over the batch; inputs [N, K]."""
    return ((found - wanted).square().sum(1) / (wanted.square().sum(1) + 1e-6)).mean()


def content_loss(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> torch.Tensor:
    """Compare what is where: the two deepest layers, each channel normalised over the plane."""
    return sum(F.mse_loss(F.instance_norm(a.float()), F.instance_norm(b.float()))
               for a, b in zip(found[-2:], wanted[-2:], strict=True)) / 2


def structure_loss(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Compare light and dark: luminance averaged over 8x8 pixels, normalised per image."""
    def tone(image: torch.Tensor) -> torch.Tensor:
        weights = image.new_tensor([0.299, 0.587, 0.114])[None, :, None, None]
        return F.instance_norm(F.avg_pool2d((image * weights).sum(1, keepdim=True), 8), eps=1e-4)

    return F.mse_loss(tone(found), tone(wanted))


def palette_loss(
    found: torch.Tensor, wanted: torch.Tensor, rng: np.random.Generator, samples: int = 1024,
    directions: int = 8,
) -> torch.Tensor:
    """Sliced Wasserstein-1 distance between the colours of two images [N, 3, H, W]."""
    axes = torch.from_numpy(rng.normal(size=(3, directions)).astype(np.float32))
    axes = axes / axes.norm(dim=0)

    def projected(image: torch.Tensor) -> torch.Tensor:
        flat = image.flatten(2)
        chosen = torch.from_numpy(rng.integers(0, flat.shape[2], samples))
        return (flat[:, :, chosen].transpose(1, 2) @ axes).sort(dim=1).values

    return F.l1_loss(projected(found), projected(wanted))


def variation_loss(image: torch.Tensor) -> torch.Tensor:
    """Total variation: mean absolute difference of neighbours."""
    return image.diff(dim=2).abs().mean() + image.diff(dim=3).abs().mean()

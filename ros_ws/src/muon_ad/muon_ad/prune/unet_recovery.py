"""Recovery of a light U-Net: it imitates the dense one it was cut from."""

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from muon_ad.distill.backbone import Attention
from muon_ad.distill.diffusion import DiffusionBackbone
from muon_ad.distill.losses import attention_map_loss
from muon_ad.distill.processors import capture
from muon_ad.networks.light_unet import LightUNet
from muon_ad.prune.denoising import noisy_batch
from muon_ad.prune.unet import Kept
from muon_ad.train.backbone import Recipe

RATE = 1e-3
# Found on models/backbone_tiny; in units of losses that are means over elements or layers.
WEIGHTS = {'denoising': 0.5, 'prediction': 1.0, 'features': 0.5, 'maps': 0.1}


def recovery_recipe(steps: int, batch: int, crop: int, rate: float, seed: int) -> Recipe:
    """Return how to recover in `steps` steps: weights are averaged over the last tenth or so."""
    average = min(0.995, max(0.0, 1 - 10 / max(1, steps)))
    return Recipe('recovery', steps, batch, crop, rate, average, seed)


class RecoveryPart(nn.Module):
    """A light U-Net that learns from the dense one of `teacher`, for `train.backbone.Learning`.

    It is drawn to the dense one's prediction, to the outputs of its blocks (as in BK-SDM, arXiv
    2305.15798) and, where it has the layer too, to the attention maps of the heads that it kept:
    KL(dense || light) on the same latents. Beside these stands the denoising loss itself.
    `weights` are those of COLUMNS.
    """

    COLUMNS = tuple(WEIGHTS)

    def __init__(
        self, teacher: DiffusionBackbone, light: LightUNet, kept: Kept,
        weights: Mapping[str, float] = WEIGHTS,
    ) -> None:
        super().__init__()
        self.net = light.requires_grad_(True)
        # In a tuple: not parts of what is trained and saved.
        self._backbones = teacher, teacher.with_denoiser(light)
        self._kept, self._weights = kept, weights

    def losses(self, images: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Return the weighted losses of pictures [N, 3, H, W] in 0..1."""
        teacher, student = self._backbones
        layers = student.layers
        batch = noisy_batch(teacher, images, generator)
        with torch.no_grad(), _Outputs(teacher.denoiser) as wanted, \
                capture(teacher.denoiser, layers) as aims:
            prediction = teacher.predict(batch.noisy, batch.times).float()
        with _Outputs(student.denoiser) as outputs, capture(student.denoiser, layers) as maps:
            found = student.predict(batch.noisy, batch.times).float()
        losses = {
            'denoising': F.mse_loss(found, batch.target),
            'prediction': F.mse_loss(found, prediction),
            'features': _feature_loss(outputs.seen, wanted.seen),
            'maps': attention_map_loss(
                [maps[name] for name in layers],
                [self._same_heads(aims[name]) for name in layers]) / len(layers),
        }
        return {name: self._weights[name] * loss for name, loss in losses.items()}

    def _same_heads(self, seen: Attention) -> Attention:
        """Return what those heads of the dense layer saw that the light one has."""
        heads = self._kept.get(seen.name)
        if heads is None:
            return seen
        return replace(seen, query=seen.query[:, heads], key=seen.key[:, heads])


class _Outputs:
    """Collects the outputs of a U-Net's blocks during a pass within it."""

    def __init__(self, model: nn.Module) -> None:
        middle = [model.mid_block] if model.mid_block is not None else []
        self._blocks = [*model.down_blocks, *middle, *model.up_blocks]
        self.seen: list[torch.Tensor] = []

    def __enter__(self) -> '_Outputs':
        self._hooks = [block.register_forward_hook(self._keep) for block in self._blocks]
        return self

    def __exit__(self, *_error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, _block: nn.Module, _inputs: tuple, output: object) -> None:
        # A block of the way down returns what goes on, and its skip connections.
        self.seen.append(output[0] if isinstance(output, tuple) else output)


def _feature_loss(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> torch.Tensor:
    """Mean over blocks of the squared error over the mean square of what was wanted."""
    parts = [F.mse_loss(a.float(), b.float()) / b.float().square().mean().clamp_min(1e-8)
             for a, b in zip(found, wanted, strict=True)]
    return torch.stack(parts).mean()

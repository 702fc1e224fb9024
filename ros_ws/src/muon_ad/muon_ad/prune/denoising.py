"""Batches of noisy latents on which a U-Net is measured, and how well it denoises them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from muon_ad.distill.diffusion import DiffusionBackbone
from muon_ad.scene import Scene
from muon_ad.scene import View
from muon_ad.train.backbone import SIDE
from muon_ad.train.backbone import some_crops
from muon_ad.train.backbone import textures

SCENES = 8


@dataclass(frozen=True)
class Batch:
    """Noisy latents [B, C, h, w], their time-steps [B], and what a perfect network predicts."""

    noisy: torch.Tensor
    times: torch.Tensor
    target: torch.Tensor


def generated_pictures(seed: int) -> list[np.ndarray]:
    """Return a sheet of every drawn style and views of the built-in scene, uint8 [H, W, 3] RGB."""
    rng = np.random.default_rng(seed)
    views = [View.from_fov(SIDE * 4 // 3, SIDE, rng.uniform(45, 75)) for _ in range(SCENES)]
    return textures(1, seed) + [Scene(view).rgb(rng.uniform(0, 600)) for view in views]


def noisy_batch(
    backbone: DiffusionBackbone, crops: torch.Tensor, generator: torch.Generator,
) -> Batch:
    """Return crops [B, 3, H, W] in 0..1 as latents, each at a random time-step of its own."""
    with torch.no_grad():
        latents = backbone.encode(crops)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    known = backbone.timesteps(1000)
    drawn = torch.randint(len(known), (len(latents),), generator=generator)
    times = [known[index] for index in drawn.tolist()]
    schedule = backbone.noise
    noisy, target = (
        torch.stack([make(*each) for each in zip(latents, noise, times, strict=True)])
        for make in (schedule.add_noise, schedule.target)
    )
    return Batch(noisy, torch.tensor(times, device=latents.device), target)


def noisy_batches(
    backbone: DiffusionBackbone, pictures: Sequence[np.ndarray], count: int, size: int, crop: int,
    seed: int,
) -> list[Batch]:
    """Return `count` batches of `size` crops of `crop` pixels, the same for the same seed."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    return [noisy_batch(backbone, some_crops(pictures, crop, size, rng), generator)
            for _ in range(count)]


def denoising_loss(backbone: DiffusionBackbone, batch: Batch) -> torch.Tensor:
    """Return the mean squared error of a prediction, the loss that diffusion is trained on."""
    return F.mse_loss(backbone.predict(batch.noisy, batch.times).float(), batch.target)


@torch.no_grad()
def mean_loss(backbone: DiffusionBackbone, batches: Sequence[Batch]) -> float:
    """Return the mean denoising loss over batches."""
    return sum(denoising_loss(backbone, batch).item() for batch in batches) / len(batches)

"""The shipped backbone on pictures that it has not learnt from: does each part do its work."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from skimage import data

from muon_ad.distill.backbone import load_backbone
from muon_ad.distill.settings import ATTENTIONS
from muon_ad.distill.settings import Settings
from muon_ad.distill.stylize import stylize
from muon_ad.styles.draw import draw

FOLDER = Path(__file__).parents[2] / 'models' / 'backbone_tiny'
SIDE = 128


def photograph(name: str) -> np.ndarray:
    image = getattr(data, name)()
    image = np.dstack([image] * 3) if image.ndim == 2 else image[..., :3]
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


UNSEEN = [photograph(name) for name in ('camera', 'coins', 'immunohistochemistry', 'retina')]
STYLE = draw('swirls', SIDE, seed=9)


@pytest.fixture(scope='module')
def images():
    return torch.from_numpy(np.stack(UNSEEN)).permute(0, 3, 1, 2) / 255


@pytest.fixture(scope='module', params=ATTENTIONS)
def backbone(request):
    return load_backbone(FOLDER, attention=request.param)


def test_pictures_come_back_from_their_latents(images):
    backbone = load_backbone(FOLDER, attention='denoiser')
    with torch.no_grad():
        latents = backbone.encode(images)
        found = backbone.decode(latents)
    errors = (found - images).square().mean(dim=(1, 2, 3))
    assert (10 * torch.log10(1 / errors)).min() > 22    # decibels
    assert 0.5 < latents.std() < 2


def test_the_denoiser_knows_signal_from_noise(images):
    backbone = load_backbone(FOLDER, attention='denoiser')
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        latents = backbone.encode(images)
        noise = torch.randn(latents.shape, generator=generator)
        for timestep, share in ((200, 0.6), (500, 0.6), (800, 0.9)):
            noisy = backbone.add_noise(latents, noise, timestep)
            clean = backbone.step(noisy, backbone.denoise(noisy, timestep), timestep, None)
            # Against the guess that says nothing: the noisy latents as they are, scaled down.
            level = noisy.flatten() @ latents.flatten() / noisy.square().sum()
            trivial = (level * noisy - latents).square().mean()
            assert (clean - latents).square().mean() < share * trivial, timestep


def test_a_photograph_takes_on_the_style(backbone):
    settings = Settings(steps=12, size=64, timesteps=4)
    result = stylize(photograph('coins'), STYLE, backbone, settings)
    losses = [record.style for record in result.history]
    assert losses[-1] < 0.8 * losses[0]
    palette = np.abs(result.image.mean((0, 1)) - STYLE.mean((0, 1))).max()
    assert palette < np.abs(photograph('coins').mean((0, 1)) - STYLE.mean((0, 1))).max()


def test_it_is_small_and_in_half_precision():
    files = sorted(FOLDER.glob('*/*.safetensors'))
    assert [file.parent.name for file in files] == ['encoder', 'unet', 'vae']
    assert sum(file.stat().st_size for file in files) < 8e6
    for file in files:
        assert {value.dtype for value in load_file(file).values()} == {torch.float16}


def test_the_card_names_each_part():
    card = (FOLDER / 'README.md').read_text(encoding='utf-8')
    for part in FOLDER.iterdir():
        assert part.name == 'README.md' or part.name in card, part
    assert json.loads((FOLDER / 'stylize.json').read_text())['attention'] in ATTENTIONS

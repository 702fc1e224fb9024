"""What the optimisers are compared on: the style student, a denoiser, the detector.

All are small versions of what the suite trains, from pictures that come with the project and with
scikit-image; nothing is downloaded.
"""

import functools
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

import numpy as np
import skimage.data
import torch
from _common import ROOT
from _common import WEIGHTS
from _race import Task
from torch import nn
from torch import Tensor

from muon_ad.networks.detector import cells
from muon_ad.networks.detector import DetectorNet
from muon_ad.networks.style import STYLE_SIZE
from muon_ad.networks.style import StyleConfig
from muon_ad.networks.style import StyleEncoder
from muon_ad.networks.style import StyleStudent
from muon_ad.runtime.package import load_package
from muon_ad.styles.draw import draw
from muon_ad.styles.draw import STYLES
from muon_ad.train import perceptual
from muon_ad.train.detection_data import library
from muon_ad.train.detection_data import Pool
from muon_ad.train.detection_data import Scenes
from muon_ad.train.detector import rendered
from muon_ad.train.images import DataError
from muon_ad.train.images import random_crop
from muon_ad.train.imitation import imitation_losses
from muon_ad.train.imitation import Targets
from muon_ad.train.style import Corpus
from muon_ad.train.style import Recipe
from muon_ad.train.style import to_tensor
from muon_ad.train.style import WEIGHTS as LOSS_WEIGHTS
from muon_ad.train.teacher import Teacher

MODELS = ROOT / 'models'
BACKBONE = MODELS / 'backbone_tiny'
STUDENT = StyleConfig(channels=24, blocks=2, fine=12, encoder=(24, 48), hidden=48)
STYLE_RECIPE = Recipe(crop=64, batch=2)
DENOISER_WIDTHS = (16, 32, 48)
LATENT_CROP = 64
LATENT_BATCH = 4
DETECTOR_SIZE = (160, 128)


@dataclass(frozen=True)
class Sizes:
    """How much there is to learn from and to be judged on."""

    scenes: int = 12        # rendered frames among the pictures
    latents: int = 256      # crops that the denoiser learns from
    pool: int = 96          # composed scenes that the detector learns from
    held: int = 4           # batches to be judged on


QUICK = Sizes(scenes=2, latents=16, pool=8, held=1)


@functools.cache
def pictures(scenes: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return photographs and rendered scenes to learn from, and others to be judged on."""
    left, right, _ = skimage.data.stereo_motorcycle()
    learnt = [skimage.data.astronaut(), skimage.data.chelsea(), left,
              skimage.data.hubble_deep_field(), skimage.data.immunohistochemistry()]
    held = [skimage.data.coffee(), skimage.data.rocket(), skimage.data.retina()]
    return learnt + rendered(scenes, seed=0), held + rendered(max(1, scenes // 4), seed=1)


def style_task(sizes: Sizes) -> Task:
    """The style student and its encoder, by the perceptual losses of their training."""
    features, named = eyes()
    learnt, held = pictures(sizes.scenes)
    drawn = [draw(name, STYLE_SIZE) for name in STYLES]
    known = [_statistics(features, image) for image in drawn]
    corpus = Corpus(learnt, [], drawn)

    def batch(source: Corpus, rng: np.random.Generator) -> tuple:
        wide, styles, chosen = source.batch(STYLE_RECIPE, rng)
        crop = STYLE_RECIPE.crop
        photo = wide[:, :, :crop, :crop].contiguous(memory_format=torch.channels_last)
        wanted = [tuple(torch.cat(parts) for parts in zip(*layer, strict=True))
                  for layer in zip(*(known[n] for n in chosen), strict=True)]
        # Half the size is enough for means and deviations, and a quarter of the work.
        return photo, nn.functional.avg_pool2d(styles, 2), wanted, int(rng.integers(2 ** 31))

    def loss(net: nn.Module, given: tuple) -> Tensor:
        photo, styles, wanted, seed = given
        found = net['student'](photo, net['encoder'](styles))
        with torch.no_grad():
            scene = features(photo)
        seen = features(found)
        losses = {
            'style': perceptual.style_loss(perceptual.statistics(seen), wanted),
            'content': perceptual.content_loss(seen, scene),
            'structure': perceptual.structure_loss(found, photo),
            'palette': perceptual.palette_loss(found, styles, np.random.default_rng(seed)),
            'variation': perceptual.variation_loss(found),
        }
        return sum(LOSS_WEIGHTS[name] * value for name, value in losses.items())

    def make() -> nn.Module:
        parts = {'student': StyleStudent(STUDENT), 'encoder': StyleEncoder(STUDENT)}
        return nn.ModuleDict(parts).to(memory_format=torch.channels_last)

    rng = np.random.default_rng(0)
    return Task(
        'style', make, loss, lambda rng: batch(corpus, rng),
        [batch(replace(corpus, content=held), rng) for _ in range(sizes.held)],
        first=('student.stem', 'encoder.stages.0'), last=('student.last', 'encoder.head'),
        centres={'muon': 8e-3, 'torch-muon': 8e-3, 'adamw': 4e-3, 'lion': 6e-4, 'sgd': 1e-3},
        about={'features': named},
    )


def eyes() -> tuple[nn.Module, str]:
    """Return the features of the style losses and what they are: the best that is here."""
    path = WEIGHTS / 'cd_vgg19_small16x_e4.pth'
    if path.is_file():
        return _ready(perceptual.load_features(path)), 'distilled VGG-19'
    if (BACKBONE / 'encoder' / 'config.json').is_file():
        from muon_ad.networks.feature_encoder import FeatureEncoder

        encoder = FeatureEncoder.from_pretrained(BACKBONE / 'encoder')
        return _ready(encoder), 'backbone_tiny/encoder'
    torch.manual_seed(0)
    return _ready(perceptual.Features()), 'random'


def _ready(features: nn.Module) -> nn.Module:
    features = features.float().eval().requires_grad_(False)
    return features.to(memory_format=torch.channels_last)


@torch.no_grad()
def _statistics(features: nn.Module, image: np.ndarray) -> list[tuple[Tensor, Tensor]]:
    return perceptual.statistics(features(to_tensor(image[None])))


def denoise_task(sizes: Sizes, folder: Path = BACKBONE) -> Task:
    """A narrow U-Net like the backbone's that denoises the latents of the backbone's encoder.

    Raises DataError where there is no encoder.
    """
    from muon_ad.train.backbone_parts import make_denoiser
    from muon_ad.train.backbone_parts import make_scheduler
    from muon_ad.train.backbone_parts import PROMPT_WIDTH
    from muon_ad.train.backbone_parts import TRAIN_TIMESTEPS

    learnt, held = (latents(images, count, folder) for images, count in zip(
        pictures(sizes.scenes), (sizes.latents, 8 * sizes.held), strict=True))
    scheduler = make_scheduler()

    def noised(clean: Tensor, times: Tensor, generator: torch.Generator) -> tuple:
        noise = torch.randn(clean.shape, generator=generator)
        noisy = scheduler.add_noise(clean, noise, times)
        return noisy, times, scheduler.get_velocity(clean, noise, times)

    def batch(rng: np.random.Generator) -> tuple:
        generator = torch.Generator().manual_seed(int(rng.integers(2 ** 62)))
        chosen = torch.randint(len(learnt), (LATENT_BATCH,), generator=generator)
        times = torch.randint(TRAIN_TIMESTEPS, (LATENT_BATCH,), generator=generator)
        return noised(learnt[chosen], times, generator)

    def loss(net: nn.Module, given: tuple) -> Tensor:
        noisy, times, velocity = given
        prompt = torch.zeros(len(noisy), 1, PROMPT_WIDTH)
        return nn.functional.mse_loss(net(noisy, times, prompt).sample, velocity)

    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(0, TRAIN_TIMESTEPS - 1, 8).long()      # all noise levels alike
    return Task(
        'denoise', lambda: make_denoiser(DENOISER_WIDTHS), loss, batch,
        [noised(each, spread, generator) for each in held.split(8)],
        first=('conv_in',), last=('conv_out',),
        centres={'muon': 1e-2, 'torch-muon': 1e-2, 'adamw': 5e-3, 'lion': 1e-3, 'sgd': 0.2},
        about={'latents': folder.name},
    )


@torch.no_grad()
def latents(images: list[np.ndarray], count: int, folder: Path) -> Tensor:
    """Return the latents [count, C, h, w] of random crops, of about unit variance."""
    from diffusers import AutoencoderTiny

    if not (folder / 'vae' / 'config.json').is_file():
        raise DataError(f'{folder / "vae"}: no autoencoder, whose latents the denoiser learns on')
    encoder = AutoencoderTiny.from_pretrained(folder / 'vae').float().eval()
    rng = np.random.default_rng(0)
    crops = np.stack([random_crop(images, LATENT_CROP, rng, (1.0, 3.0)) for _ in range(count)])
    parts = [encoder.encode(part * 2 - 1).latents for part in to_tensor(crops).split(16)]
    return torch.cat(parts) * encoder.config.scaling_factor


def detector_task(sizes: Sizes) -> Task:
    """The detector, by imitation of the shipped one on composed scenes of half its size."""
    package = load_package(MODELS / 'detector_default')
    teacher = Teacher(package, package.classes, *DETECTOR_SIZE)
    learnt, held = pictures(sizes.scenes)
    batch_size = 4
    scenes = _scenes(learnt, teacher, sizes.pool, seed=0)
    unseen = _scenes(held, teacher, batch_size * sizes.held, seed=1)
    places, strides = cells(*DETECTOR_SIZE)

    def loss(net: nn.Module, given: tuple[Tensor, Targets]) -> Tensor:
        images, targets = given
        return sum(imitation_losses(net(images), targets, places, strides).values())

    def make() -> nn.Module:
        return DetectorNet(len(package.classes)).to(memory_format=torch.channels_last)

    return Task(
        'detector', make, loss,
        lambda rng: _labelled(scenes, rng.choice(sizes.pool, batch_size)),
        [_labelled(unseen, np.arange(start, start + batch_size))
         for start in range(0, batch_size * sizes.held, batch_size)],
        first=('stage8.0',), last=('box', 'label'),
        centres={'muon': 5e-3, 'torch-muon': 5e-3, 'adamw': 3e-3, 'lion': 6e-4, 'sgd': 4e-3},
        about={'teacher': package.name},
    )


def _scenes(images: list[np.ndarray], teacher: Teacher, count: int, seed: int) -> Scenes:
    source = library(images, teacher.detector, teacher.detector.classes)
    pool = Pool(source, teacher, DETECTOR_SIZE, count, seed)
    for index in range(count):
        pool.make(index)
    return pool.scenes


def _labelled(scenes: Scenes, chosen: np.ndarray) -> tuple[Tensor, Targets]:
    images = to_tensor(scenes.images[chosen])
    parts = (scenes.boxes, scenes.objectness, scenes.labels, scenes.features)
    targets = Targets(*(torch.from_numpy(part[chosen]).float() for part in parts))
    return images.contiguous(memory_format=torch.channels_last), targets


TASKS = {'style': style_task, 'denoise': denoise_task, 'detector': detector_task}

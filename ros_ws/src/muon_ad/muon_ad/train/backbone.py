"""Train the embedded backbone of the quality path: `muon-ad train backbone`."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from muon_ad.distill.folders import load_autoencoder
from muon_ad.distill.recommended import FILE
from muon_ad.optim.muon import Muon
from muon_ad.optim.split import split_parameters
from muon_ad.styles.draw import draw
from muon_ad.styles.draw import STYLES
from muon_ad.train.backbone_parts import AutoencoderPart
from muon_ad.train.backbone_parts import DenoiserPart
from muon_ad.train.backbone_parts import EncoderPart
from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.checkpoint import load_checkpoint
from muon_ad.train.images import load_images
from muon_ad.train.images import random_crop
from muon_ad.train.loop import check_finite
from muon_ad.train.loop import learn
from muon_ad.train.perceptual import load_features
from muon_ad.train.steering import RiseAndFall

# Found by looking at pictures: attention alone hardly changes a palette, so it is given at the
# start. Content weights are in units of losses that differ between the two kinds of attention.
RECOMMENDED = {
    'attention': 'features',
    'denoiser': {'lr': 0.05, 'content_weight': 0.25, 'start': 'palette'},
    'features': {'lr': 0.08, 'content_weight': 0.05, 'start': 'palette'},
}
RISE = 100      # steps in which the learning rate rises, or a tenth of all
SIDE = 400      # short side of the pictures in memory


@dataclass(frozen=True)
class Recipe:
    """How a part is trained: `rate` is that of Muon, which AdamW shares (update scale 'rms')."""

    part: str
    steps: int
    batch: int
    crop: int
    rate: float
    average: float = 0.995
    seed: int = 0


RECIPES = {
    'autoencoder': Recipe('autoencoder', 2200, 8, 96, 2e-3),
    'denoiser': Recipe('denoiser', 4000, 6, 96, 2e-3),
    'encoder': Recipe('encoder', 1900, 4, 96, 2e-3),
}


class Learning:
    """A part that learns: optimiser, running average of its weights and number of steps taken.

    All randomness of a step is drawn from a generator seeded by (seed, step), so a resumed run
    sees what an uninterrupted one would have seen.
    """

    def __init__(self, part: nn.Module, pictures: list[np.ndarray], recipe: Recipe) -> None:
        self.part = part
        self.pictures = pictures
        self.recipe = recipe
        self.step = 0
        self.optimizer = Muon(split_parameters(part).groups(), lr=recipe.rate, weight_decay=0.01)
        rise = min(RISE, recipe.steps // 10)
        self.plan = RiseAndFall(recipe.steps, recipe.rate, rise, 0.6 * recipe.steps)
        self.average = AveragedModel(part.net, multi_avg_fn=get_ema_multi_avg_fn(recipe.average))

    def advance(self) -> dict[str, float]:
        """Take a step on fresh crops; return rate and losses."""
        rng = np.random.default_rng([self.recipe.seed, self.step])
        generator = torch.Generator().manual_seed(int(rng.integers(2 ** 62)))
        rate = self.plan.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group['lr'] = rate
        crops = some_crops(self.pictures, self.recipe.crop, self.recipe.batch, rng)
        losses = self.part.losses(crops, generator)
        loss = torch.stack(list(losses.values())).sum()
        check_finite(loss.item(), self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.part.net)
        self.step += 1
        values = {name: value.item() for name, value in losses.items()}
        return {'rate': rate, 'total': loss.item(), **values}

    def state(self) -> dict[str, Any]:
        """Return what the next steps depend on."""
        return {
            'step': self.step, 'recipe': asdict(self.recipe), 'part': self.part.state_dict(),
            'average': self.average.state_dict(), 'optimizer': self.optimizer.state_dict(),
        }

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; only the number of steps may differ from its run's."""
        state = load_checkpoint(path, {'recipe': asdict(self.recipe)}, ('steps',))
        self.part.load_state_dict(state['part'])
        self.average.load_state_dict(state['average'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.step = state['step']

    def result(self) -> nn.Module:
        """Return the averaged network, for use."""
        return self.average.module.eval()


def some_crops(
    pictures: Sequence[np.ndarray], side: int, count: int,
    rng: np.random.Generator | None = None,
) -> torch.Tensor:
    """Return random crops of one to three times the scale, [count, 3, side, side] in 0..1."""
    rng = rng or np.random.default_rng(0)
    crops = [random_crop(pictures, side, rng, (1.0, 3.0)) for _ in range(count)]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().div_(255)


def textures(count: int, seed: int = 0) -> list[np.ndarray]:
    """Return `count` sheets of every drawn style, uint8 [SIDE, SIDE, 3] RGB."""
    return [draw(name, SIDE, seed + index) for name in STYLES for index in range(count)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `muon-ad train backbone`."""
    parser.add_argument('part', choices=sorted(RECIPES),
                        help='what to train; the denoiser needs a trained autoencoder in --out')
    parser.add_argument('--pictures', type=Path, nargs='+', required=True, metavar='PATH',
                        help='folders, pictures and videos of both scenes and paintings')
    parser.add_argument('--textures', type=int, default=4, metavar='N',
                        help='learn from N generated sheets of each drawn style as well')
    parser.add_argument('--features', type=Path, required=True, metavar='PATH',
                        help='cd_vgg19_small16x_e4.pth of MingSun-Tse/Collaborative-Distillation, '
                        'or the folder of a feature encoder (models/backbone_tiny/encoder)')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER',
                        help='checkpoints and logs go to FOLDER/<part>, the backbone to '
                        'FOLDER/backbone')
    parser.add_argument('--resume', action='store_true', help='go on from the checkpoint')
    for name in ('steps', 'batch', 'crop', 'rate', 'seed'):
        kind = float if name == 'rate' else int
        parser.add_argument(f'--{name}', type=kind, help='instead of the recipe of the part')
    parser.add_argument('--threads', type=int, default=1)


def run(args: argparse.Namespace) -> int:
    """Train a part and put it into the backbone's folder; returns the exit status."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed or 0)
    given = {name: value for name in ('steps', 'batch', 'crop', 'rate', 'seed')
             if (value := getattr(args, name)) is not None}
    recipe = replace(RECIPES[args.part], **given)
    features = load_features(args.features)
    pictures = load_images(args.pictures, SIDE) + textures(args.textures)
    part = make_part(args.part, features, pictures, args.out / 'backbone')
    learning = Learning(part, pictures, recipe)
    out = args.out / args.part
    if args.resume:
        learning.load(out / CHECKPOINT)
    learn(learning, recipe.steps, out, ('rate', 'total', *part.COLUMNS), log_every=20)
    export(args.part, learning, args.out / 'backbone')
    print(f'{args.part}: in {args.out / "backbone"}')
    return 0


def make_part(
    name: str, features: nn.Module, pictures: Sequence[np.ndarray], backbone: Path,
) -> nn.Module:
    """Return a part to train; raises ValueError where it needs another that is not there."""
    if name == 'autoencoder':
        return AutoencoderPart(features)
    if name == 'encoder':
        return EncoderPart(features, some_crops(pictures, 96, 64))
    if not (backbone / 'vae' / 'config.json').is_file():
        raise ValueError(f'{backbone / "vae"}: no autoencoder, on whose latents to learn: '
                         'run `muon-ad train backbone autoencoder` with the same --out first')
    return DenoiserPart(load_autoencoder(backbone, torch.device('cpu')), features)


def export(name: str, learning: Learning, folder: Path) -> None:
    """Write a trained part into a folder of diffusers' format, in half precision."""
    net = learning.result()
    if name == 'autoencoder':
        # Unit variance for the denoiser, whatever the training came to.
        net.register_to_config(scaling_factor=_latent_scale(net, learning))
    target = {'autoencoder': 'vae', 'denoiser': 'unet', 'encoder': 'encoder'}[name]
    net.half().save_pretrained(folder / target)
    if name == 'autoencoder':
        _forget(folder / target / 'config.json', 'block_out_channels')
    if name == 'denoiser':
        learning.part.scheduler.save_pretrained(folder / 'scheduler')
        index = {'_class_name': 'LatentDiffusion', 'vae': ['diffusers', 'AutoencoderTiny'],
                 'unet': ['diffusers', 'UNet2DConditionModel'],
                 'scheduler': ['diffusers', 'DDPMScheduler']}
        _write_json(folder / 'model_index.json', index)
        _write_json(folder / FILE, RECOMMENDED)


def _forget(config: Path, field: str) -> None:
    """Remove a field that diffusers writes for this class, and warns of when it reads it."""
    fields = json.loads(config.read_text())
    del fields[field]
    _write_json(config, fields)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + '\n')


@torch.no_grad()
def _latent_scale(net: AutoencoderTiny, learning: Learning) -> float:
    """Return one over the standard deviation of latents."""
    crops = some_crops(learning.pictures, learning.recipe.crop, 64)
    return round(1 / float(net.encode(crops * 2 - 1).latents.std()), 4)

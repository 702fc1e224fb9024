"""Trains the streaming style student on photographs, paintings and the drawn styles.

The recipe: a warm start in which the student learns to reproduce its input, then perceptual
losses (train/perceptual.py) while the weight of the style rises, and throughout a penalty on
answers that change when the camera moves by a pixel or the sensor adds noise.

With the curriculum (train/curriculum.py), the balance of style (statistics, palette) and content
(features, tones) follows photographs that are held out, and in its last phase the style encoder,
and with it every scale and shift by which a style modulates the student, stays as it is.
"""

import argparse
import math
from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from muon_ad.networks.style import STYLE_SIZE
from muon_ad.networks.style import StyleConfig
from muon_ad.networks.style import StyleEncoder
from muon_ad.networks.style import StyleStudent
from muon_ad.train import perceptual
from muon_ad.train import steering
from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.checkpoint import load_checkpoint
from muon_ad.train.curriculum import Curriculum
from muon_ad.train.images import hold_out
from muon_ad.train.images import load_images
from muon_ad.train.images import random_crop
from muon_ad.train.loop import check_finite
from muon_ad.train.loop import learn
from muon_ad.train.optimizers import network_optimizer
from muon_ad.train.style_weights import load_networks
from muon_ad.train.style_weights import Networks

SHIFT = 3  # largest camera motion, in pixels, of the steadiness loss
# What the student makes of the border, beyond which it sees grey, is not judged: judged, it learns
# to paint a frame.
MARGIN = 8
WEIGHTS = {'style': 10.0, 'content': 6.0, 'structure': 6.0, 'palette': 20.0, 'variation': 0.3,
           'steadiness': 60.0, 'copy': 20.0}
# What the curriculum balances; the other losses keep their weights.
BALANCED = {'style': 'style', 'palette': 'style', 'content': 'content', 'structure': 'content'}
COLUMNS = ('total', *WEIGHTS, *steering.COLUMNS)
RATES = {'muon': 2e-3, 'torch-muon': 2e-3, 'adamw': 2e-3, 'adam': 2e-3, 'lion': 3e-4, 'sgd': 3e-2}
RISE = 100      # steps in which the learning rate rises


@dataclass(frozen=True)
class Recipe:
    """What a training run is made of.

    `warm` steps of copying, then `ramp` steps in which the style gains weight. The learning rate
    falls in the last phase of the curriculum, or without one over the last quarter of `steps`. A
    batch is that many photographs, each with a style of its own, a drawn one with the probability
    `builtin`.
    """

    steps: int = 12000
    crop: int = 96
    batch: int = 4
    optimizer: str = 'muon'
    rate: float = RATES['muon']
    curriculum: bool = True
    warm: int = 500
    ramp: int = 1500
    builtin: float = 0.75
    seed: int = 0
    half: bool = True
    weights: dict[str, float] = field(default_factory=lambda: dict(WEIGHTS))


@dataclass
class Corpus:
    """Training images, uint8 RGB: photographs, paintings (or none) and 256x256 drawn styles."""

    content: list[np.ndarray]
    paintings: list[np.ndarray]
    builtin: list[np.ndarray]

    def batch(
        self, recipe: Recipe, rng: np.random.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Return photographs [N, 3, crop + SHIFT, crop + SHIFT] and styles [N, 3, 256, 256],
        float32 in 0..1, and which drawn style each is, or -1 for a painting.
        """
        side = recipe.crop + SHIFT
        content = np.stack([
            _exposed(random_crop(self.content, side, rng, (1.0, 2.5)), rng)
            for _ in range(recipe.batch)
        ])
        drawn = [int(rng.integers(len(self.builtin))) if not self.paintings
                 or rng.random() < recipe.builtin else -1 for _ in range(recipe.batch)]
        styles = [self._painting(rng) if n < 0 else self.builtin[n] for n in drawn]
        return to_tensor(content), to_tensor(np.stack(styles)), drawn

    def divided(self) -> tuple['Corpus', 'Corpus']:
        """Return this corpus without some photographs, and one of these for validation."""
        content, held = hold_out(self.content)
        return replace(self, content=content), replace(self, content=held)

    def _painting(self, rng: np.random.Generator) -> np.ndarray:
        crop = random_crop(self.paintings, STYLE_SIZE, rng, (0.75, 1.25))
        # Exchanged colour channels give one way of painting several palettes.
        return crop[..., rng.permutation(3)] if rng.random() < 0.3 else crop


def _exposed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary the exposure, since cameras do: gamma 0.6..1.5."""
    table = (np.linspace(0, 1, 256) ** np.exp(rng.uniform(-0.5, 0.4)) * 255).astype(np.uint8)
    return table[image]


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255)


class Trainer:
    """Networks, optimiser and step counter of one run, which can be saved and resumed exactly.

    All randomness of a step is drawn from a generator seeded by (seed, step), so a resumed run
    sees what an uninterrupted one would have seen.
    """

    def __init__(self, corpus: Corpus, features: nn.Module, recipe: Recipe,
                 config: StyleConfig, begin: Networks | None = None) -> None:
        """Begin anew, or go on with trained networks (of which these parameters learn that require
        a gradient).

        Where only `config` has attention, what their encoder makes of a style stays as it is, and
        the student and the tokens of its attention learn.
        """
        torch.manual_seed(recipe.seed)
        self.corpus, held = corpus.divided() if recipe.curriculum else (corpus, None)
        self.recipe = recipe
        self.config = config
        self.features = features.to(memory_format=torch.channels_last)
        student, encoder = self._networks(begin)
        self.student = student.to(memory_format=torch.channels_last)
        self.encoder = encoder.to(memory_format=torch.channels_last)
        learning = nn.ModuleDict({'student': self.student, 'encoder': self.encoder})
        self.parameters = list(learning.parameters())
        self.optimizer = network_optimizer(
            recipe.optimizer, learning, recipe.rate, weight_decay=1e-4,
            first=('student.stem', 'encoder.stages.0'), last=('student.last', 'encoder.head'),
        )
        self._style = nn.ParameterList(p for p in self.encoder.parameters() if p.requires_grad)
        self.step = 0
        # What a drawn style looks like to the features never changes.
        self._drawn = [self._statistics(to_tensor(image[None])) for image in corpus.builtin]
        self.steering = self._steering(held)

    def _networks(self, begin: Networks | None) -> Networks:
        if begin is not None and begin[0].config == self.config:
            return begin
        student, encoder = StyleStudent(self.config), StyleEncoder(self.config)
        if begin is not None:
            _take_over(begin, student, encoder)
        return student, encoder

    def _steering(self, held: Corpus | None) -> steering.Steering:
        recipe = self.recipe
        if held is None:
            # Constant so long that a run can be prolonged, or cut short, by resuming with other
            # steps.
            plan = steering.RiseAndFall(recipe.steps, recipe.rate, RISE, 0.75 * recipe.steps)
            return steering.Steering(self.optimizer, plan, self._style)
        plan = Curriculum(recipe.steps, rate=recipe.rate, warm_up=RISE)
        rng = np.random.default_rng([recipe.seed, 0, 1])
        batch = held.batch(replace(recipe, batch=2 * recipe.batch), rng)
        return steering.Steering(self.optimizer, plan, self._style,
                                 partial(self._validate, *batch))

    def _statistics(self, styles: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        with torch.no_grad(), self._precision():
            return perceptual.statistics(self.features(styles))

    def advance(self) -> dict[str, float]:
        """Do one step; return its losses, unweighted, by name, and what the schedule set.

        Raises DivergedError, with the weights as before, where the loss is not finite.
        """
        rng = np.random.default_rng([self.recipe.seed, self.step])
        prepared = self.steering.prepare(self.step)
        losses = self._losses(rng)
        total = sum(self._weight(name) * value for name, value in losses.items())
        check_finite(total.item(), self.step)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()
        self.step += 1
        values = {name: value.item() for name, value in losses.items()}
        return {'total': total.item(), **values, **prepared}

    def _weight(self, name: str) -> float:
        weight = self.recipe.weights[name]
        if name in BALANCED:
            weight *= self.steering.factors()[BALANCED[name]]
        if name not in ('style', 'palette'):
            return weight
        risen = (self.step - self.recipe.warm) / self.recipe.ramp
        return weight * min(1.0, 0.15 + 0.85 * risen)

    def _validate(
        self, wide: torch.Tensor, styles: torch.Tensor, drawn: list[int],
    ) -> tuple[float, float]:
        """Return the style and the content loss of a batch, as the recipe weighs their parts."""
        photo = self._cropped(wide)
        rng = np.random.default_rng([self.recipe.seed, 0, 2])   # the same colours each time
        with torch.no_grad(), self._precision():
            found = self.student(photo, self.encoder(styles)).float()
            losses = self._perceptual(found, photo, styles, drawn, rng)
        sums = {'style': 0.0, 'content': 0.0}
        for name, kind in BALANCED.items():
            sums[kind] += self.recipe.weights[name] * losses[name].item()
        return sums['style'], sums['content']

    def _precision(self) -> torch.autocast:
        return torch.autocast('cpu', torch.bfloat16, enabled=self.recipe.half)

    def _cropped(self, wide: torch.Tensor, dy: int = 0, dx: int = 0) -> torch.Tensor:
        crop = self.recipe.crop
        return wide[:, :, dy:dy + crop, dx:dx + crop]

    def _losses(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        wide, styles, drawn = self.corpus.batch(self.recipe, rng)
        photo = self._cropped(wide)
        warm = self.step < self.recipe.warm
        dy, dx = (int(n) for n in rng.integers(0, SHIFT + 1, 2))
        moved = _grainy(self._cropped(wide[::2], dy, dx), rng)  # every second one is enough
        with self._precision():
            if warm:
                vectors = self.encoder(F.interpolate(photo.flip(3), STYLE_SIZE, mode='bilinear'))
            else:
                vectors = self.encoder(styles)
            both = torch.cat([photo, moved]).contiguous(memory_format=torch.channels_last)
            answers = self.student(both, torch.cat([vectors, vectors[::2]])).float()
            found, again = answers.split([len(photo), len(moved)])
            losses = {'steadiness': _steadiness(found[::2], again, dy, dx)}
            if warm:
                return losses | {'copy': F.l1_loss(_inner(found), _inner(photo))}
            return losses | self._perceptual(found, photo, styles, drawn, rng)

    def _perceptual(
        self, found: torch.Tensor, photo: torch.Tensor, styles: torch.Tensor, drawn: list[int],
        rng: np.random.Generator,
    ) -> dict[str, torch.Tensor]:
        each = [self._drawn[n] if n >= 0 else self._statistics(style[None])
                for n, style in zip(drawn, styles, strict=True)]
        wanted = [tuple(torch.cat(parts) for parts in zip(*layer, strict=True))
                  for layer in zip(*each, strict=True)]
        found, photo = _inner(found), _inner(photo)
        with torch.no_grad():
            scene = self.features(photo)
        seen = self.features(found)
        return {
            'style': perceptual.style_loss(perceptual.statistics(seen), wanted),
            'content': perceptual.content_loss(seen, scene),
            'structure': perceptual.structure_loss(found, photo),
            'palette': perceptual.palette_loss(found, styles, rng),
            'variation': perceptual.variation_loss(found),
        }

    def state(self) -> dict[str, Any]:
        """Return the contents of a checkpoint."""
        return {
            'step': self.step, 'config': self.config.to_dict(), 'recipe': asdict(self.recipe),
            'student': self.student.state_dict(), 'encoder': self.encoder.state_dict(),
            'optimizer': self.optimizer.state_dict(), 'curriculum': self.steering.state(),
        }

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; only steps and loss weights may differ from its run's.

        Raises FileNotFoundError, or ValueError where it belongs to another run.
        """
        made_with = {'config': self.config.to_dict(), 'recipe': asdict(self.recipe)}
        state = load_checkpoint(path, made_with, may_differ=('steps', 'weights'))
        self.student.load_state_dict(state['student'])
        self.encoder.load_state_dict(state['encoder'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.steering.load(state['curriculum'])
        self.step = state['step']


def _inner(images: torch.Tensor) -> torch.Tensor:
    """Leave out the margin of [N, 3, H, W]."""
    return images[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]


def _grainy(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Add the noise of a sensor."""
    grain = rng.normal(0, rng.uniform(0, 4 / 255), images.shape).astype(np.float32)
    return (images + torch.from_numpy(grain)).clamp(0, 1)


def _steadiness(found: torch.Tensor, again: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    """Difference between the answer and the answer to the scene seen a little moved."""
    height, width = found.shape[2:]
    return F.mse_loss(_inner(again[:, :, :height - dy, :width - dx]),
                      _inner(found[:, :, dy:, dx:]))


def _take_over(begin: Networks, student: StyleStudent, encoder: StyleEncoder) -> None:
    """Give an attentive student and its encoder the weights of those without; freeze the style."""
    for old, new in zip(begin, (student, encoder), strict=True):
        state, wanted = old.state_dict(), new.state_dict()
        own = {name for name in wanted if name.startswith(('attention.', 'tokens.'))}
        odd = sorted(name for name in state.keys() | wanted.keys() - own
                     if name not in state or name not in wanted
                     or state[name].shape != wanted[name].shape)
        if odd:
            raise ValueError('cannot begin with a network of other sizes, such as a pruned one: '
                             f'{", ".join(odd[:3])} do not fit')
        new.load_state_dict({**wanted, **state})
    encoder.requires_grad_(False)
    encoder.tokens.requires_grad_(True)


def load_corpus(
    content: Sequence[Path], paintings: Sequence[Path], builtin: Sequence[Path],
) -> Corpus:
    """Read the three kinds of images; raises DataError naming what is missing."""
    drawn = [random_crop([image], STYLE_SIZE, np.random.default_rng(0))
             for image in load_images(builtin, STYLE_SIZE)]
    return Corpus(load_images(content, 360), load_images(paintings, 320), drawn)


def add_picture_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what a student learns from, for `muon-ad train style` and `prune style`."""
    parser.add_argument('--content', type=Path, nargs='+', required=True,
                        help='folders, images or videos of ordinary scenes')
    parser.add_argument('--styles', type=Path, nargs='+', required=True,
                        help='folders of the built-in style images')
    parser.add_argument('--paintings', type=Path, nargs='*', default=[],
                        help='folders of further styles, so that unseen ones work better')
    parser.add_argument('--features', type=Path, required=True,
                        help='what the losses look through: models/backbone_tiny/encoder, or '
                        'cd_vgg19_small16x_e4.pth of MingSun-Tse/Collaborative-Distillation')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `muon-ad train style`."""
    recipe = Recipe()
    add_picture_arguments(parser)
    parser.add_argument('--out', type=Path, required=True, help='folder for checkpoint and log')
    parser.add_argument('--resume', action='store_true',
                        help='continue from the checkpoint in OUT')
    parser.add_argument('--begin', type=Path, metavar='SOURCE',
                        help='go on with trained networks: a model package, one of its '
                        '.safetensors, or the checkpoint of another training')
    parser.add_argument('--tokens', type=int, default=0, metavar='SIDE',
                        help='let the student of --begin also attend to SIDE x SIDE places of the '
                        'style image, a divisor of 16, such as 8; its style vectors stay as they '
                        'are (default 0: no attention)')
    parser.add_argument('--checkpoint-every', type=int, default=500, metavar='STEPS')
    parser.add_argument('--steps', type=int, default=recipe.steps)
    parser.add_argument('--batch', type=int, default=recipe.batch)
    parser.add_argument('--crop', type=int, default=recipe.crop, help='pixels, a multiple of 8')
    steering.add_arguments(parser, RATES)
    parser.add_argument('--seed', type=int, default=recipe.seed)
    parser.add_argument('--weights', type=loss_weight, nargs='+', default=[], metavar='NAME=VALUE',
                        help=f'weights of losses, instead of {WEIGHTS}')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default 1)')
    parser.add_argument('--fp32', action='store_true',
                        help='no bfloat16, which is slow on CPUs without AVX512-BF16 or AMX')


def loss_weight(text: str, known: Collection[str] = WEIGHTS) -> tuple[str, float]:
    """Parse NAME=VALUE; raises argparse.ArgumentTypeError for anything else."""
    name, _, value = text.partition('=')
    try:
        weight = float(value)
    except ValueError:
        weight = -1.0
    if name not in known or not 0 <= weight < math.inf:
        raise argparse.ArgumentTypeError(
            f'{text!r}; expected NAME=VALUE with NAME from {sorted(known)} and VALUE >= 0'
        )
    return name, weight


def check_attention(tokens: int, begin: Networks | None) -> None:
    """Raise ValueError where --tokens cannot be added to the networks of --begin."""
    have = None if begin is None else begin[0].config.tokens
    if tokens not in (1, 2, 4, 8, 16) or have != 0:
        has = 'is not given' if have is None else f'has {have}'
        raise ValueError(f'--tokens is {tokens}, and --begin {has}; expected 1, 2, 4, 8 or 16, '
                         'and networks without attention to begin with')


def run(args: argparse.Namespace) -> int:
    """Train as asked; returns the exit code."""
    torch.set_num_threads(args.threads)
    rate = RATES[args.optimizer] if args.rate is None else args.rate
    recipe = Recipe(steps=args.steps, batch=args.batch, crop=args.crop, rate=rate, seed=args.seed,
                    optimizer=args.optimizer, curriculum=args.curriculum == 'on',
                    half=not args.fp32, weights={**WEIGHTS, **dict(args.weights)})
    config, begin = StyleConfig(), None
    if args.begin:
        begin = load_networks(args.begin)
        config = begin[0].config
        recipe = replace(recipe, warm=0, ramp=1)    # both were done before
    if args.tokens:
        check_attention(args.tokens, begin)
        config = replace(config, tokens=args.tokens)
    features = perceptual.load_features(args.features)
    corpus = load_corpus(args.content, args.paintings, args.styles)
    trainer = Trainer(corpus, features, recipe, config, begin)
    if args.resume:
        trainer.load(args.out / CHECKPOINT)
    learn(trainer, recipe.steps, args.out, COLUMNS, args.checkpoint_every)
    return 0

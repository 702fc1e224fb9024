"""Train the streaming detector by imitation of a larger one: `muon-ad train detector`.

Needs pictures and a teacher, but no annotation: see detection_data for how scenes and targets are
made of them.

A detector has no style. What the curriculum (train/curriculum.py) calls so is here the imitation
of the teacher's features: a broad alignment first, while the detections themselves (objectness,
labels, boxes) stand in for the content. Their balance follows scenes made of pictures that are
held out; in the last phase the adapters are frozen, which serve the alignment alone. Nothing else
is, and without features to imitate (--mimic 0) of the curriculum only the learning rate is left.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from muon_ad.export import export_detector
from muon_ad.export import record_quality
from muon_ad.export import size
from muon_ad.metrics.detection import average_precisions
from muon_ad.metrics.detection import Truth
from muon_ad.networks.detector import cells
from muon_ad.networks.detector import DetectorNet
from muon_ad.networks.detector import narrowed
from muon_ad.networks.detector import NECK
from muon_ad.networks.detector import STRIDES
from muon_ad.runtime.detection import Detector
from muon_ad.scene import Scene
from muon_ad.scene import View
from muon_ad.train import steering
from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.checkpoint import load_checkpoint
from muon_ad.train.curriculum import Curriculum
from muon_ad.train.detection_data import disturb
from muon_ad.train.detection_data import Library
from muon_ad.train.detection_data import library
from muon_ad.train.detection_data import Pool
from muon_ad.train.detection_data import Scenes
from muon_ad.train.images import DataError
from muon_ad.train.images import hold_out
from muon_ad.train.images import load_images
from muon_ad.train.imitation import feature_loss
from muon_ad.train.imitation import imitation_losses
from muon_ad.train.imitation import mirror
from muon_ad.train.imitation import Targets
from muon_ad.train.loop import check_finite
from muon_ad.train.loop import learn
from muon_ad.train.optimizers import network_optimizer
from muon_ad.train.teacher import make_teacher
from muon_ad.train.teacher import Teacher
from muon_ad.train.teacher import teacher_package

CLASSES = 'person,chair,couch,dining table,potted plant,tv,bottle,cup,bed'
SIDE = 400  # short side of the pictures in memory
OPTIONS = ('width', 'height', 'steps', 'batch', 'average', 'mimic', 'pool', 'fresh', 'seed')
COLUMNS = ('loss', 'objectness', 'labels', 'boxes', 'features', *steering.COLUMNS)
RATES = {'muon': 2.5e-3, 'torch-muon': 2.5e-3, 'adamw': 2.5e-3, 'adam': 2.5e-3, 'lion': 4e-4,
         'sgd': 3e-2}


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on besides its pictures and its teacher."""

    classes: tuple[str, ...]
    width: int = 320
    height: int = 256
    steps: int = 6000
    batch: int = 8
    optimizer: str = 'muon'
    rate: float = RATES['muon']
    curriculum: bool = True
    weight_decay: float = 0.02
    warm_up: int = 300
    average: float = 0.998
    mimic: float = 2.0
    pool: int = 1024
    fresh: int = 1
    seed: int = 0

    @property
    def balanced(self) -> bool:
        """Return whether the curriculum has losses to balance."""
        return self.curriculum and self.mimic > 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `muon-ad train detector`."""
    parser.add_argument('--images', type=Path, nargs='*', default=[], metavar='PATH',
                        help='folders, pictures and videos to learn from')
    parser.add_argument('--sequences', type=Path, nargs='*', default=[], metavar='PATH',
                        help='the same in order of time; the last --holdout of each is left out')
    parser.add_argument('--holdout', type=float, default=1 / 3)
    parser.add_argument('--scenes', type=int, default=0, metavar='N',
                        help='learn from so many frames of the built-in rendered scene as well')
    parser.add_argument('--frames', type=int, default=93, help='frames to take of a video')
    parser.add_argument('--teacher', type=Path, required=True, metavar='PATH',
                        help='detector: a model package, or an ONNX file in YOLOX format as its '
                        'authors export it')
    parser.add_argument('--classes', default=CLASSES, help='comma-separated, known to the teacher')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER',
                        help='where checkpoint.pt, log.csv and the model package go')
    parser.add_argument('--resume', action='store_true', help='go on from --out/checkpoint.pt')
    parser.add_argument('--checkpoint-every', type=int, default=200, metavar='STEPS')
    for name in OPTIONS:
        default = getattr(Recipe, name)
        parser.add_argument(f'--{name}', type=type(default), default=default)
    steering.add_arguments(parser, RATES)
    parser.add_argument('--sizes', type=size, nargs='*', default=[], metavar='WIDTHxHEIGHT',
                        help='export variants of these sizes beside that of training')
    parser.add_argument('--keep', metavar='CLASSES',
                        help='export these classes alone: those that turned out well enough')
    parser.add_argument('--name', default='detector', help='name of the model package')
    parser.add_argument('--licence', default='', help='licence of the model package')
    parser.add_argument('--threads', type=int, default=1)


def run(args: argparse.Namespace) -> int:
    """Train and export as the options say; returns the exit status."""
    torch.set_num_threads(args.threads)
    classes = _names(args.classes)
    kept = _names(args.keep) if args.keep else classes
    if not set(kept) <= set(classes):
        raise ValueError(f'--keep is {kept}; expected some of {classes}')
    recipe = Recipe(
        classes, **{name: getattr(args, name) for name in OPTIONS}, optimizer=args.optimizer,
        rate=RATES[args.optimizer] if args.rate is None else args.rate,
        curriculum=args.curriculum == 'on',
    )
    teacher = make_teacher(
        teacher_package(args.teacher), classes, recipe.width, recipe.height, recipe.mimic > 0
    )
    pictures, unseen = _pictures(args)
    pictures, held = hold_out(pictures) if recipe.balanced else (pictures, [])
    source, validation = (
        library(tqdm(some, desc='finding objects'), teacher.detector, classes) if some else None
        for some in (pictures, held)
    )
    print('objects to crop:', ', '.join(f'{n} {name}' for name, n in source.counts.most_common()))
    trainer = Trainer(recipe, teacher, source, validation)
    if args.resume:
        trainer.load(args.out / CHECKPOINT)
    learn(trainer, recipe.steps, args.out, COLUMNS, args.checkpoint_every, log_every=20)
    net = trainer.average.module.eval()
    about = {
        'name': args.name,
        'licence': args.licence,
        'summary': f'anchor-free detector of {len(kept)} classes, distilled from '
                   f'{teacher.detector.variant.file.stem}',
        'training': {**asdict(recipe), 'classes': list(classes), 'pictures': len(pictures),
                     'crops': dict(source.counts)},
    }
    sizes = [(recipe.width, recipe.height), *args.sizes]
    net = narrowed(net, [classes.index(name) for name in kept])
    package = export_detector(net, kept, args.out / 'package', sizes, about)
    if unseen:
        found = agreement(Detector(package, score_threshold=0.05), teacher.detector, unseen)
        record_quality(package.folder, {
            f'average precision against the teacher, {len(unseen)} unseen pictures': found,
        })
        print(f'on {len(unseen)} unseen pictures, against the teacher: {found}')
    print(f'model package: {package.folder}')
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(','))


def _pictures(args: argparse.Namespace) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the pictures to learn from, and those held out."""
    pictures, unseen = load_images(args.images, SIDE, args.frames), []
    pictures += rendered(args.scenes, args.seed)
    for path in args.sequences:
        ordered = load_images([path], SIDE, args.frames)
        kept = round(len(ordered) * (1 - args.holdout))
        pictures += ordered[:kept]
        unseen += ordered[kept:]
    if not pictures:
        raise DataError('no pictures to learn from: give --images, --sequences or --scenes')
    return pictures, unseen


def rendered(count: int, seed: int) -> list[np.ndarray]:
    """Return frames of the built-in scene at random times, through random lenses."""
    rng = np.random.default_rng(seed)
    return [
        Scene(View.from_fov(SIDE * 4 // 3, SIDE, rng.uniform(45, 75))).rgb(rng.uniform(0, 600))
        for _ in tqdm(range(count), desc='rendering', disable=not count)
    ]


def agreement(
    student: Detector, teacher: Detector, pictures: Sequence[np.ndarray]
) -> dict[str, float]:
    """Return the average precision (IoU 0.5) of each class against the teacher's detections."""
    truths, results = [], []
    for picture in tqdm(pictures, desc='comparing with the teacher'):
        found = teacher.detect(picture)
        names = [teacher.classes[index] for index in found.class_ids]
        shared = np.array([name in student.classes for name in names], bool)
        ids = [student.classes.index(name) for name in names if name in student.classes]
        truths.append(Truth(found.boxes[shared], np.array(ids, int)))
        results.append(student.detect(picture))
    precisions = average_precisions(truths, results)
    return {student.classes[index]: round(value.average, 3)
            for index, value in precisions.items()}


class Trainer:
    """Network, its average, optimiser, scenes and step counter of a run, which resumes exactly.

    Every random choice depends on the seed and on the number of the step alone. `validation` is
    what the scenes to validate with are made of, needed where the recipe is `balanced`.
    """

    def __init__(
        self, recipe: Recipe, teacher: Teacher, source: Library, validation: Library | None = None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.step = 0
        self.net = DetectorNet(len(recipe.classes)).to(memory_format=torch.channels_last)
        self.average = AveragedModel(
            self.net, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True
        )
        # From own features to the teacher's; not part of the network that is exported.
        self.adapters = nn.ModuleList(
            nn.Conv2d(NECK, teacher.channels, 1) for _ in (STRIDES if teacher.channels else ())
        )
        self.optimizer = network_optimizer(
            recipe.optimizer, nn.ModuleDict({'net': self.net, 'adapters': self.adapters}),
            recipe.rate, recipe.weight_decay, first=('net.stage8.0',),
            last=('net.box', 'net.label', 'adapters'),
        )
        self._places, self._strides = cells(recipe.width, recipe.height)
        self._pool = Pool(source, teacher, self._size, recipe.pool, recipe.seed)
        self.steering = self._steering(teacher, validation)

    @property
    def _size(self) -> tuple[int, int]:
        return self.recipe.width, self.recipe.height

    def _steering(self, teacher: Teacher, validation: Library | None) -> steering.Steering:
        recipe = self.recipe
        if not recipe.curriculum:
            plan = steering.RiseAndFall(recipe.steps, recipe.rate, recipe.warm_up, recipe.warm_up)
            return steering.Steering(self.optimizer, plan, self.adapters)
        plan = Curriculum(recipe.steps, rate=recipe.rate, warm_up=recipe.warm_up)
        if not recipe.balanced:
            return steering.Steering(self.optimizer, plan, self.adapters)
        pool = Pool(validation, teacher, self._size, 2 * recipe.batch, recipe.seed)
        pool.reach(pool.capacity)
        batch = _batch(pool.scenes, np.arange(pool.capacity))
        return steering.Steering(self.optimizer, plan, self.adapters,
                                 partial(self._validate, *batch))

    def advance(self) -> dict[str, float]:
        """Take one step on scenes drawn from the pool; return what to log of it.

        Raises DivergedError, with the weights as before, where the loss is not finite.
        """
        recipe = self.recipe
        prepared = self.steering.prepare(self.step)
        self._pool.reach(recipe.pool + (self.step + 1) * recipe.fresh)
        rng = np.random.default_rng([recipe.seed, 1, self.step])
        chosen = rng.choice(recipe.pool, recipe.batch)
        images, targets = _batch(self._pool.scenes, chosen, rng)
        if rng.random() < 0.5:
            images, targets = mirror(images, targets)
        self.net.train()
        losses = self._losses(images, targets)
        factors = self.steering.factors()
        total = sum(factors[_kind(name)] * value for name, value in losses.items())
        check_finite(total.item(), self.step)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 10)
        self.optimizer.step()
        self.average.update_parameters(self.net)
        self.step += 1
        values = {name: value.item() for name, value in losses.items()}
        return {'loss': total.item(), **values, **prepared}

    def _losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        with torch.autocast('cpu', torch.bfloat16):
            features = self.net.features(images)
            raw = self.net.head(features)
            # Without features to imitate there are no adapters.
            likened = [adapt(level) for adapt, level in zip(self.adapters, features)]  # noqa: B905
        losses = imitation_losses(raw.float(), targets, self._places, self._strides)
        losses['features'] = self.recipe.mimic * feature_loss(likened, targets.features)
        return losses

    def _validate(self, images: Tensor, targets: Targets) -> tuple[float, float]:
        """Return what the curriculum calls style and content loss."""
        self.net.eval()
        sums = {'style': 0.0, 'content': 0.0}
        with torch.no_grad():
            for name, value in self._losses(images, targets).items():
                sums[_kind(name)] += value.item()
        return sums['style'], sums['content']

    def state(self) -> dict[str, Any]:
        """Return the contents of a checkpoint."""
        return {
            'recipe': asdict(self.recipe),
            'step': self.step,
            'net': self.net.state_dict(),
            'adapters': self.adapters.state_dict(),
            'average': self.average.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            'curriculum': self.steering.state(),
        }

    def load(self, path: Path) -> None:
        """Take up the state in `path`.

        Raises FileNotFoundError, or ValueError where it was made with another recipe.
        """
        state = load_checkpoint(path, {'recipe': asdict(self.recipe)})
        self.step = state['step']
        self.net.load_state_dict(state['net'])
        self.adapters.load_state_dict(state['adapters'])
        self.average.load_state_dict(state['average'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.steering.load(state['curriculum'])


def _kind(loss: str) -> str:
    return 'style' if loss == 'features' else 'content'


def _batch(
    scenes: Scenes, chosen: np.ndarray, rng: np.random.Generator | None = None,
) -> tuple[Tensor, Targets]:
    """Return images [B, 3, H, W] in 0..1, disturbed where there is an `rng`, and their targets."""
    pixels = np.stack([disturb(rng, scenes.images[index]) if rng else scenes.images[index]
                       for index in chosen])
    # Channels last in memory, as the convolutions like it.
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
    parts = (scenes.boxes, scenes.objectness, scenes.labels, scenes.features)
    return images, Targets(*(torch.from_numpy(part[chosen]).float() for part in parts))

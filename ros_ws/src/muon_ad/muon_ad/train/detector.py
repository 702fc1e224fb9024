"""Train the streaming detector by imitation of a larger one: `muon-ad train detector`.

Needs pictures and a teacher, but no annotation: see detection_data for how scenes and targets are
made of them.
"""

import argparse
import csv
import math
import os
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

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
from muon_ad.train.detection_data import disturb
from muon_ad.train.detection_data import Library
from muon_ad.train.detection_data import library
from muon_ad.train.detection_data import Pool
from muon_ad.train.detection_data import Scenes
from muon_ad.train.images import DataError
from muon_ad.train.images import load_images
from muon_ad.train.imitation import feature_loss
from muon_ad.train.imitation import imitation_losses
from muon_ad.train.imitation import mirror
from muon_ad.train.imitation import Targets
from muon_ad.train.teacher import Teacher
from muon_ad.train.teacher import teacher_package

CLASSES = 'person,chair,couch,dining table,potted plant,tv,bottle,cup,bed'
SIDE = 400  # short side of the pictures in memory
CHECKPOINT = 'checkpoint.pt'
LOG = 'log.csv'
OPTIONS = ('width', 'height', 'steps', 'batch', 'rate', 'average', 'mimic', 'pool', 'fresh',
           'seed')
COLUMNS = ('step', 'loss', 'objectness', 'labels', 'boxes', 'features', 'rate')


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on besides its pictures and its teacher."""

    classes: tuple[str, ...]
    width: int = 320
    height: int = 256
    steps: int = 6000
    batch: int = 8
    rate: float = 2.5e-3
    weight_decay: float = 0.02
    warm_up: int = 300
    average: float = 0.998
    mimic: float = 2.0
    pool: int = 1024
    fresh: int = 1
    seed: int = 0


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
                        help='detector in YOLOX format: a model package, or an ONNX file as its '
                        'authors export it')
    parser.add_argument('--classes', default=CLASSES, help='comma-separated, known to the teacher')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER',
                        help='where checkpoint.pt, log.csv and the model package go')
    parser.add_argument('--resume', action='store_true', help='go on from --out/checkpoint.pt')
    parser.add_argument('--checkpoint-every', type=int, default=200, metavar='STEPS')
    for name in OPTIONS:
        default = getattr(Recipe, name)
        parser.add_argument(f'--{name}', type=type(default), default=default)
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
    recipe = Recipe(classes, **{name: getattr(args, name) for name in OPTIONS})
    teacher = Teacher(
        teacher_package(args.teacher), classes, recipe.width, recipe.height, recipe.mimic > 0
    )
    pictures, unseen = _pictures(args)
    source = library(tqdm(pictures, desc='finding objects'), teacher.detector, classes)
    print('objects to crop:', ', '.join(f'{n} {name}' for name, n in source.counts.most_common()))
    net = train(recipe, source, teacher, args.out, args.resume, args.checkpoint_every)
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


def train(
    recipe: Recipe,
    source: Library,
    teacher: Teacher,
    out: Path,
    resume: bool = False,
    checkpoint_every: int = 200,
) -> DetectorNet:
    """Train a detector; returns the average of its weights, in evaluation mode.

    Writes a checkpoint every so many steps and at the end, and a row of the log every 20. A run
    that is resumed takes the same steps as one that was never interrupted: every random choice
    depends on the seed and on the number of the step alone. Raises ValueError where the checkpoint
    was made with another recipe, FileNotFoundError where there is none to resume.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, teacher.channels)
    if resume:
        run.load(out / CHECKPOINT)
    if run.step < recipe.steps:
        _take_steps(run, source, teacher, out, checkpoint_every)
    return run.average.module.eval()


def _take_steps(
    run: 'Run', source: Library, teacher: Teacher, out: Path, checkpoint_every: int
) -> None:
    recipe = run.recipe
    pool = Pool(source, teacher, (recipe.width, recipe.height), recipe.pool, recipe.seed)
    newest = recipe.pool + run.step * recipe.fresh
    for index in tqdm(range(newest - recipe.pool, newest), desc='composing scenes'):
        pool.make(index)
    _trim_log(out / LOG, run.step)
    progress = tqdm(total=recipe.steps, initial=run.step, desc='training', unit='step')
    while run.step < recipe.steps:
        for index in range(newest, newest + recipe.fresh):
            pool.make(index)
        newest += recipe.fresh
        losses = run.advance(pool.scenes)
        progress.update()
        if run.step % 20 == 0:
            progress.set_postfix({name: f'{value:.3f}' for name, value in losses.items()})
            _append(out / LOG, [run.step, *(f'{value:.5g}' for value in losses.values())])
        if run.step % checkpoint_every == 0 or run.step == recipe.steps:
            run.save(out / CHECKPOINT)
    progress.close()


class Run:
    """The state of a training: network, its average, optimiser and number of steps taken.

    `channels` is the number of the teacher's features (0: none to imitate).
    """

    def __init__(self, recipe: Recipe, channels: int) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.step = 0
        self.net = DetectorNet(len(recipe.classes)).to(memory_format=torch.channels_last)
        self.average = AveragedModel(
            self.net, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True
        )
        # From own features to the teacher's; not part of the network that is exported.
        self.adapters = nn.ModuleList(
            nn.Conv2d(NECK, channels, 1) for _ in (STRIDES if channels else ())
        )
        learning = nn.ModuleList([self.net, self.adapters])
        self.optimizer = torch.optim.AdamW(
            _groups(learning, recipe.weight_decay), lr=recipe.rate, betas=(0.9, 0.98)
        )
        self._places, self._strides = cells(recipe.width, recipe.height)

    def advance(self, scenes: Scenes) -> dict[str, float]:
        """Take one step on scenes drawn from the pool; returns the losses and the rate."""
        rng = np.random.default_rng([self.recipe.seed, 1, self.step])
        chosen = rng.choice(len(scenes.images), self.recipe.batch)
        images, targets = _batch(scenes, chosen, rng)
        if rng.random() < 0.5:
            images, targets = mirror(images, targets)
        rate = _rate(self.recipe, self.step)
        for group in self.optimizer.param_groups:
            group['lr'] = rate
        self.net.train()
        with torch.autocast('cpu', torch.bfloat16):
            features = self.net.features(images)
            raw = self.net.head(features)
            # Without features to imitate there are no adapters.
            likened = [adapt(level) for adapt, level in zip(self.adapters, features)]  # noqa: B905
        losses = imitation_losses(raw.float(), targets, self._places, self._strides)
        losses['features'] = self.recipe.mimic * feature_loss(likened, targets.features)
        total = sum(losses.values())
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 10)
        self.optimizer.step()
        self.average.update_parameters(self.net)
        self.step += 1
        values = {name: value.item() for name, value in losses.items()}
        return {'loss': total.item(), **values, 'rate': rate}

    def save(self, path: Path) -> None:
        """Write the state to `path`; an interruption leaves the previous file whole."""
        partial = path.with_suffix('.partial')
        torch.save(
            {
                'recipe': asdict(self.recipe),
                'step': self.step,
                'net': self.net.state_dict(),
                'adapters': self.adapters.state_dict(),
                'average': self.average.state_dict(),
                'optimizer': self.optimizer.state_dict(),
            },
            partial,
        )
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Take up the state in `path`; raises ValueError where its recipe is another."""
        state = torch.load(path, weights_only=True)
        if state['recipe'] != asdict(self.recipe):
            raise ValueError(f'{path}: made with {state["recipe"]}; asked for {self.recipe}')
        self.step = state['step']
        self.net.load_state_dict(state['net'])
        self.adapters.load_state_dict(state['adapters'])
        self.average.load_state_dict(state['average'])
        self.optimizer.load_state_dict(state['optimizer'])


def _batch(
    scenes: Scenes, chosen: np.ndarray, rng: np.random.Generator
) -> tuple[Tensor, Targets]:
    pixels = np.stack([disturb(rng, scenes.images[index]) for index in chosen])
    # Channels last in memory, as the convolutions like it.
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
    parts = (scenes.boxes, scenes.objectness, scenes.labels, scenes.features)
    return images, Targets(*(torch.from_numpy(part[chosen]).float() for part in parts))


def _groups(net: nn.Module, weight_decay: float) -> list[dict]:
    """Decay filters only: biases and normalisation have no reason to shrink."""
    filters = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    return [{'params': filters, 'weight_decay': weight_decay},
            {'params': others, 'weight_decay': 0.0}]


def _rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    if step < recipe.warm_up:
        return recipe.rate * (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def _append(path: Path, row: Iterable) -> None:
    with path.open('a', newline='', encoding='utf-8') as stream:
        csv.writer(stream).writerow(row)


def _trim_log(path: Path, step: int) -> None:
    """Keep the rows up to `step`: what came after them is about to be done again."""
    rows = []
    if step and path.exists():
        with path.open(newline='', encoding='utf-8') as stream:
            rows = [row for row in list(csv.reader(stream))[1:] if int(row[0]) <= step]
    with path.open('w', newline='', encoding='utf-8') as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])

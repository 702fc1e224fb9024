"""What trains the detector: the losses of teachers and annotations, step by step.

A detector has no style. What the curriculum (curriculum.py) calls so is here the imitation of the
teacher's features: a broad alignment first, while the detections themselves (objectness, labels,
boxes) stand in for the content. Their balance follows scenes made of pictures that are held out;
in the last phase the adapters are frozen, which serve the alignment alone. Nothing else is, and
without features to imitate of the curriculum only the learning rate is left.
"""

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

from muon_ad.metrics.detection import mean
from muon_ad.metrics.detection import Truth
from muon_ad.networks.detector import cells
from muon_ad.networks.detector import DetectorNet
from muon_ad.networks.detector import STRIDES
from muon_ad.train import steering
from muon_ad.train.annotated_scenes import AnnotatedScenes
from muon_ad.train.annotations import DataSet
from muon_ad.train.assignment import assigned
from muon_ad.train.checkpoint import load_checkpoint
from muon_ad.train.compose import disturb
from muon_ad.train.curriculum import Curriculum
from muon_ad.train.detection_data import Library
from muon_ad.train.detection_data import Pool
from muon_ad.train.detection_data import Scenes
from muon_ad.train.detector_quality import against_annotations
from muon_ad.train.imitation import feature_loss
from muon_ad.train.imitation import imitation_losses
from muon_ad.train.imitation import mirror
from muon_ad.train.imitation import Targets
from muon_ad.train.loop import check_finite
from muon_ad.train.optimizers import network_optimizer
from muon_ad.train.teacher import Teacher
from muon_ad.train.teacher import Teachers

COLUMNS = ('loss', 'objectness', 'labels', 'boxes', 'features', 'mAP', *steering.COLUMNS)
RATES = {'muon': 2.5e-3, 'torch-muon': 2.5e-3, 'adamw': 2.5e-3, 'adam': 2.5e-3, 'lion': 4e-4,
         'sgd': 3e-2}


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on besides its pictures and its teachers.

    `start` is the SHA-256 of the weights that it starts from; empty: random ones.
    `frozen_norms`: normalise by the statistics of those, and not of each batch.
    """

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
    half: bool = True
    frozen_norms: bool = False
    validate_every: int = 500
    start: str = ''

    @property
    def balanced(self) -> bool:
        """Return whether the curriculum has losses to balance."""
        return self.curriculum and self.mimic > 0


@dataclass(frozen=True)
class Lessons:
    """What a run learns from: a teacher's view of scenes, annotated pictures, or both.

    With a teacher, `source` is what its scenes are composed of, and `held_out` those to balance
    the losses by, needed where the recipe is `balanced`.
    """

    teacher: Teacher | Teachers | None = None
    source: Library | None = None
    held_out: Library | None = None
    annotated: DataSet | None = None


class Trainer:
    """Network, its average, optimiser, scenes and step counter of a run, which resumes exactly.

    Every random choice depends on the seed and on the number of the step alone. `net`, where
    given, is the network to start from; its classes are the recipe's.
    """

    def __init__(
        self, recipe: Recipe, lessons: Lessons, net: DetectorNet | None = None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.lessons = recipe, lessons
        self.step = 0
        self.precision: float | None = None     # at the last validation
        net = DetectorNet(len(recipe.classes)) if net is None else net
        self.net = net.to(memory_format=torch.channels_last)
        self.average = AveragedModel(
            self.net, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True
        )
        # From own features to the teacher's; not part of the network that is exported.
        channels = lessons.teacher.channels if lessons.teacher else 0
        self.adapters = nn.ModuleList(
            nn.Conv2d(net.neck, channels, 1) for _ in (STRIDES if channels else ())
        )
        self.optimizer = network_optimizer(
            recipe.optimizer, nn.ModuleDict({'net': self.net, 'adapters': self.adapters}),
            recipe.rate, recipe.weight_decay, first=('net.stage8.0',),
            last=('net.box', 'net.label', 'adapters'),
        )
        self._places, self._strides = cells(recipe.width, recipe.height)
        self._pool = lessons.teacher and Pool(
            lessons.source, lessons.teacher, self._size, recipe.pool, recipe.seed)
        self._scenes = lessons.annotated and AnnotatedScenes(
            lessons.annotated.training, self._size, recipe.seed)
        self.steering = self._steering()

    @property
    def _size(self) -> tuple[int, int]:
        return self.recipe.width, self.recipe.height

    def _steering(self) -> steering.Steering:
        recipe = self.recipe
        if not recipe.curriculum:
            plan = steering.RiseAndFall(recipe.steps, recipe.rate, recipe.warm_up, recipe.warm_up)
            return steering.Steering(self.optimizer, plan, self.adapters)
        plan = Curriculum(recipe.steps, rate=recipe.rate, warm_up=recipe.warm_up)
        if not recipe.balanced:
            return steering.Steering(self.optimizer, plan, self.adapters)
        pool = Pool(self.lessons.held_out, self.lessons.teacher, self._size, 2 * recipe.batch,
                    recipe.seed)
        pool.reach(pool.capacity)
        batch = _batch(pool.scenes, np.arange(pool.capacity))
        return steering.Steering(self.optimizer, plan, self.adapters,
                                 partial(self._validate, *batch))

    def advance(self) -> dict[str, float]:
        """Take one step on scenes drawn at random; return what to log of it.

        Raises DivergedError, with the weights as before, where the loss is not finite.
        """
        prepared = self.steering.prepare(self.step)
        _, losses = self.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 10)
        self.optimizer.step()
        self.average.update_parameters(self.net)
        self.step += 1
        self._measure()
        measured = {} if self.precision is None else {'mAP': self.precision}
        return {**losses, **measured, **prepared}

    def backward(self) -> tuple[Tensor, dict[str, float]]:
        """Leave the gradients of the present step in the network, and take no step.

        Returns the images [B, 3, H, W] and the losses by column. Raises DivergedError.
        """
        images, targets, truths = self._batch()
        self._set_training()
        losses = self._losses(images, targets, truths)
        factors = self.steering.factors()
        total = sum(factors[_kind(name)] * value for name, value in losses.items())
        check_finite(total.item(), self.step)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        return images, {'loss': total.item(),
                        **{name: value.item() for name, value in losses.items()}}

    def _set_training(self) -> None:
        self.net.train()
        if self.recipe.frozen_norms:
            for module in self.net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def _batch(self) -> tuple[Tensor, Targets | None, list[Truth]]:
        """Return images [B, 3, H, W] of the step: first the teacher's, then the annotated ones."""
        recipe, images, targets, truths = self.recipe, [], None, []
        if self._pool:
            self._pool.reach(recipe.pool + (self.step + 1) * recipe.fresh)
            rng = np.random.default_rng([recipe.seed, 1, self.step])
            chosen = rng.choice(recipe.pool, recipe.batch)
            seen, targets = _batch(self._pool.scenes, chosen, rng)
            if rng.random() < 0.5:
                seen, targets = mirror(seen, targets)
            images.append(seen)
        if self._scenes:
            pixels, truths = self._scenes.batch(self.step, recipe.batch)
            images.append(_images(pixels))
        return torch.cat(images), targets, truths

    def _losses(
        self, images: Tensor, targets: Targets | None, truths: Sequence[Truth] = (),
    ) -> dict[str, Tensor]:
        with torch.autocast('cpu', torch.bfloat16, enabled=self.recipe.half):
            features = self.net.features(images)
            raw = self.net.head(features).float()
            # Without features to imitate there are no adapters.
            likened = [adapt(level) for adapt, level in zip(self.adapters, features)]  # noqa: B905
        taught = len(images) - len(truths)
        views = [] if targets is None else [(raw[:taught], targets)]
        if truths:
            views.append((raw[taught:],
                          assigned(raw[taught:], truths, self._places, self._strides)))
        parts = [imitation_losses(*view, self._places, self._strides) for view in views]
        losses = {name: sum(part[name] for part in parts) for name in parts[0]}
        if likened:
            likened = [level[:taught] for level in likened]
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

    def _measure(self) -> None:
        """Find out and print how well the averaged network detects what is annotated."""
        recipe, data = self.recipe, self.lessons.annotated
        due = self.step % recipe.validate_every == 0 or self.step == recipe.steps
        if data is None or not due:
            return
        found = against_annotations(
            self.average.module, data.classes, data.validation, self._size)
        self.precision = mean(found)
        tqdm.write(f'step {self.step}: mAP {self.precision:.3f} on {len(data.validation)} '
                   'annotated pictures not learnt from')

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
            'precision': self.precision,
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
        self.precision = state['precision']


def _kind(loss: str) -> str:
    return 'style' if loss == 'features' else 'content'


def _batch(
    scenes: Scenes, chosen: np.ndarray, rng: np.random.Generator | None = None,
) -> tuple[Tensor, Targets]:
    """Return images [B, 3, H, W] in 0..1, disturbed where there is an `rng`, and their targets."""
    pixels = np.stack([disturb(rng, scenes.images[index]) if rng else scenes.images[index]
                       for index in chosen])
    parts = (scenes.boxes, scenes.objectness, scenes.labels, scenes.features)
    return _images(pixels), Targets(*(torch.from_numpy(part[chosen]).float() for part in parts))


def _images(pixels: np.ndarray) -> Tensor:
    """Return pixels [B, H, W, 3] as [B, 3, H, W] in 0..1, channels last in memory."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)

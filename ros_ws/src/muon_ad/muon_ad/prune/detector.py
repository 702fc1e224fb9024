"""Prunes the detector while it goes on learning: `muon-ad prune detector`.

The trainer is that of `muon-ad train detector`, with its losses, data and curriculum. What is
added: the dense detector's output and features for the same images, next to what the teacher or
the annotations say.
"""

import argparse
import copy
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from muon_ad.metrics.detection import Truth
from muon_ad.networks.detector import boxes
from muon_ad.networks.detector import DetectorNet
from muon_ad.networks.detector import joined
from muon_ad.networks.detector import load_detector
from muon_ad.networks.detector import save_detector
from muon_ad.networks.detector import STRIDES
from muon_ad.networks.resize import resize_to
from muon_ad.prune import options
from muon_ad.prune.cut import cut
from muon_ad.prune.graph import channel_groups
from muon_ad.prune.imitation import feature_loss
from muon_ad.prune.imitation import watched
from muon_ad.prune.methods import learner
from muon_ad.prune.plan import Plan
from muon_ad.prune.refit import refit
from muon_ad.prune.report import comparison
from muon_ad.prune.report import outcome
from muon_ad.prune.scores import make_score
from muon_ad.prune.select import global_ratio
from muon_ad.prune.select import select
from muon_ad.prune.shapes import budget
from muon_ad.prune.shapes import count
from muon_ad.screen import screen
from muon_ad.train import detector as training
from muon_ad.train import detector_trainer
from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.checkpoint import load_checkpoint
from muon_ad.train.detector_trainer import Lessons
from muon_ad.train.detector_trainer import Recipe
from muon_ad.train.imitation import imitation_losses
from muon_ad.train.imitation import Targets
from muon_ad.train.loop import learn

# Where the dense detector's features are imitated: layer that reads them, and whose group of
# channels they are.
TAPS = {'stage16': 'stage8.1.0', 'stage32': 'stage16.0.0', 'lateral32': 'stage32.0.0'}
BOXES, LABELS = ([f'{name}.{level}' for level in range(len(STRIDES))] for name in ('box', 'label'))
COLUMNS = (*detector_trainer.COLUMNS, 'parameters')
# Half of those that a training begins with: the detector has learnt already.
RATES = {name: rate / 2 for name, rate in detector_trainer.RATES.items()}
OPTIONS = ('width', 'height', 'batch', 'pool', 'fresh', 'validate_every')
AVERAGE = 0.99      # of weights, over fewer steps than in a training: they change with every cut


class DetectorPupil(detector_trainer.Trainer):
    """The trainer of a detector that is being pruned; see `pupil.Pupil`.

    `dense` is what it imitates; `net`, what to begin with, is a copy of that, or what is left of
    it already. The recipe must not ask for a teacher's features (mimic 0), since those of the
    dense detector take their place.
    """

    ignored = (*BOXES, *LABELS)

    def __init__(
        self, recipe: Recipe, lessons: Lessons, dense: DetectorNet, net: DetectorNet | None = None,
    ) -> None:
        super().__init__(recipe, lessons, net or copy.deepcopy(dense))
        self.teacher = copy.deepcopy(dense).eval().requires_grad_(False)
        self.teacher.to(memory_format=torch.channels_last)
        self.example = (torch.zeros(1, 3, 64, 64),)
        self.kept: Mapping[str, Tensor] = {}

    @property
    def network(self) -> DetectorNet:
        """Return what is pruned."""
        return self.net

    def adopt(
        self, network: DetectorNet, follow: Callable[[nn.Module], nn.Module],
    ) -> None:
        """Go on with a smaller detector, and a smaller average."""
        self.net = network
        average = AveragedModel(
            follow(self.average.module),
            multi_avg_fn=get_ema_multi_avg_fn(self.recipe.average), use_buffers=True)
        average.n_averaged.copy_(self.average.n_averaged)
        self.average = average

    @torch.no_grad()
    def judge(self, network: DetectorNet) -> float:
        """Return the losses of imitating the dense detector, on the images of the next step."""
        images, _, _ = self._batch()
        network.eval()
        raw = network(images)
        network.train()
        losses = imitation_losses(
            raw, self._seen(self.teacher(images)), self._places, self._strides)
        return sum(value.item() for value in losses.values())

    def _losses(
        self, images: Tensor, targets: Targets | None, truths: Sequence[Truth] = (),
    ) -> dict[str, Tensor]:
        with watched(self.net, TAPS, self.ignored) as found:
            losses = super()._losses(images, targets, truths)
        raw = joined([(found.results[box], found.results[label])
                      for box, label in zip(BOXES, LABELS, strict=True)]).float()
        with torch.no_grad(), watched(self.teacher, TAPS) as wanted:
            dense = self._seen(self.teacher(images))
        imitation = imitation_losses(raw, dense, self._places, self._strides)
        # Where blocks go instead of channels, all channels are left.
        kept = {layer: self.kept.get(group, slice(None)) for layer, group in TAPS.items()}
        return {
            **{name: losses[name] + value for name, value in imitation.items()},
            'features': feature_loss(found.inputs, wanted.inputs, kept),
        }

    def _seen(self, raw: Tensor) -> Targets:
        """Return what a raw output says, as targets."""
        return Targets(boxes(raw, self._places, self._strides), raw[..., 4].sigmoid(),
                       raw[..., 5:].sigmoid(), raw[..., :0])


def load_dense(source: Path) -> tuple[DetectorNet, tuple[str, ...]]:
    """Return detector and class names of a model package (its `weights/dense.safetensors`), of a
    .safetensors file, or of a checkpoint of `muon-ad train detector`.

    Raises FileNotFoundError or ValueError, naming what is missing.
    """
    if source.is_dir():
        source = source / 'weights' / 'dense.safetensors'
    if source.suffix == '.safetensors':
        return load_detector(source)
    state = load_checkpoint(source, {})
    if not isinstance(state, dict) or not {'recipe', 'average'} <= state.keys():
        raise ValueError(f'{source}: not a checkpoint of `muon-ad train detector`')
    weights = {name.removeprefix('module.'): value for name, value in state['average'].items()
               if name.startswith('module.')}
    classes = tuple(state['recipe']['classes'])
    return resize_to(DetectorNet(len(classes)), weights).eval(), classes


def prune_detector(
    dense: DetectorNet, lessons: Lessons, recipe: Recipe, plan: Plan, out: Path,
    resume: bool = False, save_every: int = 200,
) -> Path:
    """Prune as planned; return the .safetensors file in `out`, named by the ratio: p40, for one.

    `out` also gets a checkpoint and a log, as of a training. With `resume`, goes on from that
    checkpoint. Raises what loading raises, and ValueError where the checkpoint is of another run.
    """
    net, state = None, None
    if resume:
        state = load_checkpoint(out / CHECKPOINT, {'plan': plan.to_dict()})
        net = resize_to(copy.deepcopy(dense), state['net'])
    pupil = DetectorPupil(replace(recipe, mimic=0.0), lessons, dense, net)
    pruning = learner(pupil, dense, plan)
    if state:
        pupil.load(out / CHECKPOINT)
        pruning.load(state)
    learn(pruning, plan.steps, out, COLUMNS, save_every, log_every=max(1, plan.steps // 60))
    path = out / f'{plan.variant}.safetensors'
    save_detector(path, pupil.average.module, recipe.classes)
    return path


def cut_and_refit(
    dense: DetectorNet, lessons: Lessons, recipe: Recipe, plan: Plan, batches: int,
) -> DetectorNet:
    """Return the detector cut all at once and refitted to the dense one, without training.

    The score sees the gradients of `batches` batches; the layers are refitted on their images.
    """
    trainer = detector_trainer.Trainer(recipe, lessons, copy.deepcopy(dense))
    example, ignored = (torch.zeros(1, 3, 64, 64),), DetectorPupil.ignored
    groups = channel_groups(dense, example, ignored)
    score, seen = make_score(plan.score, plan.seed), []
    for _ in range(batches):
        seen.append(trainer.backward()[0])
        score.observe(groups, trainer.net, trainer.optimizer)
        trainer.step += 1
    scores = {group.name: score.of(group, dense).double().numpy() for group in groups}
    channels = {group.name: group.channels for group in groups}
    removed = select(scores, channels, global_ratio(plan.limits), plan.limits,
                     budget(dense, groups), round(count(dense) * (1 - plan.ratio)),
                     score.comparable)
    made = cut(dense, example, removed)
    small = made.apply(dense)
    refit(small, dense, made, seen, plan.seed)
    return small


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `muon-ad prune detector`."""
    parser.add_argument('source', type=Path, help='model package, .safetensors of a detector, or '
                        'checkpoint.pt of `muon-ad train detector`; a package also is the teacher '
                        'where no other and no annotations are given')
    training.add_lesson_arguments(parser)
    for name in OPTIONS:
        default = getattr(Recipe, name)
        parser.add_argument(f'--{name.replace("_", "-")}', type=type(default), default=default)
    parser.add_argument('--refit', type=int, metavar='BATCHES',
                        help='do not train: cut all at once, by what the score sees in so many '
                        "batches, and refit each layer to the dense detector's by least squares; "
                        '`muon-ad train detector --weights` then goes on')
    parser.add_argument('--bf16', action='store_true',
                        help='bfloat16 (slow on CPUs without AVX512-BF16 or AMX)')
    options.add_arguments(parser, RATES)


def run(args: argparse.Namespace) -> int:
    """Prune as asked; returns the exit code."""
    torch.set_num_threads(args.threads)
    plan = options.plan(args)
    dense, classes = load_dense(args.source)
    if not args.teacher and args.source.is_dir() and not (args.coco or args.voc):
        args.teacher = [args.source]
    recipe = Recipe(
        classes, **{name: getattr(args, name) for name in OPTIONS}, steps=plan.steps,
        optimizer=args.optimizer, rate=RATES[args.optimizer] if args.rate is None else args.rate,
        warm_up=min(Recipe.warm_up, plan.steps // 10), average=AVERAGE, mimic=0.0, seed=plan.seed,
        half=args.bf16)
    lessons, _ = training.lessons_of(args, recipe, training.annotated(args, classes))
    if args.refit:
        path = args.out / f'{plan.variant}.safetensors'
        save_detector(path, cut_and_refit(dense, lessons, recipe, plan, args.refit), classes)
    else:
        path = prune_detector(dense, lessons, recipe, plan, args.out, args.resume,
                              args.checkpoint_every)
    example = (torch.zeros(1, 3, recipe.height, recipe.width),)
    small, _ = load_detector(path)
    screen().print(comparison(dense, small, example, f'{recipe.width}x{recipe.height}'))
    print(outcome(dense, small, plan.ratio, path))
    return 0

"""Prunes the streaming style student while it goes on learning: `muon-ad prune style`.

The trainer is that of `muon-ad train style`, with its losses, data and curriculum. Two things are
added: the dense student shows what it makes of the same images, and the style encoder stays as it
is, so that one encoder serves all levels.
"""

import argparse
import copy
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from muon_ad.networks.resize import resize_to
from muon_ad.networks.style import StyleEncoder
from muon_ad.networks.style import StyleStudent
from muon_ad.networks.weights import save_network
from muon_ad.prune import options
from muon_ad.prune.graph import PruningError
from muon_ad.prune.imitation import feature_loss
from muon_ad.prune.imitation import watched
from muon_ad.prune.methods import learner
from muon_ad.prune.plan import Plan
from muon_ad.prune.report import comparison
from muon_ad.prune.report import outcome
from muon_ad.screen import screen
from muon_ad.train import perceptual
from muon_ad.train import style as training
from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.checkpoint import load_checkpoint
from muon_ad.train.loop import learn
from muon_ad.train.style_weights import ENCODER
from muon_ad.train.style_weights import load_networks
from muon_ad.train.style_weights import load_student
from muon_ad.train.style_weights import STUDENT

# Where the dense student is imitated besides its picture: layer that reads them, and whose group
# of channels they are.
TAPS = {'fine': 'stem', 'last': 'fine'}
WEIGHTS = {**training.WEIGHTS, 'imitation': 30.0, 'features': 1.0}
COLUMNS = (*training.COLUMNS, 'imitation', 'features', 'parameters')
# Half of those that a training begins with: the student has learnt already.
RATES = {name: rate / 2 for name, rate in training.RATES.items()}
SIZE = (320, 240)       # that operations are counted for
JUDGED = 8              # photographs by which blocks of layers are judged


class StylePupil(training.Trainer):
    """The trainer of a student that is being pruned; see `gradual.Pupil`.

    `dense` is what it imitates; `student`, what to begin with, is a copy of that, or what is left
    of it already.
    """

    ignored = ('last',)

    def __init__(
        self, corpus: training.Corpus, features: nn.Module, recipe: training.Recipe,
        dense: StyleStudent, encoder: StyleEncoder, student: StyleStudent | None = None,
    ) -> None:
        if dense.attention is not None:
            raise PruningError('the student attends to a style image, whose stored values have '
                               'its channels; expected one without (tokens 0)')
        begin = student or copy.deepcopy(dense), copy.deepcopy(encoder).requires_grad_(False)
        super().__init__(corpus, features, recipe, dense.config, begin)
        self.teacher = copy.deepcopy(dense).eval().requires_grad_(False)
        self.teacher.to(memory_format=torch.channels_last)
        self.example = torch.zeros(1, 3, 32, 32), torch.zeros(1, dense.config.style_length)
        self.kept: Mapping[str, torch.Tensor] = {}

    @property
    def network(self) -> StyleStudent:
        """Return what is pruned."""
        return self.student

    def adopt(
        self, network: StyleStudent, follow: Callable[[nn.Module], nn.Module],
    ) -> None:
        """Go on with a smaller student."""
        self.student = network
        self.parameters = [*network.parameters()]

    @torch.no_grad()
    def judge(self, network: StyleStudent) -> float:
        """Return the mean difference of its pictures from the dense student's, 0..1."""
        rng = np.random.default_rng([self.recipe.seed, 0, 3])
        wide, styles, _ = self.corpus.batch(replace(self.recipe, batch=JUDGED), rng)
        photos, vectors = self._cropped(wide), self.encoder(styles)
        return F.l1_loss(network(photos, vectors), self.teacher(photos, vectors)).item()

    def _losses(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        with watched(self.student, TAPS) as found:
            losses = super()._losses(rng)
        with torch.no_grad(), self._precision(), watched(self.teacher, TAPS) as wanted:
            picture = self.teacher(*found.arguments)
        # Where blocks go instead of channels, all channels are left.
        kept = {layer: self.kept.get(group, slice(None)) for layer, group in TAPS.items()}
        return losses | {
            'imitation': F.l1_loss(found.result.float(), picture.float()),
            'features': feature_loss(found.inputs, wanted.inputs, kept),
        }


def prune_style(
    source: Path, corpus: training.Corpus, features: nn.Module, recipe: training.Recipe,
    plan: Plan, out: Path, resume: bool = False, save_every: int = 200,
) -> Path:
    """Prune as planned; return the .safetensors file in `out`, named by the ratio: p40, for one.

    The encoder's file stands beside it. `out` also gets a checkpoint and a log, as of a training.
    With `resume`, goes on from that checkpoint. Raises what loading raises, and ValueError where
    the checkpoint is of another run.
    """
    dense, encoder = load_networks(source)
    student, state = None, None
    if resume:
        state = load_checkpoint(out / CHECKPOINT, {'plan': plan.to_dict()})
        student = resize_to(copy.deepcopy(dense), state['student'])
    pupil = StylePupil(corpus, features, recipe, dense, encoder, student)
    pruning = learner(pupil, dense, plan)
    if state:
        pupil.load(out / CHECKPOINT)
        pruning.load(state)
    learn(pruning, plan.steps, out, COLUMNS, save_every, log_every=max(1, plan.steps // 60))
    path = out / f'{plan.variant}.safetensors'
    config = dense.config.to_dict()
    save_network(path, pupil.student, STUDENT, config)
    save_network(out / 'encoder.safetensors', encoder, ENCODER, config)
    return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `muon-ad prune style`."""
    parser.add_argument('source', type=Path, help='model package, .safetensors of a student with '
                        'encoder.safetensors beside it, or checkpoint.pt of `muon-ad train style`')
    training.add_picture_arguments(parser)
    parser.add_argument('--batch', type=int, default=training.Recipe.batch)
    parser.add_argument('--crop', type=int, default=training.Recipe.crop,
                        help='pixels, a multiple of 8')
    parser.add_argument('--weights', type=partial(training.loss_weight, known=WEIGHTS), nargs='+',
                        default=[], metavar='NAME=VALUE',
                        help=f'weights of losses, instead of {WEIGHTS}')
    parser.add_argument('--bf16', action='store_true',
                        help='bfloat16 (slow on CPUs without AVX512-BF16 or AMX)')
    options.add_arguments(parser, RATES)


def run(args: argparse.Namespace) -> int:
    """Prune as asked; returns the exit code."""
    torch.set_num_threads(args.threads)
    plan = options.plan(args)
    rate = RATES[args.optimizer] if args.rate is None else args.rate
    recipe = training.Recipe(
        steps=args.steps, batch=args.batch, crop=args.crop, rate=rate, seed=args.seed,
        optimizer=args.optimizer, warm=0, ramp=1, half=args.bf16,
        weights={**WEIGHTS, **dict(args.weights)})
    dense, _ = load_networks(args.source)
    corpus = training.load_corpus(args.content, args.paintings, args.styles)
    features = perceptual.load_features(args.features)
    path = prune_style(args.source, corpus, features, recipe, plan, args.out, args.resume,
                       args.checkpoint_every)
    width, height = SIZE
    example = (torch.zeros(1, 3, height, width), torch.zeros(1, dense.config.style_length))
    small = load_student(path)
    screen().print(comparison(dense, small, example, f'{width}x{height}'))
    print(outcome(dense, small, plan.ratio, path))
    return 0

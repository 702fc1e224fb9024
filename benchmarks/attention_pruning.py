"""Claims: attention layers of high entropy are those to keep (H > 0.7 max H), half of the heads
suffice, and a U-Net with 40 % fewer parameters denoises as well.

On the shipped backbone's U-Net, in three parts. Layers: as many self-attention layers are dropped
by their entropy (in nats, as the paper writes it, or over the largest possible one), by the
inverse of each, by the measured loss and at random, and either removed or replaced by dynamic
convolutions. Heads: half of all, by each score. Recovery: the light U-Net of `muon-ad prune unet`,
with and without distillation of attention maps. Each is cut anew and recovers for the same number
of steps on the same crops, a seed after the other.

How to read it: `<case>_cut` is the denoising loss on held-out photographs right after the cut over
the dense U-Net's, `<case>` the same after recovery: 1 is no loss at all, less is better.
`dense` is the dense U-Net after as many steps of the same training: what recovery adds by itself.
`light_time` is the CPU time of a pass of the light U-Net over the dense one's, one thread;
`light_parameters` and `light_flops` likewise.

Pictures are generated or scikit-image's; nothing is downloaded.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import skimage.data
import torch
from _common import console
from _common import finish
from _common import parser
from _common import ratio
from _common import ROOT
from _common import run
from _common import shown
from _common import spread
from _common import table
from rich.table import Table

from muon_ad.distill.diffusion import DiffusionBackbone
from muon_ad.networks.dynamic_conv import BASES
from muon_ad.networks.light_unet import attentions
from muon_ad.networks.light_unet import Light
from muon_ad.prune.denoising import Batch
from muon_ad.prune.denoising import mean_loss
from muon_ad.prune.denoising import noisy_batches
from muon_ad.prune.layers import kept_layers
from muon_ad.prune.layers import layer_scores
from muon_ad.prune.layers import RULES
from muon_ad.prune.unet import choose
from muon_ad.prune.unet import convert
from muon_ad.prune.unet import Kept
from muon_ad.prune.unet_plan import plan_light
from muon_ad.prune.unet_plan import Shares
from muon_ad.prune.unet_recovery import RATE
from muon_ad.prune.unet_recovery import recovery_recipe
from muon_ad.prune.unet_recovery import RecoveryPart
from muon_ad.prune.unet_recovery import WEIGHTS
from muon_ad.prune.unet_scores import HEAD_SCORES
from muon_ad.prune.unet_scores import head_scores
from muon_ad.prune.unet_scores import measure
from muon_ad.prune.unet_scores import Measured
from muon_ad.prune.unet_table import costs
from muon_ad.prune.unet_table import light_shape
from muon_ad.prune.unet_table import load_shape
from muon_ad.train.backbone import Learning
from muon_ad.train.backbone import textures
from muon_ad.train.detector import rendered

BACKBONE = ROOT / 'models' / 'backbone_tiny'
CROP = 64
BATCH = 4


@dataclass(frozen=True)
class Scope:
    """How much is measured; `kept` self-attention layers stay in the comparison of rules."""

    scenes: int = 8
    batches: int = 8
    kept: int = 5
    passes: int = 10


QUICK = Scope(scenes=1, batches=1, passes=2)


@dataclass(frozen=True)
class Case:
    """A way to cut: what is left of which part, and the weights of the losses of recovery."""

    name: str
    plan: Light
    kept: Kept
    weights: dict[str, float]


@dataclass(frozen=True)
class Bench:
    """What all cases work with."""

    dense: DiffusionBackbone
    learnt: list[np.ndarray]
    batches: list[Batch]
    judged: list[Batch]
    measured: Measured


def pictures(scenes: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return pictures to measure on and recover with, and photographs that the U-Net never saw."""
    learnt = [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee(),
              skimage.data.rocket(), *rendered(scenes, seed=0), *textures(1)]
    grey = [np.dstack([image] * 3) for image in (skimage.data.camera(), skimage.data.coins())]
    return learnt, [skimage.data.retina(), skimage.data.immunohistochemistry(), *grey]


def bench(scope: Scope) -> Bench:
    """Load and measure the dense U-Net."""
    dense = DiffusionBackbone.load(BACKBONE)
    learnt, held = pictures(scope.scenes)
    batches, judged = (noisy_batches(dense, each, scope.batches, BATCH, CROP, 0)
                       for each in (learnt, held))
    return Bench(dense, learnt, batches, judged, measure(dense, batches))


def cases(made: Bench, scores: dict[str, dict[str, float]], scope: Scope) -> Iterator[Case]:
    """Yield all ways to cut."""
    dense, measured = made.dense, made.measured
    yield Case('dense', Light(), {}, WEIGHTS)
    rng = np.random.default_rng(0)
    scores = {**scores, 'random': {name: rng.random() for name in dense.layers}}
    for rule, each in scores.items():
        kept = kept_layers('loss' if rule == 'random' else rule, each, scope.kept)
        gone = [name for name in dense.layers if name not in kept]
        yield Case(f'layers_{rule}_removed', Light(removed=gone), {}, WEIGHTS)
        yield Case(f'layers_{rule}_dynamic', Light(dynamic=dict.fromkeys(gone, BASES)), {},
                   WEIGHTS)
    half = Light(heads={name: part.heads // 2
                        for name, part in attentions(dense.denoiser).items()})
    for kind in HEAD_SCORES:
        kept = choose(half, head_scores(kind, dense.denoiser, measured))
        yield Case(f'heads_{kind}', half, kept, WEIGHTS)
    plan = plan_light(dense.denoiser, Shares())
    kept = choose(plan, {**measured.heads, **measured.groups, **measured.features})
    yield Case('light', plan, kept, WEIGHTS)
    yield Case('light_without_maps', plan, kept, {**WEIGHTS, 'maps': 0.0})
    yield Case('light_denoising_only', plan, kept, {**dict.fromkeys(WEIGHTS, 0.0), 'denoising': 1})


def outcome(made: Bench, case: Case, steps: int, seed: int) -> tuple[float, float]:
    """Return the denoising loss after the cut, and after recovery."""
    torch.manual_seed(seed)
    light = convert(made.dense.denoiser, case.plan, case.kept)
    before = mean_loss(made.dense.with_denoiser(light), made.judged)
    part = RecoveryPart(made.dense, light, case.kept, case.weights)
    learning = Learning(part, made.learnt, recovery_recipe(steps, BATCH, CROP, RATE, seed))
    for _ in range(steps):
        learning.advance()
    return before, mean_loss(made.dense.with_denoiser(learning.result()), made.judged)


def seconds(backbone: DiffusionBackbone, batch: Batch, passes: int) -> list[float]:
    """Return the CPU seconds of each pass."""
    found = []
    with torch.no_grad():
        backbone.predict(batch.noisy, batch.times)
        for _ in range(passes):
            begun = time.process_time()
            backbone.predict(batch.noisy, batch.times)
            found.append(time.process_time() - begun)
    return found


def sizes(made: Bench, scope: Scope) -> dict[str, dict]:
    """Return how much smaller and faster the light U-Net is."""
    shape = load_shape(BACKBONE)
    dense, light = costs(shape)['total'], costs(light_shape(shape, Shares()))['total']
    plan = plan_light(made.dense.denoiser, Shares())
    kept = choose(plan, {**made.measured.heads, **made.measured.groups, **made.measured.features})
    backbones = made.dense, made.dense.with_denoiser(convert(made.dense.denoiser, plan, kept))
    slow, fast = (seconds(each, made.judged[0], scope.passes) for each in backbones)
    return {
        'light_parameters': spread([light.parameters / dense.parameters]),
        'light_flops': spread([light.flops / dense.flops]),
        'light_time': ratio(fast, slow),
    }


def layer_table(scores: dict[str, dict[str, float]], kept: int) -> Table:
    """Return what each rule thinks of each layer; * marks the layers that it keeps."""
    made = table('Self-attention layers', 'layer', *scores)
    chosen = {rule: kept_layers(rule, each, kept) for rule, each in scores.items()}
    for name in scores['loss']:
        made.add_row(name.removesuffix('.attn1'), *(
            f'{each[name]:.3f}{"*" if name in chosen[rule] else " "}'
            for rule, each in scores.items()))
    return made


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    made = parser(__doc__)
    made.add_argument('--steps', type=int, default=30, help='of every recovery (default 30)')
    made.add_argument('--only', metavar='PREFIX', default='',
                      help='cases whose names begin so (dense, layers, heads, light)')
    made.add_argument('--seeds', type=int, default=2, help='of every case (default 2)')
    return made


def main() -> int:
    """Measure, show and write; return the exit status."""
    chosen = options().parse_args()
    torch.set_num_threads(1)
    scope = QUICK if chosen.quick else Scope()
    steps, seeds = (2, 1) if chosen.quick else (chosen.steps, chosen.seeds)
    made = bench(scope)
    scores = {rule: layer_scores(rule, made.dense, made.dense.layers, made.measured,
                                 made.batches) for rule in RULES}
    console.print(layer_table(scores, scope.kept))
    whole = mean_loss(made.dense, made.judged)
    rows = table(f'Denoising loss over the dense one ({whole:.3f}), {steps} steps of recovery',
                 'case', 'after the cut', 'after recovery')
    ratios, measured = sizes(made, scope), {'dense loss': whole, 'layers': scores}
    chosen_cases = [each for each in cases(made, scores, scope)
                    if each.name.startswith(chosen.only)]
    for case in chosen_cases:
        losses = [outcome(made, case, steps, seed) for seed in range(seeds)]
        cut, recovered = (spread([loss / whole for loss in each])
                          for each in zip(*losses, strict=True))
        ratios |= {f'{case.name}_cut': cut, case.name: recovered}
        measured[case.name] = losses
        rows.add_row(case.name, shown(cut, 3), shown(recovered, 3))
        console.print(f'{case.name}: {shown(cut, 3)}, {shown(recovered, 3)}')
    finish('attention_pruning', rows, ratios, measured,
           settings={'steps': steps, 'seeds': seeds, 'quick': chosen.quick})
    return 0


if __name__ == '__main__':
    run(main)

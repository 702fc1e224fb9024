"""Claims: Muon on latents is faster than Adam; conflict projection, KL and the GPN improve on it.

Attention distillation (muon_ad.distill) of three of scikit-image's photographs in styles that the
project draws, 128 pixels a side, 30 steps, by Adam, AdamW, Muon and LatentMuon: each at the
learning rate that minimised the loss on the first pair, of four tried for 20 steps, with content
weights of 0.4, 1 and 2.5 times what the backbone recommends, with and without projection of
conflicting gradients. Then L1 against KL, gradients predicted by the GPN, and the comparison with
other ways to stylise, ours with 80 steps, on four pairs. All style is graded by SqueezeNet, which
nothing here was trained on.

How to read it: `style_loss_<who>_vs_adam` is the final AD loss over Adam's at the same content
weight and without projection, `content_loss_...` and `seconds_...` likewise (below 1 is better);
`..._projected_vs_not` is the same optimiser with projection over without. Seconds are CPU seconds
of one thread. Style and content distance, sliced Wasserstein: smaller is better; SSIM to the
photograph: larger is.

Without ../shared/data/weights there is no judge and no peer: both are said, and what is left is
measured. `--pair CONTENT STYLE`, as often as wanted, takes other pictures; `--grid` writes what
all methods made of them.
"""

import argparse
import itertools
import re
import time
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from _common import console
from _common import finish
from _common import OUT
from _common import parser
from _common import ratio
from _common import ROOT
from _common import run
from _common import shown
from _common import spread
from _common import table
from _common import WEIGHTS
from _latent_runs import best
from _latent_runs import Case
from _latent_runs import OPTIMIZERS
from _latent_runs import pareto
from _latent_runs import predicted
from _latent_runs import Run
from _latent_runs import stylised
from _latent_runs import swept
from _loss_memory import measured as loss_memory
from _methods import Method
from _methods import methods
from _pairs import default_pairs
from _pairs import given_pairs
from _pairs import Pair
from rich.table import Table

from muon_ad.chart import line_chart
from muon_ad.distill.backbone import Backbone
from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.backbone import load_backbone
from muon_ad.distill.backbone import SHIPPED
from muon_ad.distill.settings import Settings
from muon_ad.drawing import panel
from muon_ad.metrics.style import Judge
from muon_ad.metrics.style import JudgeError
from muon_ad.metrics.style import similarity

RATES = (0.01, 0.03, 0.1, 0.3)
CONFLICTS = (None, -0.5, 0.0)   # the paper's threshold, and any conflict at all
ATTENTIONS = ('features', 'denoiser')    # in the order in which the folder's are taken
GRADES = ('style distance', 'sliced Wasserstein', 'content distance', 'SSIM')


@dataclass(frozen=True)
class Scope:
    """How much is measured: pictures, their size, and steps of each run."""

    size: int = 128
    pairs: int = 4      # in the comparison of methods
    few: int = 3        # in all else
    swept: int = 20
    steps: int = 30
    compared: int = 80
    memory_size: int = 192
    weights: tuple[float, ...] = (0.4, 1.0, 2.5)    # of content, times what is recommended
    shares: tuple[float, ...] = (0.0, 0.25, 0.5)


QUICK = Scope(64, 1, 1, 2, 4, 4, 64, (1.0,), (0.0, 0.5))


@dataclass(frozen=True)
class Bench:
    """What all parts work with; `settings` are those of every run but for what is compared.

    `backbones` by what attends; `attention` names the one of all parts but the comparison.
    """

    pairs: list[Pair]
    backbones: dict[str, Backbone]
    attention: str
    judge: Judge | None
    scope: Scope
    settings: Settings
    chosen: argparse.Namespace

    @property
    def backbone(self) -> Backbone:
        """The one of all parts but the comparison."""
        return self.backbones[self.attention]

    @property
    def few(self) -> list[Pair]:
        """The pairs of all parts but the comparison."""
        return self.pairs[:self.scope.few]


@dataclass(frozen=True)
class Part:
    """What a part found: tables to show, named ratios, and all figures for the JSON file."""

    tables: list[Table]
    ratios: dict[str, dict]
    measured: dict


def backbones_at(folder: Path) -> dict[str, Backbone]:
    """Return the backbone of each of ATTENTIONS; raises BackboneError where there is none."""
    found = {}
    for name in ATTENTIONS:
        try:
            found[name] = load_backbone(folder, attention=name)
        except BackboneError as error:
            console.print(f'left out: attention of {name}: {error}')
    if not found:
        raise BackboneError(f'{folder}: no backbone in it; give the folder of one with --backbone')
    return found


def judge_at(weights: Path) -> Judge | None:
    """Return the judge, or None where its weights are not there."""
    try:
        return Judge.load(weights / 'squeezenet_v1.0.npz')
    except JudgeError as error:
        console.print(f'no judge, so no grades: {error}')
        return None


def grades(judge: Judge | None, pair: Pair, picture: np.ndarray) -> dict[str, float | None]:
    """Return GRADES of a picture; those that need the judge are None without it."""
    if judge is None:
        return dict.fromkeys(GRADES[:-1]) | {'SSIM': similarity(picture, pair.content)}
    return dict(zip(GRADES, (
        judge.style_distance(picture, pair.style), judge.sliced_wasserstein(picture, pair.style),
        judge.content_distance(picture, pair.content), similarity(picture, pair.content),
    ), strict=True))


def optimizer_ratios(found: dict[Case, list[Run]]) -> dict[str, dict]:
    """Compare optimisers with Adam, and projection with none, over all pairs and weights."""
    weights = sorted({case.content_weight for case in found})
    conflicts = {case.conflict for case in found} - {None}

    def runs(optimizer: str, conflict: float | None) -> list[Run]:
        return [each for weight in weights for each in found[Case(optimizer, weight, conflict)]]

    ratios = {}
    for optimizer in OPTIMIZERS:
        if optimizer != 'adam':
            compared = _ratios(runs(optimizer, None), runs('adam', None))
            ratios |= {f'{name}_{optimizer}_vs_adam': value for name, value in compared.items()}
        for conflict in sorted(conflicts):
            compared = _ratios(runs(optimizer, conflict), runs(optimizer, None))
            ratios |= {f'{name}_{optimizer}_projected_below_{conflict:g}_vs_not': value
                       for name, value in compared.items() if name != 'seconds'}
    return ratios


def _ratios(over: list[Run], under: list[Run]) -> dict[str, dict]:
    return {name: ratio([getattr(each, field) for each in over],
                        [getattr(each, field) for each in under])
            for name, field in (('style_loss', 'style'), ('content_loss', 'content'),
                                ('seconds', 'seconds'))}


def pareto_table(found: dict[Case, list[Run]], rates: dict[str, float]) -> Table:
    """Return the table of all cases."""
    filled = table('AD loss against content loss', 'optimiser, weight', 'lr', 'AD loss',
                   'content loss', 'seconds', 'projected', 'cosine')
    for case, runs in found.items():
        filled.add_row(
            str(case), f'{rates[case.optimizer]:g}', shown(spread([r.style for r in runs]), 4),
            shown(spread([r.content for r in runs]), 4),
            shown(spread([r.seconds for r in runs]), 2),
            shown(spread([r.trigger_rate for r in runs]), 2),
            shown(spread([r.cosine for r in runs]), 2))
    return filled


def pareto_chart(found: dict[Case, list[Run]]) -> np.ndarray:
    """Draw AD loss over content loss: a line through the content weights for each optimiser."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for case, runs in found.items():
        if case.conflict is None:
            across, up = lines.setdefault(case.optimizer, ([], []))
            across.append(float(np.mean([each.content for each in runs])))
            up.append(float(np.mean([each.style for each in runs])))
    return line_chart('AD loss against content loss, one point a content weight', 'content loss',
                      'AD loss', lines, marks=True)


def compare_losses(bench: Bench) -> dict[str, dict]:
    """Return per style loss what it makes of the pairs, in how long, with how much memory."""
    found = {}
    for loss in ('l1', 'kl'):
        settings = replace(bench.settings, loss=loss)
        runs = [stylised(pair, bench.backbone, settings) for pair in bench.few]
        rows = [grades(bench.judge, pair, each.image)
                for pair, each in zip(bench.few, runs, strict=True)]
        found[loss] = {
            **{name: spread([row[name] for row in rows]) for name in GRADES},
            'seconds': spread([each.seconds for each in runs]),
            'peak MB': spread([loss_memory(loss, bench.scope.memory_size, bench.attention,
                                           bench.chosen.backbone)]),
        }
    return found


def compare_methods(
    made: dict[str, Method], pairs: list[Pair], judge: Judge | None,
) -> tuple[dict[str, dict], dict[str, list[np.ndarray]]]:
    """Return grades and seconds of every method over the pairs, and its pictures."""
    found, pictures = {}, {}
    for name, method in made.items():
        rows, seconds = [], []
        pictures[name] = []
        for pair in pairs:
            begun = time.process_time()
            picture = method(pair)
            seconds.append(time.process_time() - begun)
            pictures[name].append(picture)
            rows.append(grades(judge, pair, picture))
        found[name] = {grade: spread([row[grade] for row in rows]) for grade in GRADES}
        found[name]['seconds'] = spread(seconds)
        console.print(f'{name}: {shown(found[name]["seconds"], 2)} s')
    return found, pictures


def grades_table(title: str, rows: dict[str, dict]) -> Table:
    """Return a table of `spread`s: a row for each name, a column for each of its figures."""
    columns = list(next(iter(rows.values())))
    filled = table(title, '', *columns)
    for name, row in rows.items():
        filled.add_row(name, *(shown(row[column], 2) for column in columns))
    return filled


def gpn_rows(found: dict[str, list[Run]], steps: int, weight: float) -> dict[str, dict]:
    """Return saved backward passes and the losses of each share."""
    return {name: {
        'passes saved': spread([1 - each.full_steps / steps for each in runs]),
        'sum of losses': spread([each.loss(weight) for each in runs]),
        'seconds': spread([each.seconds for each in runs]),
    } for name, runs in found.items()}


def grid(pairs: list[Pair], pictures: dict[str, list[np.ndarray]], side: int = 160) -> np.ndarray:
    """Return rows of pairs: content, style, then what each method made of them."""
    named = [('content', [pair.content for pair in pairs]),
             ('style', [pair.style for pair in pairs]),
             *((name, made) for name, made in pictures.items() if 'photograph' not in name)]
    # What stands in brackets would not fit over a picture.
    columns = [np.vstack([panel(picture, name.partition(' (')[0], (side, side))
                          for picture in column]) for name, column in named]
    return np.hstack(columns)


def options() -> argparse.Namespace:
    """Return what was asked for."""
    made = parser(__doc__)
    made.add_argument('--pair', type=Path, nargs=2, action='append', default=[],
                      metavar=('CONTENT', 'STYLE'), help='pictures to stylise instead')
    made.add_argument('--size', type=int, help='pixels a side of all pictures')
    made.add_argument('--backbone', type=Path, default=ROOT / 'models' / SHIPPED,
                      help='folder of the backbone; default: the shipped one')
    made.add_argument('--attention', choices=ATTENTIONS, help='of what, in all parts but the '
                      'comparison of methods; default: the first of them that the folder has')
    made.add_argument('--weights', type=Path, default=WEIGHTS,
                      help='folder of squeezenet_v1.0.npz and microast_*.pth')
    made.add_argument('--vgg', type=Path, help='folder of cd_vgg19_small16x_*.pth; '
                      'default: --weights')
    made.add_argument('--grid', type=Path, default=OUT / 'latents_grid.jpg',
                      help='file for the pictures of all methods')
    made.add_argument('--only', choices=tuple(PARTS), nargs='+',
                      help='parts to run; default: all')
    return made.parse_args()


def key(name: str) -> str:
    """Return a name as part of a key of the JSON file: letters, digits and underscores."""
    return re.sub(r'\W+', '_', name).strip('_').lower()


def write(path: Path, picture: np.ndarray) -> None:
    """Write a picture, uint8 RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    console.print(f'wrote {path}')


def optimizers(bench: Bench) -> Part:
    """Sweep the learning rates, then measure all optimisers at their best."""
    sweep_settings = replace(bench.settings, steps=bench.scope.swept)
    sweep = swept(bench.pairs[0], bench.backbone, sweep_settings, RATES)
    rates = best(sweep)
    weights = [share * bench.settings.content_weight for share in bench.scope.weights]
    found = pareto(bench.few, bench.backbone, bench.settings, rates, weights, CONFLICTS)
    write(OUT / 'latents_pareto.png', pareto_chart(found))
    tried = table(f'Sum of losses after {sweep_settings.steps} steps', 'optimiser',
                  *(f'lr {rate:g}' for rate in RATES))
    for name, losses in sweep.items():
        tried.add_row(name, *(f'{losses[rate]:.4f}' for rate in RATES))
    cases = {str(case): [{'style': each.style, 'content': each.content, 'seconds': each.seconds,
                          'trigger_rate': each.trigger_rate, 'cosine': each.cosine}
                         for each in runs]
             for case, runs in found.items()}
    return Part([tried, pareto_table(found, rates)], optimizer_ratios(found),
                {'learning_rates': sweep, 'cases': cases})


def losses(bench: Bench) -> Part:
    """Compare L1 on attention outputs with KL on attention maps."""
    rows = compare_losses(bench)
    ratios = {f'{key(name)}_kl_vs_l1':
              ratio(rows['kl'][name]['rounds'], rows['l1'][name]['rounds'])
              for name in ('sliced Wasserstein', 'seconds', 'peak MB')}
    title = f'L1 against KL (peak memory at {bench.scope.memory_size} pixels a side)'
    return Part([grades_table(title, rows)], ratios, rows)


def gpn(bench: Bench) -> Part:
    """Compare predicted gradients with true ones, and with fewer steps."""
    found = predicted(bench.few, bench.backbone, bench.settings, bench.scope.shares)
    rows = gpn_rows(found, bench.settings.steps, bench.settings.content_weight)
    whole = rows['all true']['sum of losses']['rounds']
    ratios = {f'loss_{key(name)}_vs_all_true':
              ratio(row['sum of losses']['rounds'], whole)
              for name, row in rows.items() if name != 'all true'}
    return Part([grades_table('Predicted gradients', rows)], ratios, rows)


def comparison(bench: Bench) -> Part:
    """Compare all ways to stylise; write the grid of their pictures."""
    settings = Settings(steps=bench.scope.compared, size=bench.scope.size)
    weights = bench.chosen.weights
    made = methods(bench.backbones, weights, bench.chosen.vgg or weights, settings)
    rows, pictures = compare_methods(made, bench.pairs, bench.judge)
    write(bench.chosen.grid, grid(bench.pairs, pictures))
    ours, *others = rows
    ratios = {f'{key(grade)}_{key(ours)}_vs_{key(other)}':
              ratio(rows[ours][grade]['rounds'], rows[other][grade]['rounds'])
              for other, grade in itertools.product(others, ('style distance', 'seconds'))
              if (bench.judge is not None or grade == 'seconds') and 'photograph' not in other}
    return Part([grades_table('Ways to stylise', rows)], ratios, rows)


PARTS = {'optimizers': optimizers, 'losses': losses, 'gpn': gpn, 'methods': comparison}


def main() -> None:
    """Measure, show and write."""
    chosen = options()
    scope = QUICK if chosen.quick else Scope()
    scope = replace(scope, size=chosen.size or scope.size)
    torch.set_num_threads(1)
    pairs = given_pairs(scope.size, chosen.pair) or default_pairs(scope.size, scope.pairs)
    backbones = backbones_at(chosen.backbone)
    attention = chosen.attention or next(iter(backbones))
    settings = Settings(steps=scope.steps, size=scope.size, gpn_warmup=min(10, scope.steps // 2))
    bench = Bench(pairs, backbones, attention, judge_at(chosen.weights), scope,
                  settings.completed(backbones[attention].recommended), chosen)
    parts = {name: PARTS[name](bench) for name in chosen.only or PARTS}
    tables = [each for part in parts.values() for each in part.tables]
    for each in tables[:-1]:
        console.print(each)
    ratios = {name: value for part in parts.values() for name, value in part.ratios.items()}
    finish('latents', tables[-1], ratios, {name: part.measured for name, part in parts.items()},
           attention=attention, settings={**asdict(scope), 'pairs': [pair.name for pair in pairs],
                     'distillation': bench.settings.to_dict(), 'quick': chosen.quick})


if __name__ == '__main__':
    run(main)

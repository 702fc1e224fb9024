"""Claim: Muon needs fewer steps, and less time, than AdamW to the same loss (the paper: 3.2x).

Ours, torch.optim.Muon, AdamW, Lion and SGD (Nesterov) on three trainings of the suite, made small:
the style student, the denoiser of the tiny backbone and the detector. Each optimiser has its own
grid of learning rates, which goes on where the best one lies at its edge; with the best, it is
run again from other seeds. What is compared is the loss of averaged weights on held-out batches
(benchmarks/_race.py says how and why), without weight decay.

How to read it: `<task>_steps_<optimiser>` is the steps that AdamW took to its final loss over the
steps that this one took to the same loss: above 1, it was faster; `<task>_seconds_...` the same in
CPU seconds of one thread. A dash: it did not get there in most of its runs; a range that begins
at 0: not in all. `<task>_loss_...` is its loss over AdamW's after as many steps, and
`<task>_loss_in_time_...` after as many seconds: below 1 is better. A learning rate that is still
at the edge of its grid is marked with !.

torch.optim.Muon takes no convolutions; it gets them as matrices here (muon_ad.optim.torch_muon).
"""

import argparse
import math
from collections.abc import Sequence

import cv2
import torch
from _common import console
from _common import finish
from _common import OUT
from _common import parser
from _common import ratio
from _common import run
from _common import shown
from _common import spread
from _common import table
from _optimizer_tasks import QUICK
from _optimizer_tasks import Sizes
from _optimizer_tasks import TASKS
from _race import Against
from _race import against
from _race import Curve
from _race import NAMES
from _race import race
from _race import REFERENCE
from _race import Sweep
from _race import sweep
from _race import Task
from rich.table import Table

from muon_ad.chart import line_chart
from muon_ad.train.images import DataError

STEPS = {'style': 200, 'denoise': 120, 'detector': 160}
CLAIMED = 3.2


def reached(ratios: Sequence[float | None]) -> dict:
    """Return the spread of ratios of which None means "not at all": less than any other."""
    found = spread([0.0 if value is None else value for value in ratios])
    return {**found, 'median': found['median'] or None, 'rounds': list(ratios)}


def finite(losses: Sequence[float]) -> list[float | None]:
    """Return the losses with None for those of runs that diverged."""
    return [loss if math.isfinite(loss) else None for loss in losses]


def compare(task: str, found: dict[str, Against]) -> dict[str, dict]:
    """Return the named ratios of every optimiser but the reference."""
    adamw = finite(found[REFERENCE].equal_steps)
    ratios = {}
    for name, figures in found.items():
        if name == REFERENCE:
            continue
        ratios[f'{task}_steps_{name}'] = reached(figures.steps_ratio)
        ratios[f'{task}_seconds_{name}'] = reached(figures.seconds_ratio)
        ratios[f'{task}_loss_{name}'] = ratio(finite(figures.equal_steps), adamw)
        ratios[f'{task}_loss_in_time_{name}'] = ratio(finite(figures.equal_seconds), adamw)
    return ratios


def fill(rows: Table, task: str, swept: dict[str, Sweep], found: dict[str, Against]) -> None:
    """Add a row for each optimiser."""
    for name, figures in found.items():
        rate = f'{swept[name].best:.2g}{" !" if swept[name].beyond() else ""}'
        milliseconds = spread([1000 * value for value in figures.step_seconds])
        rows.add_row(
            f'{task}: {name}', rate, shown(spread(finite(figures.equal_steps)), 3),
            shown(spread(finite(figures.equal_seconds)), 3), shown(milliseconds, 0),
            shown(reached(figures.steps_ratio), 2), shown(reached(figures.seconds_ratio), 2),
        )


def draw_curves(task: str, curves: dict[str, list[Curve]], steps: int) -> None:
    """Write a chart of the median loss over steps, without the first tenth, where it falls."""
    lines = {}
    for name, runs in curves.items():
        judged = [step for step in runs[0].steps if 0.1 * steps <= step <= steps]
        lines[name] = judged, [spread([each.at(step) for each in runs])['median']
                               for step in judged]
    picture = line_chart(f'{task}: held-out loss', 'steps', 'loss', lines)
    OUT.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(OUT / f'optimizers_{task}.png'), picture[..., ::-1])


def measure(task: Task, steps: int, rates: int, extensions: int, seeds: int) -> tuple:
    """Sweep and race; return the sweeps, the curves and the comparison."""
    swept = sweep(task, NAMES, steps, rates, extensions, console.print)
    curves = race(task, swept, steps, seeds, console.print)
    found = {name: against(curves[REFERENCE], runs, steps) for name, runs in curves.items()}
    return swept, curves, found


def summary(task: Task, steps: int, swept: dict[str, Sweep], curves: dict[str, list[Curve]],
            found: dict[str, Against]) -> dict:
    """Return what the report says about a task."""
    return {
        'about': task.about, 'steps': steps,
        'parameters': sum(each.numel() for each in task.make().parameters()),
        'optimizers': {
            name: {
                'rates': dict(zip((f'{rate:.3g}' for rate in tried.losses),
                                  finite(list(tried.losses.values())), strict=True)),
                'best': tried.best, 'at_the_edge': tried.beyond() is not None,
                'figures': vars(found[name]),
                'curves': [{'steps': each.steps, 'losses': finite(each.losses)}
                           for each in curves[name]],
            }
            for name, tried in swept.items()
        },
    }


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    made = parser(__doc__)
    made.add_argument('--task', choices=sorted(TASKS), help='one of them alone')
    made.add_argument('--steps', type=int, help=f'of every run, instead of {STEPS}')
    made.add_argument('--seeds', type=int, default=3, help='of the runs at the best rate')
    return made


def main() -> int:
    """Measure, show and write; return the exit status."""
    chosen = options().parse_args()
    torch.set_num_threads(1)
    quick = chosen.quick
    rates, extensions, seeds = (2, 0, 1) if quick else (5, 2, chosen.seeds)
    rows = table('Optimisers', 'task', 'rate', 'loss', "loss in AdamW's time", 'ms a step',
                 "steps to AdamW's loss", "time to AdamW's loss")
    measured, ratios = {}, {}
    for name in [chosen.task] if chosen.task else TASKS:
        steps = chosen.steps or (4 if quick else STEPS[name])
        try:
            task = TASKS[name](QUICK if quick else Sizes())
        except DataError as error:
            console.print(f'no {name}: {error}')
            continue
        swept, curves, found = measure(task, steps, rates, extensions, seeds)
        fill(rows, name, swept, found)
        ratios |= compare(name, found)
        draw_curves(name, curves, steps)
        measured[name] = summary(task, steps, swept, curves, found)
    if not measured:
        console.print('nothing was measured')
        return 1
    claim = {'claimed': CLAIMED, 'measured': {
        name: ratios[f'{name}_steps_muon']['median'] for name in measured}}
    settings = {'rates': rates, 'extensions': extensions, 'seeds': seeds, 'quick': quick}
    title = f'optimizers_{chosen.task}' if chosen.task else 'optimizers'
    finish(title, rows, ratios, measured, claim=claim, settings=settings)
    return 0


if __name__ == '__main__':
    run(main)

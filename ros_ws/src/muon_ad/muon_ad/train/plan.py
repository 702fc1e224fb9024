"""Shows the curriculum of a training as a table and a picture: `muon-ad train --plan`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import numpy as np

from muon_ad.chart import Line
from muon_ad.chart import line_chart
from muon_ad.picture_files import write_picture
from muon_ad.train.curriculum import Curriculum
from muon_ad.train.curriculum import LENGTH
from muon_ad.train.curriculum import PHASES

DRIFT = 1.05    # how much a loss grows from one validation to the next, in the examples drawn
_PANEL = (960, 300)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `muon-ad train --plan`."""
    parser.add_argument('--plan', action='store_true', required=True,
                        help='show the schedules; `muon-ad train style`, `train detector` and so '
                        'on train')
    parser.add_argument('--steps', type=int, default=LENGTH,
                        help=f'length of the training (default {LENGTH})')
    parser.add_argument('--rate', type=float, default=Curriculum.rate,
                        help=f'learning rate (default {Curriculum.rate:g})')
    parser.add_argument('-o', '--out', type=Path, metavar='PICTURE',
                        help='draw the schedules, too')


def run(args: argparse.Namespace) -> int:
    """Print the table and write the picture; returns the exit status."""
    plan = Curriculum(args.steps, rate=args.rate)
    print(table(plan))
    if args.out:
        write_picture(args.out, picture(plan))
        print(f'picture: {args.out}')
    return 0


def table(plan: Curriculum) -> str:
    """Return what each phase asks for, a row each."""
    rows = [('phase', 'steps', 'lambda_style', 'learning rate', 'prune below', 'keep at least',
             'style parameters')]
    first = 0
    for number, (phase, end) in enumerate(zip(PHASES, plan.ends, strict=True)):
        if first < end:
            steps = first, end - 1
            rates, kept = ([f'{schedule(step):.3g}' for step in steps]
                           for schedule in (plan.learning_rate, plan.keep_rate))
            rows.append((
                f'{number + 1} {phase.name}', f'{first}-{end - 1}',
                f'{plan.style:g}' if number == 0 else _balance_text(plan, first),
                _span(rates), f'mu {phase.deviations:+g} s', _span(kept),
                'frozen' if plan.style_frozen(first) else 'trained',
            ))
        first = end
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _balance_text(plan: Curriculum, step: int) -> str:
    low, high = plan.limits
    return f'{low:g}..{high:g} by validation' if not plan.style_frozen(step) else 'as it is'


def _span(ends: list[str]) -> str:
    return ends[0] if ends[0] == ends[1] else f'{ends[0]} -> {ends[1]}'


def picture(plan: Curriculum) -> np.ndarray:
    """Draw all schedules below one another, uint8 [H, W, 3] RGB."""
    # A step-like schedule needs points on both sides of each step.
    steps = np.unique([
        *np.linspace(0, plan.steps - 1, 400).round(),
        *(min(max(0, end + side), plan.steps - 1) for end in plan.ends for side in (-1, 0)),
    ]).astype(int)
    panels = (
        ('Learning rate', 'rate', {'rate': _line(steps, plan.learning_rate)}),
        ('Balance: lambda_style, where from one validation to the next',
         'lambda', {
             'content loss grows by 5 %': _drifting(plan, 1, DRIFT),
             'both stay as they are': _drifting(plan, 1, 1),
             'style loss grows by 5 %': _drifting(plan, DRIFT, 1),
         }),
        ('Pruning: share of normally distributed scores that is kept', 'share', {
            'threshold alone': _line(steps, lambda step: _kept(plan, step)),
            'at least (keep rate)': _line(steps, plan.keep_rate),
            'both': _line(steps, lambda step: max(_kept(plan, step), plan.keep_rate(step))),
        }),
        ('Style parameters: 0 trained, 1 frozen', '', {
            'frozen': _line(steps, lambda step: float(plan.style_frozen(step))),
        }),
    )
    return np.vstack([line_chart(title, 'step', up, lines, _PANEL) for title, up, lines in panels])


def _line(steps: np.ndarray, schedule: Callable[[int], float]) -> Line:
    return steps, [schedule(int(step)) for step in steps]


def _drifting(plan: Curriculum, style_growth: float, content_growth: float) -> Line:
    """Return lambda over a run in which the losses of validation grow by so much each time."""
    balance, style, content = plan.start(), 1.0, 1.0
    steps, values = [0], [balance.style]
    for step in range(plan.validate_every, plan.steps, plan.validate_every):
        balance = plan.validated(balance, step, style, content)
        style, content = style * style_growth, content * content_growth
        steps.append(step)
        values.append(balance.style)
    return steps, values


def _kept(plan: Curriculum, step: int) -> float:
    return 1 - NormalDist().cdf(plan.threshold(step, 0, 1))

"""Runs of attention distillation for the benchmark of latents: sweeps, weights, losses, GPN."""

import itertools
import time
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np
from _common import console
from _pairs import Pair

from muon_ad.distill.backbone import Backbone
from muon_ad.distill.settings import Settings
from muon_ad.distill.stylize import stylize

OPTIMIZERS = ('adam', 'adamw', 'muon', 'latent-muon')
_LAST = 5       # time-steps differ in loss, and the last few steps lie close together


@dataclass(frozen=True)
class Run:
    """One stylisation: final losses (mean of the last steps) and CPU seconds.

    `full_steps` are those with a backward pass. `trigger_rate` is the share of steps in which the
    style's gradient was projected, `cosine` its mean cosine to the content's before that: None
    where nobody looked.
    """

    style: float
    content: float
    seconds: float
    full_steps: int
    trigger_rate: float | None
    cosine: float | None
    image: np.ndarray

    def loss(self, content_weight: float) -> float:
        """Return the sum that was minimised."""
        return self.style + content_weight * self.content


@dataclass(frozen=True)
class Case:
    """What the runs of one row have in common."""

    optimizer: str
    content_weight: float
    conflict: float | None

    def __str__(self) -> str:
        projected = '' if self.conflict is None else f', projected below {self.conflict:g}'
        return f'{self.optimizer}, content {self.content_weight:g}{projected}'


def stylised(pair: Pair, backbone: Backbone, settings: Settings) -> Run:
    """Run one stylisation. CPU seconds: those of the clock tell of the machine's other work."""
    begun = time.process_time()
    result = stylize(pair.content, pair.style, backbone, settings)
    seconds = time.process_time() - begun
    last = result.history[-_LAST:]
    return Run(
        float(np.mean([record.style for record in last])),
        float(np.mean([record.content for record in last])),
        seconds, result.full_steps, result.report.get('trigger_rate'),
        result.report.get('cosine_before'), result.image,
    )


def swept(
    pair: Pair, backbone: Backbone, settings: Settings, rates: Sequence[float],
) -> dict[str, dict[float, float]]:
    """Return {optimizer: {learning rate: minimised sum}} on one pair."""
    found: dict[str, dict[float, float]] = {}
    for optimizer, rate in itertools.product(OPTIMIZERS, rates):
        run = stylised(pair, backbone, replace(settings, optimizer=optimizer, lr=rate))
        found.setdefault(optimizer, {})[rate] = run.loss(settings.content_weight)
    return found


def best(sweep: dict[str, dict[float, float]]) -> dict[str, float]:
    """Return the rate with the least loss for each optimiser."""
    return {name: min(losses, key=losses.get) for name, losses in sweep.items()}


def pareto(
    pairs: Sequence[Pair], backbone: Backbone, settings: Settings, rates: dict[str, float],
    weights: Iterable[float], conflicts: Iterable[float | None],
) -> dict[Case, list[Run]]:
    """Run every optimiser at its rate with every weight and threshold, on every pair."""
    found: dict[Case, list[Run]] = {}
    for optimizer, weight, conflict in itertools.product(rates, weights, conflicts):
        case = Case(optimizer, weight, conflict)
        chosen = replace(settings, optimizer=optimizer, lr=rates[optimizer],
                         content_weight=weight, conflict=conflict)
        found[case] = [stylised(pair, backbone, chosen) for pair in pairs]
        console.print(f'{case}: AD {mean_of(found[case], "style"):.4f}, '
                      f'content {mean_of(found[case], "content"):.4f}')
    return found


def predicted(
    pairs: Sequence[Pair], backbone: Backbone, settings: Settings, shares: Iterable[float],
) -> dict[str, list[Run]]:
    """Run with each share of predicted gradients, and without in as many steps as those had full.

    The second is what a prediction must beat to be worth anything.
    """
    found: dict[str, list[Run]] = {}
    for share in shares:
        runs = [stylised(pair, backbone, replace(settings, gpn_share=share)) for pair in pairs]
        found[f'GPN {share:.0%}' if share else 'all true'] = runs
        if share:
            fewer = replace(settings, steps=runs[0].full_steps)
            found[f'{fewer.steps} true steps alone'] = [
                stylised(pair, backbone, fewer) for pair in pairs]
    return found


def mean_of(runs: Sequence[Run], name: str) -> float:
    """Return the mean of a field over the runs."""
    return float(np.mean([getattr(run, name) for run in runs]))

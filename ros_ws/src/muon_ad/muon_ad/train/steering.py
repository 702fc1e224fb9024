"""Applies a schedule to a training: learning rate, frozen parameters and weights of losses."""

import argparse
import math
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from muon_ad.train.curriculum import Balance
from muon_ad.train.curriculum import Curriculum
from muon_ad.train.loop import check_finite
from muon_ad.train.optimizers import NAMES

COLUMNS = ('rate', 'lambda', 'trend')   # of the log


def add_arguments(parser: argparse.ArgumentParser, rates: Mapping[str, float]) -> None:
    """Declare the options that all trainers share; `rates` is the default rate by optimiser."""
    parser.add_argument('--optimizer', choices=NAMES, default=NAMES[0])
    defaults = ', '.join(f'{name} {rate:g}' for name, rate in rates.items())
    parser.add_argument('--rate', type=float, help=f'peak learning rate (default: {defaults})')
    parser.add_argument('--curriculum', choices=('on', 'off'), default='on',
                        help='three phases with a balance of losses by validation (see `muon-ad '
                        'train --plan`); off: only a learning rate that falls')


@dataclass(frozen=True)
class RiseAndFall:
    """The learning rate of a training without a curriculum.

    A line up to `rate` over `rise` steps; from step `fall_from` half a cosine down to a hundredth.
    """

    steps: int
    rate: float
    rise: int
    fall_from: float

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step."""
        up = min(1.0, (step + 1) / self.rise)
        down = max(0.0, (step - self.fall_from) / max(1, self.steps - self.fall_from))
        return self.rate * up * (0.01 + 0.99 * (1 + math.cos(math.pi * down)) / 2)


class Steering:
    """Prepares each step of a training as its plan asks for.

    Where that is a curriculum, the parameters of `style` are frozen in its last phase, and
    `validate`, where given, is called as often as it wants: it returns the style and the content
    loss, both above 0, of pictures that are not learnt from.
    """

    def __init__(
        self, optimizer: Optimizer, plan: Curriculum | RiseAndFall, style: nn.Module,
        validate: Callable[[], tuple[float, float]] | None = None,
    ) -> None:
        self._optimizer, self._plan = optimizer, plan
        self._style, self._validate = style, validate
        self._curriculum = plan if isinstance(plan, Curriculum) else None
        self._balance = self._curriculum and self._curriculum.start()

    def prepare(self, step: int) -> dict[str, float]:
        """Set all for the step of this number; return what to log of it, by COLUMNS.

        Raises DivergedError where validation is not finite.
        """
        rate = self._plan.learning_rate(step)
        for group in self._optimizer.param_groups:
            group['lr'] = rate
        plan = self._curriculum
        if plan is None:
            return {'rate': rate}
        self._style.requires_grad_(not plan.style_frozen(step))
        if self._validate and step % plan.validate_every == 0:
            losses = self._validate()
            check_finite(sum(losses), step)
            self._balance = plan.validated(self._balance, step, *losses)
        trend = {'trend': self._balance.trend[-1]} if self._balance.trend else {}
        return {'rate': rate, 'lambda': self._balance.style, **trend}

    def factors(self) -> dict[str, float]:
        """Return what to multiply the trainer's weights of `style` and `content` losses by."""
        if self._curriculum is None:
            return {'style': 1.0, 'content': 1.0}
        return self._curriculum.factors(self._balance)

    def state(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint: empty without a curriculum."""
        return self._balance.to_dict() if self._balance else {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up the `state` of a run with the same settings."""
        if self._curriculum is not None:
            self._balance = Balance.from_dict(state)

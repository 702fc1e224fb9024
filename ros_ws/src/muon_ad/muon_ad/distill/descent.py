"""The optimisation of latents, step by step, as a state that can be saved and continued."""

import math
from dataclasses import asdict

import torch
from torch import nn

from muon_ad.distill.gpn import GradientPredictor
from muon_ad.distill.guidance import Guidance
from muon_ad.distill.objective import Losses
from muon_ad.distill.objective import Objective
from muon_ad.distill.result import Record
from muon_ad.distill.settings import Settings
from muon_ad.optim.registry import make_optimizer


class NotFinite(FloatingPointError):
    """Something became NaN or infinite; the latents are those before the step."""


class Descent:
    """Latents, optimiser and step counter of one stylisation.

    All randomness comes from the seed at the start, so that the rest is determined by this state.
    Every sample is a parameter of its own: no optimiser mixes the samples of a batch.
    """

    def __init__(
        self, objective: Objective, settings: Settings, timesteps: list[int | float],
    ) -> None:
        """Begin; `timesteps` are spread evenly over the steps, in their order."""
        self._objective = objective
        self._settings = settings
        self._timesteps = timesteps
        start = objective.start()
        self._samples = [nn.Parameter(sample.clone()) for sample in start.split(1)]
        self._optimizer = make_optimizer(settings.optimizer, self._samples, settings.lr)
        self._guidance = Guidance(settings)
        self._predictor = None
        if settings.gpn_share:
            self._predictor = GradientPredictor(objective.content, settings.seed)
        self.step = 0
        self.history: list[Record] = []

    @property
    def latents(self) -> torch.Tensor:
        """[B, C, h, w], detached."""
        return torch.cat(self._samples).detach()

    @property
    def full_steps(self) -> int:
        """How many steps had a true gradient."""
        return len(self.history)

    def advance(self) -> None:
        """Do one step. Raises NotFinite and leaves the latents where they were."""
        before = self.latents
        gradient = self._predicted() if predicts(self.step, self._settings) else self._true()
        for sample, part in zip(self._samples, gradient.split(1), strict=True):
            sample.grad = part
        self._optimizer.step()
        if not self.latents.isfinite().all():
            self._place(before)
            raise NotFinite('the latents are')
        self.step += 1

    def _predicted(self) -> torch.Tensor:
        return self._predictor.predict(self.latents, self._done)

    @property
    def _done(self) -> float:
        return self.step / self._settings.steps

    def _true(self) -> torch.Tensor:
        timestep = self._timesteps[self.step * len(self._timesteps) // self._settings.steps]
        losses = self._objective.losses(torch.cat(self._samples), timestep)
        record = _record(self.step + 1, timestep, losses)
        gradient = torch.cat(self._guidance.gradients(losses, self._samples))
        if not gradient.isfinite().all():
            raise NotFinite('the gradient is')
        if self._predictor is not None:
            self._predictor.learn(self.latents, gradient, self._done)
        self.history.append(record)
        return gradient

    @torch.no_grad()
    def _place(self, latents: torch.Tensor) -> None:
        for sample, part in zip(self._samples, latents.split(1), strict=True):
            sample.copy_(part)

    def report(self) -> dict[str, float]:
        """Return `Result.report`."""
        predictor = {} if self._predictor is None else self._predictor.report()
        return {**self._guidance.report(), **predictor}

    def state_dict(self) -> dict:
        """Return all that `load_state_dict` needs to continue."""
        return {
            'step': self.step, 'latents': self.latents, 'optimizer': self._optimizer.state_dict(),
            'guidance': self._guidance.state_dict(),
            'predictor': None if self._predictor is None else self._predictor.state_dict(),
            'history': [asdict(record) for record in self.history],
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict` of a descent with the same settings."""
        self.step = state['step']
        self._place(state['latents'])
        self._optimizer.load_state_dict(state['optimizer'])
        self._guidance.load_state_dict(state['guidance'])
        if self._predictor is not None:
            self._predictor.load_state_dict(state['predictor'])
        self.history = [Record(**record) for record in state['history']]


def predicts(step: int, settings: Settings) -> bool:
    """Whether a step (the first is 0) uses a predicted gradient: `gpn_share` of those after the
    warm-up, spread evenly.
    """
    after = step - settings.gpn_warmup
    if after < 0:
        return False
    return math.floor((after + 1) * settings.gpn_share) > math.floor(after * settings.gpn_share)


def _record(step: int, timestep: int | float, losses: Losses) -> Record:
    """Raises NotFinite for a loss that is none."""
    values = {'style': losses.style.item(), 'content': losses.content.item()}
    if losses.clip is not None:
        values['clip'] = losses.clip.item()
    for name, value in values.items():
        if not math.isfinite(value):
            raise NotFinite(f'the {name} loss is')
    return Record(step, timestep, **values)

"""How much noise there is at a time-step, and deterministic moves between time-steps.

Diffusion (Stable Diffusion 1, 2, XL, Turbo) and flow matching (Stable Diffusion 3) alike write
the noisy latents as alpha * latents + sigma * noise; they differ in alpha and sigma, and in what
the network predicts.
"""

from abc import ABC
from abc import abstractmethod
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from diffusers import FlowMatchEulerDiscreteScheduler

from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.folders import read_config

PREDICTIONS = ('epsilon', 'sample', 'v_prediction')
_FILE = 'scheduler_config.json'


class NoiseSchedule(ABC):
    """The forward process of a backbone."""

    @abstractmethod
    def timesteps(self, count: int) -> list[int | float]:
        """Return up to `count` different time-steps, noisiest first."""

    @abstractmethod
    def levels(self, timestep: int | float | None) -> tuple[float, float]:
        """Return alpha and sigma at a time-step; (1, 0) for None, the clean latents."""

    @abstractmethod
    def split(
        self, latents: torch.Tensor, prediction: torch.Tensor, timestep: int | float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the clean latents and the noise that a prediction implies."""

    @abstractmethod
    def target(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: int | float,
    ) -> torch.Tensor:
        """Return what a perfect network would predict: `split` gives these two back."""

    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: int | float,
    ) -> torch.Tensor:
        """Return alpha * latents + sigma * noise."""
        alpha, sigma = self.levels(timestep)
        return alpha * latents + sigma * noise

    def step(
        self, latents: torch.Tensor, prediction: torch.Tensor, timestep: int | float,
        target: int | float | None,
    ) -> torch.Tensor:
        """Move to the time-step `target`: the clean part and the noise, mixed anew.

        DDIM with eta 0 (arXiv 2010.02502, equation 12), or an Euler step of flow matching.
        """
        return self.add_noise(*self.split(latents, prediction, timestep), target)


class Diffusion(NoiseSchedule):
    """Variance-preserving diffusion, with the time-steps of DDIM as the reference has them."""

    def __init__(self, scheduler: DDIMScheduler) -> None:
        self._scheduler = scheduler
        self._prediction = scheduler.config.prediction_type
        if self._prediction not in PREDICTIONS:
            raise BackboneError(f'prediction_type is {self._prediction!r}; expected one of '
                                f'{PREDICTIONS}')

    def timesteps(self, count: int) -> list[int | float]:
        """Return up to `count` whole time-steps: no more than there are in training."""
        most = self._scheduler.config.num_train_timesteps
        self._scheduler.set_timesteps(min(count, most))
        # Stable Diffusion's offset of one leads past the last where all are asked for.
        found = self._scheduler.timesteps.clamp(max=most - 1).tolist()
        return list(dict.fromkeys(found))

    def levels(self, timestep: int | float | None) -> tuple[float, float]:
        """Return the roots of the cumulated alpha and of its complement."""
        if timestep is None:
            return 1.0, 0.0
        kept = float(self._scheduler.alphas_cumprod[round(timestep)])
        return kept ** 0.5, (1 - kept) ** 0.5

    def split(
        self, latents: torch.Tensor, prediction: torch.Tensor, timestep: int | float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Invert what the network predicts: the noise, the latents, or v (arXiv 2202.00512)."""
        alpha, sigma = self.levels(timestep)
        if self._prediction == 'epsilon':
            return (latents - sigma * prediction) / alpha, prediction
        if self._prediction == 'sample':
            return prediction, (latents - alpha * prediction) / sigma
        return alpha * latents - sigma * prediction, alpha * prediction + sigma * latents

    def target(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: int | float,
    ) -> torch.Tensor:
        """Return the noise, the latents, or v = alpha * noise - sigma * latents."""
        if self._prediction == 'epsilon':
            return noise
        if self._prediction == 'sample':
            return latents
        alpha, sigma = self.levels(timestep)
        return alpha * noise - sigma * latents


class FlowMatching(NoiseSchedule):
    """Rectified flow: sigma falls from 1 to 0 on a straight line to the latents."""

    def __init__(self, scheduler: FlowMatchEulerDiscreteScheduler) -> None:
        self._scheduler = scheduler

    def timesteps(self, count: int) -> list[int | float]:
        """Return `count` time-steps, sigma * training steps each; any count is possible."""
        self._scheduler.set_timesteps(count)
        return self._scheduler.timesteps.tolist()

    def levels(self, timestep: int | float | None) -> tuple[float, float]:
        """Return 1 - sigma and sigma."""
        sigma = 0.0 if timestep is None else timestep / self._scheduler.config.num_train_timesteps
        return 1 - sigma, sigma

    def split(
        self, latents: torch.Tensor, prediction: torch.Tensor, timestep: int | float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The network predicts noise minus latents, so both lie on the line through here."""
        alpha, sigma = self.levels(timestep)
        return latents - sigma * prediction, latents + alpha * prediction

    def target(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: int | float,
    ) -> torch.Tensor:
        """Return the direction from the latents to the noise."""
        return noise - latents


def load_noise_schedule(folder: Path) -> NoiseSchedule:
    """Return the schedule of a diffusers folder. Raises BackboneError.

    Samplers of diffusion (DDIM, PNDM, Euler, DPM++...) share one configuration of the forward
    process, of which DDIM's sampler is made, as the reference does for Stable Diffusion.
    """
    config = read_config(folder, 'scheduler', _FILE)
    try:
        if 'flow' in str(config.get('_class_name', '')).lower():
            return FlowMatching(FlowMatchEulerDiscreteScheduler.from_config(config))
        return Diffusion(DDIMScheduler.from_config(config))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise BackboneError(f'{folder}: scheduler/{_FILE}: {error}') from error

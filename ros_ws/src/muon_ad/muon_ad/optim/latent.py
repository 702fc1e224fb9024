"""Muon for the latents of a diffusion backbone: every sample is a matrix."""

from collections.abc import Iterable

import torch
from torch import Tensor

from muon_ad.optim.base import FullPrecisionOptimizer
from muon_ad.optim.gradients import named
from muon_ad.optim.masters import buffers_of
from muon_ad.optim.muon import nesterov_momentum
from muon_ad.optim.newton_schulz import orthogonalise
from muon_ad.optim.settings import check_range


class LatentMuon(FullPrecisionOptimizer):
    """Orthogonalised momentum on latents z [B, C, H, W], each sample by itself as [C, H*W].

    The step of every sample has a root mean square (RMS) of exactly `lr`, or, with `rms_scaling`,
    of lr * RMS(z): the paper's MuonUpdate(grad, RMS(z)), of which no definition was seen; we read
    it as a step relative to the size of the latents, as in LARS or Adafactor. A sample whose
    gradient and momentum are zero stays where it is. No weight decay, since latents have no
    reason to shrink.

    Raises ValueError for a setting out of range and for parameters of other than four dimensions;
    `step` raises GradientError for a gradient that is sparse or not finite, and has then changed
    nothing. Latents in half precision have float32 master weights, of which they are a rounding.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 0.05,
        momentum: float = 0.9,
        nesterov: bool = True,
        steps: int = 5,
        rms_scaling: bool = False,
    ) -> None:
        super().__init__(params, {'lr': lr, 'momentum': momentum, 'nesterov': nesterov,
                                  'steps': steps, 'rms_scaling': rms_scaling})

    def add_param_group(self, param_group: dict) -> None:
        """Add a group and check it."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        check_range('lr', float(group['lr']), 0)
        check_range('momentum', group['momentum'], 0, 1)
        check_range('steps', group['steps'], 1)
        for latents in group['params']:
            if latents.ndim != 4:
                raise ValueError(f'{named(self.param_groups, latents)}: LatentMuon needs latents '
                                 '[B, C, H, W]; for weights, use Muon')

    def _update(
        self, group: dict, masters: list[Tensor], gradients: list[Tensor],
        parameters: list[Tensor],
    ) -> None:
        buffers = buffers_of(self.state, 'momentum_buffer', parameters)
        updates = nesterov_momentum(buffers, gradients, group['momentum'], group['nesterov'])
        for latents, update in zip(masters, updates, strict=True):
            size = float(group['lr'])
            if group['rms_scaling']:
                size = size * rms(latents)
            latents.sub_(size * unit_step(update, group['steps']))


def rms(latents: Tensor) -> Tensor:
    """Return the root mean square of each sample of [B, C, H, W], as [B, 1, 1, 1]."""
    return latents.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


def unit_step(update: Tensor, steps: int = 5) -> Tensor:
    """Return an update [B, C, H, W], orthogonalised sample by sample, with an RMS of one each."""
    # Of one size before as well: the gradients of a loss that is a mean may be tiny.
    unit = _unit(update)
    return _unit(orthogonalise(unit.flatten(2), steps).reshape(update.shape))


def _unit(latents: Tensor) -> Tensor:
    size = rms(latents)
    return torch.where(size > 0, latents / size.clamp_min(torch.finfo(size.dtype).tiny), latents)

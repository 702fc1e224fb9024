"""Muon on latents: the step of every sample has the size asked for and orthogonal rows."""

import math

import pytest
import torch
from torch import nn

from muon_ad.optim.gradients import GradientError
from muon_ad.optim.latent import LatentMuon
from muon_ad.optim.latent import rms


def latents(dtype: torch.dtype = torch.float32, batch: int = 3) -> nn.Parameter:
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.1, 1.0, 5.0])[:batch, None, None, None]
    return nn.Parameter((scale * torch.randn(batch, 4, 8, 6, generator=generator)).to(dtype))


def gradient(seed: int, batch: int = 3) -> torch.Tensor:
    made = torch.randn(batch, 4, 8, 6, generator=torch.Generator().manual_seed(seed))
    return made * torch.tensor([1e-5, 1.0, 1e5])[:batch, None, None, None]


@pytest.mark.parametrize('scaled', [False, True])
def test_each_samples_step_has_exactly_the_size_asked_for(scaled):
    z = latents(torch.float64)
    optimizer = LatentMuon([z], lr=0.05, rms_scaling=scaled)
    for seed in range(3):
        before = z.detach().clone()
        z.grad = gradient(seed).double()
        optimizer.step()
        wanted = 0.05 * (rms(before) if scaled else torch.ones_like(rms(before)))
        torch.testing.assert_close(rms(z.detach() - before), wanted, rtol=1e-9, atol=0)


def test_the_channels_of_a_step_are_nearly_orthogonal():
    z = latents()
    before = z.detach().clone()
    z.grad = gradient(1)
    LatentMuon([z], lr=1.0).step()
    values = torch.linalg.svdvals((z.detach() - before).flatten(2))
    assert (values.amin(1) / values.amax(1)).min() > 0.6


def test_the_size_of_the_gradient_does_not_matter():
    moved = []
    for factor in (1.0, 1e-12):
        z = latents()
        z.grad = factor * gradient(1)
        LatentMuon([z]).step()
        moved.append(z.detach())
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-4, atol=1e-4)


def test_samples_do_not_influence_each_other():
    together, alone = latents(), latents(batch=1)
    for z, batch in ((together, 3), (alone, 1)):
        optimizer = LatentMuon([z])
        for seed in range(3):
            z.grad = gradient(seed)[:batch]
            optimizer.step()
    torch.testing.assert_close(together[:1], alone)


def test_a_sample_without_gradient_stays():
    z = latents()
    before = z.detach().clone()
    z.grad = gradient(0)
    z.grad[1] = 0
    LatentMuon([z]).step()
    assert torch.equal(z[1], before[1]) and not torch.equal(z[0], before[0])


def test_it_finds_a_minimum():
    wanted = torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(3))
    z = nn.Parameter(torch.zeros_like(wanted))
    optimizer = LatentMuon([z], lr=0.05)
    for step in range(200):
        optimizer.param_groups[0]['lr'] = 0.05 * (1 - step / 200)
        optimizer.zero_grad()
        (z - wanted).square().mean().backward()
        optimizer.step()
    assert (z - wanted).square().mean() < 1e-3


def test_half_precision_latents_lose_nothing_and_a_run_goes_on_from_its_state():
    half, full = latents(torch.bfloat16), nn.Parameter(latents(torch.bfloat16).float())
    optimizers = [LatentMuon([each], lr=1e-3) for each in (half, full)]
    for seed in range(10):
        if seed == 5:
            state = optimizers[0].state_dict()
            optimizers[0] = LatentMuon([half], lr=1e-3)
            optimizers[0].load_state_dict(state)
        half.grad = gradient(seed).bfloat16()
        full.grad = half.grad.float()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(half, full.bfloat16())


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match=r'parameter 0 of group 0 \[3, 3\]: LatentMuon needs'):
        LatentMuon([nn.Parameter(torch.zeros(3, 3))])
    with pytest.raises(ValueError, match='lr is -1'):
        LatentMuon([latents()], lr=-1.0)
    with pytest.raises(ValueError, match='momentum is 1'):
        LatentMuon([latents()], momentum=1.0)
    z = latents()
    z.grad = torch.full_like(z, math.nan)
    with pytest.raises(GradientError, match='not finite'):
        LatentMuon([z]).step()

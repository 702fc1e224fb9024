"""Optimisers by name: each trains; Lion and the peer do what they say."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from muon_ad.optim.gradients import GradientError
from muon_ad.optim.lion import Lion
from muon_ad.optim.muon import Muon
from muon_ad.optim.registry import make_optimizer
from muon_ad.optim.registry import OPTIMIZERS

RATES = {'muon': 0.02, 'torch-muon': 0.02, 'adamw': 0.02, 'adam': 0.02, 'lion': 3e-3, 'sgd': 0.05}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
                         nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))


def advance(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 1) -> list[float]:
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(images), torch.arange(8) % 4)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize('name', RATES)
def test_every_optimizer_trains_a_model_and_a_list_of_parameters(name):
    for given in (lambda net: net, lambda net: net.parameters()):
        net = network()
        losses = advance(net, make_optimizer(name, given(net), RATES[name]), 25)
        assert losses[-1] < 0.5 * losses[0], name


@pytest.mark.parametrize('name', RATES)
def test_every_optimizer_goes_on_from_its_state(name):
    whole, parts = network(), network()
    advance(whole, make_optimizer(name, whole, RATES[name]), 4)
    first = make_optimizer(name, parts, RATES[name])
    advance(parts, first, 2)
    second = make_optimizer(name, parts, 1.0)
    second.load_state_dict(first.state_dict())
    advance(parts, second, 2)
    for found, wanted in zip(parts.parameters(), whole.parameters(), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize('name', sorted(set(RATES) - {'sgd', 'adam'}))
def test_weight_decay_reaches_filters_but_not_biases(name):
    net = network()
    optimizer = make_optimizer(name, net, 0.1, weight_decay=0.5)
    for each in net.parameters():
        each.grad = torch.zeros_like(each)
    before = {key: each.detach().clone() for key, each in net.named_parameters()}
    optimizer.step()
    for key, each in net.named_parameters():
        factor = 0.95 if each.ndim >= 2 else 1.0
        torch.testing.assert_close(each, factor * before[key], msg=key)


def test_the_peer_agrees_with_ours_on_convolutions_too():
    ours, theirs = (network().to(memory_format=torch.channels_last) for _ in range(2))
    before = ours[2].weight.detach().clone()
    advance(ours, make_optimizer('muon', ours, 0.01), 3)
    advance(theirs, make_optimizer('torch-muon', theirs, 0.01), 3)
    moved = ours[2].weight - before
    assert (ours[2].weight - theirs[2].weight).norm() < 0.05 * moved.norm()
    torch.testing.assert_close(ours[6].bias, theirs[6].bias, rtol=0.05, atol=1e-3)


def test_lion_is_its_algorithm():
    weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
    value, momentum = weight.detach().clone().double(), torch.zeros(2, 2, dtype=torch.float64)
    optimizer = Lion([weight], lr=0.1, weight_decay=0.2, betas=(0.8, 0.7))
    for step in range(4):
        gradient = torch.randn(2, 2, generator=torch.Generator().manual_seed(step))
        weight.grad = gradient
        optimizer.step()
        sign = (0.8 * momentum + 0.2 * gradient.double()).sign()
        value = value - 0.1 * (sign + 0.2 * value)
        momentum = 0.7 * momentum + 0.3 * gradient.double()
    torch.testing.assert_close(weight.double(), value, rtol=1e-5, atol=1e-6)


def test_lion_keeps_tiny_updates_of_half_precision_and_refuses_nonsense():
    weight = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = Lion([weight], lr=1e-4)
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert weight[0].item() == pytest.approx(0.99, abs=0.003)
    weight.grad = torch.full_like(weight, math.nan)
    with pytest.raises(GradientError, match='not finite'):
        optimizer.step()
    with pytest.raises(ValueError, match='lr is -1'):
        Lion([weight], lr=-1)


def test_names_and_options():
    with pytest.raises(ValueError, match="optimizer is 'adamuon'; expected one of muon, torch-"):
        make_optimizer('adamuon', network(), 0.1)
    assert set(RATES) | {'latent-muon'} == set(OPTIMIZERS)
    optimizer = make_optimizer('muon', network(), 0.1, scale='spectral', momentum=0.8)
    assert isinstance(optimizer, Muon)
    assert {(group['scale'], group['momentum']) for group in optimizer.param_groups} \
        == {('spectral', 0.8)}
    latents = nn.Parameter(torch.zeros(1, 4, 8, 8))
    assert make_optimizer('latent-muon', [latents], 0.05).param_groups[0]['lr'] == 0.05

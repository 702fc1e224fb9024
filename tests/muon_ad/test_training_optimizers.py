"""The optimisers of the trainers: each learns, and none treats all layers alike."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from muon_ad.train import detector
from muon_ad.train import style
from muon_ad.train.optimizers import NAMES
from muon_ad.train.optimizers import network_optimizer

RATES = {'muon': 0.02, 'torch-muon': 0.02, 'adamw': 0.02, 'adam': 0.02, 'lion': 0.002, 'sgd': 0.05}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
                         nn.ReLU(), nn.Conv2d(8, 1, 1))


def optimizer_of(name: str, model: nn.Module, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    return network_optimizer(name, model, RATES[name], weight_decay, first=('0',), last=('4',))


@pytest.mark.parametrize('name', NAMES)
def test_every_optimizer_learns(name):
    model = network()
    optimizer = optimizer_of(name, model)
    x = torch.randn(4, 3, 8, 8)
    wanted = x.sum(1, keepdim=True).tanh()
    losses = []
    for _ in range(60):
        loss = functional.mse_loss(model(x), wanted)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize('name', ['muon', 'torch-muon'])
def test_muon_has_the_layers_between_the_first_and_the_last(name):
    model = network()
    groups = optimizer_of(name, model).param_groups
    by_muon = [group['params'] for group in groups if group['algorithm'] == 'muon']
    assert len(by_muon) == len(by_muon[0]) == 1 and by_muon[0][0] is model[2].weight
    assert sum(len(group['params']) for group in groups) == 6


@pytest.mark.parametrize('name', NAMES)
def test_biases_are_not_decayed(name):
    for group in optimizer_of(name, network(), weight_decay=0.1).param_groups:
        dimensions = {each.ndim for each in group['params']}
        assert dimensions == ({1} if group['weight_decay'] == 0 else {4})


@pytest.mark.parametrize('trainer', [style, detector])
def test_each_trainer_has_a_rate_for_every_optimizer(trainer):
    assert set(trainer.RATES) == set(NAMES)
    assert trainer.RATES[trainer.Recipe.optimizer] == trainer.Recipe.rate


def test_an_optimizer_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="optimizer is 'latent-muon'; expected one of muon, "):
        network_optimizer('latent-muon', network(), 0.1, 0, (), ())

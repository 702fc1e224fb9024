"""Refitting a pruned network to the dense one: what can be made up for is."""

import pytest
import torch
from torch import nn
from torch import Tensor

from muon_ad.networks.detector import conv
from muon_ad.networks.detector import DetectorNet
from muon_ad.prune.cut import cut
from muon_ad.prune.refit import refit


class Chain(nn.Module):
    """Three layers, the last of them called twice and without normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv(3, 8)
        self.second = conv(8, 8, 3, 2)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.first(x)
        coarse = self.second(fine)
        return torch.cat([self.last(fine).flatten(2), self.last(coarse).flatten(2)], 2)


def learnt(network: nn.Module) -> nn.Module:
    """Normalisation with statistics, scales and shifts that are not those of a new network."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


@pytest.fixture
def batches() -> list[Tensor]:
    torch.manual_seed(5)
    return [torch.rand(2, 3, 32, 32) for _ in range(3)]


def difference(first: nn.Module, second: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        return (first(images) - second(images)).abs().mean().item()


def test_a_channel_that_repeats_another_is_made_up_for(batches):
    torch.manual_seed(0)
    dense = learnt(Chain())
    with torch.no_grad():
        for tensor in (dense.first[0].weight, *dense.first[1].state_dict().values()):
            if tensor.ndim:
                tensor[1] = tensor[0]
    made = cut(dense, (batches[0],), {'first.0': [1]})
    small = made.apply(dense)
    before = difference(small, dense, batches[0])
    refit(small, dense, made, batches)
    assert small.first[0].out_channels == 7
    assert difference(small, dense, torch.rand(2, 3, 32, 32)) < 0.02 * before


def test_a_channel_that_is_always_the_same_goes_into_the_bias(batches):
    torch.manual_seed(1)
    dense = learnt(Chain())
    with torch.no_grad():
        dense.first[0].weight[3] = 0
        dense.first[1].bias[3] = 2.0
    made = cut(dense, (batches[0],), {'first.0': [3]})
    small = made.apply(dense)
    before = difference(small, dense, batches[0])
    refit(small, dense, made, batches)
    # At the border there is padding, where it was not the same.
    assert difference(small, dense, torch.rand(2, 3, 32, 32)) < 0.3 * before


def test_a_pruned_detector_comes_closer_to_the_dense_one(batches):
    torch.manual_seed(2)
    dense = learnt(DetectorNet(2))
    for layer in [*dense.box, *dense.label]:
        nn.init.normal_(layer.weight, std=0.2)
    removed = {'stage8.2.body.0.0': range(8), 'stage16.0.0': range(16), 'box_tower.0': range(16)}
    made = cut(dense, (torch.zeros(1, 3, 64, 64),), removed)
    small = made.apply(dense)
    images = torch.rand(2, 3, 64, 64)
    before = difference(small, dense, images)
    refit(small, dense, made, [torch.rand(4, 3, 64, 64) for _ in range(6)])
    assert difference(small, dense, images) < 0.8 * before


def test_an_uncut_network_stays_what_it_is(batches):
    torch.manual_seed(3)
    dense = learnt(Chain())
    made = cut(dense, (batches[0],), {})
    small = made.apply(dense)
    refit(small, dense, made, batches)
    assert difference(small, dense, batches[0]) < 1e-4

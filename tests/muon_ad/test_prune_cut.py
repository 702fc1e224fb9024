"""Surgery: what is cut out of networks and optimisers, and what it leaves as it was."""

import copy

import pytest
import torch
from torch import nn

from muon_ad.networks.detector import DetectorNet
from muon_ad.networks.resize import residual_blocks
from muon_ad.networks.resize import resize_to
from muon_ad.networks.style import StyleConfig
from muon_ad.networks.style import StyleStudent
from muon_ad.optim.registry import make_optimizer
from muon_ad.prune.carry import carry_optimizer
from muon_ad.prune.cut import cut
from muon_ad.prune.graph import channel_groups
from muon_ad.prune.graph import PruningError
from muon_ad.prune.layerdrop import without
from muon_ad.prune.once import static_l1
from muon_ad.prune.once import torch_pruning_default
from muon_ad.prune.report import flops
from muon_ad.prune.select import Limits
from muon_ad.prune.shapes import budget
from muon_ad.prune.shapes import count

CONFIG = StyleConfig(channels=16, blocks=2, fine=8, encoder=(4, 8), hidden=8)
HEADS = tuple(f'{name}.{level}' for name in ('box', 'label') for level in range(3))


def student():
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2)
    style = torch.rand(1, CONFIG.style_length, generator=generator)
    image = torch.rand(1, 3, 32, 48, generator=generator)
    return StyleStudent(CONFIG).eval(), (image, style), ('last',)


def detector():
    torch.manual_seed(1)
    net = DetectorNet(3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    return net.eval(), (image,), HEADS


NETWORKS = {'student': student, 'detector': detector}


@pytest.fixture(scope='module', params=NETWORKS)
def traced(request):
    """A network, arguments, the layers that stay, and its groups of channels."""
    network, example, ignored = NETWORKS[request.param]()
    return network, example, ignored, channel_groups(network, example, ignored)


def silence(network, groups, removed):
    """Make channels zero: nothing is put out by them and nothing reads them."""
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for group in groups:
            for each in group.slices:
                gone = each.positions[torch.isin(each.channels, torch.tensor(removed[group.name]))]
                parameters[each.parameter].index_fill_(each.dim, gone, 0.0)


def test_removing_channels_that_are_zero_changes_nothing(traced):
    network, example, _, groups = traced
    network = copy.deepcopy(network)
    removed = {group.name: list(range(0, group.channels, 3)) for group in groups}
    silence(network, groups, removed)
    small = cut(network, example, removed).apply(network)
    assert count(small) < 0.6 * count(network)
    with torch.no_grad():
        assert torch.allclose(small(*example), network(*example), atol=1e-5)


def test_the_budget_foretells_the_parameters_left(traced):
    network, example, _, groups = traced
    removed = {group.name: list(range(group.channels // 4)) for group in groups}
    small = cut(network, example, removed).apply(network)
    foretold = budget(network, groups).parameters(
        {name: len(channels) for name, channels in removed.items()})
    assert count(small) == foretold < count(network)
    assert flops(small, example)[''] < flops(network, example)['']


def test_a_cut_network_has_the_dense_ones_output_and_is_built_again_from_its_file(traced):
    network, example, ignored, groups = traced
    made = cut(network, example, {group.name: [0] for group in groups})
    small = made.apply(network)
    assert small(*example).shape == network(*example).shape
    again = resize_to(copy.deepcopy(network), small.state_dict()).eval()
    assert torch.equal(again(*example), small(*example))
    assert [group.channels for group in channel_groups(small, example, ignored)] == [
        group.channels - 1 for group in groups]


def test_mode_memory_format_and_what_is_frozen_stay(traced):
    network, example, _, groups = traced
    network = copy.deepcopy(network).train().to(memory_format=torch.channels_last)
    first = next(iter(dict(network.named_parameters())))
    network.get_parameter(first).requires_grad_(False)
    small = cut(network, example, {groups[0].name: [0, 1]}).apply(network)
    assert network.training and small.training
    assert all(module.training for module in small.modules())
    assert [name for name, each in small.named_parameters() if not each.requires_grad] == [first]
    assert all(each.is_contiguous(memory_format=torch.channels_last)
               for each in small.parameters() if each.ndim == 4)


@pytest.mark.parametrize('name', ['muon', 'adamw', 'lion', 'sgd'])
def test_the_state_of_an_optimiser_is_cut_with_its_network(name):
    network, example, ignored = student()
    optimizer = make_optimizer(name, network, 1e-3)
    for _ in range(2):
        network(*example).square().mean().backward()
        optimizer.step()
    before = {each: dict(optimizer.state[parameter])
              for each, parameter in network.named_parameters()}
    made = cut(network, example, {'stem': [1, 5], 'fine': [7]})
    small = made.apply(network)
    carry_optimizer(optimizer, network, small, made.take)
    assert {id(each) for group in optimizer.param_groups for each in group['params']} == set(
        map(id, small.parameters()))
    assert set(optimizer.state) == set(small.parameters())
    for each, parameter in small.named_parameters():
        state = optimizer.state[parameter]
        assert set(state) == set(before[each])
        for key, value in state.items():
            if key != 'step' and torch.is_tensor(value):
                assert torch.equal(value, made.take(each, before[each][key]))
    kept = [channel for channel in range(16) if channel not in (1, 5)]
    assert torch.equal(made.take('stem.weight', network.stem.weight), network.stem.weight[kept])
    small(*example).square().mean().backward()
    optimizer.step()


def test_an_optimiser_with_copies_of_its_own_is_refused():
    network, example, _ = student()
    optimizer = make_optimizer('torch-muon', network, 1e-3)
    made = cut(network, example, {'stem': [1]})
    with pytest.raises(PruningError, match='torch-muon'):
        carry_optimizer(optimizer, network, made.apply(network), made.take)


def test_groups_that_are_unknown_or_would_vanish_are_refused():
    network, example, _ = student()
    with pytest.raises(PruningError, match="no layer 'heart'"):
        cut(network, example, {'heart': [0]})
    with pytest.raises(PruningError, match='stem: 16 channels'):
        cut(network, example, {'stem': range(16)})


def test_a_network_without_some_blocks_is_smaller_and_built_again_from_its_file(traced):
    network, example, _, _ = traced
    blocks = residual_blocks(network)
    assert len(blocks) >= 2
    small = without(network, blocks[:1])
    assert residual_blocks(small) == blocks[1:] and residual_blocks(network) == blocks
    assert count(small) < count(network)
    assert small(*example).shape == network(*example).shape
    again = resize_to(copy.deepcopy(network), small.state_dict()).eval()
    assert torch.equal(again(*example), small(*example))


def test_the_baselines_reach_their_number_of_parameters(traced):
    network, example, ignored, groups = traced
    limits, costs = Limits(0.2, 4), budget(network, groups)
    target = round(0.6 * count(network))
    for removed in (static_l1(network, groups, limits, target),
                    torch_pruning_default(network, example, ignored, limits, target)):
        left = costs.parameters({name: len(gone) for name, gone in removed.items()})
        assert left == pytest.approx(target, rel=0.15)
        assert count(cut(network, example, removed).apply(network)) == left
        assert all((group.channels - len(removed.get(group.name, []))) % 4 == 0
                   for group in groups)

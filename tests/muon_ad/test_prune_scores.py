"""Scores of channels against plain arithmetic over a tiny network's weights and gradients."""

import pytest
import torch
from torch import nn

from muon_ad.optim.registry import make_optimizer
from muon_ad.prune.cut import cut
from muon_ad.prune.graph import channel_groups
from muon_ad.prune.graph import PruningError
from muon_ad.prune.scores import DECAY
from muon_ad.prune.scores import EPSILON
from muon_ad.prune.scores import make_score
from muon_ad.prune.scores import SCORES
from muon_ad.prune.scores import WINDOW

EXAMPLE = (torch.zeros(1, 3, 8, 8),)
KEEP = 1 - 1 / WINDOW


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
                         nn.Conv2d(6, 2, 1))


def group_of(network):
    [group] = channel_groups(network, EXAMPLE, ('3',))
    return group


def observed(network, optimizer, score, steps):
    """Let a score see `steps` steps; return each step's weights and gradients by name."""
    seen = []
    for step in range(steps):
        optimizer.zero_grad()
        images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        network(images).square().mean().backward()
        score.observe([group_of(network)], network, optimizer)
        seen.append({name: (each.detach().clone(), each.grad.clone())
                     for name, each in network.named_parameters()})
        optimizer.step()
    return seen


def channel(name, tensor, index):
    """What belongs to one of the six channels: its kernel, scale, shift and reader."""
    return tensor[:, index] if name == '3.weight' else tensor[index]


MEMBERS = ('0.weight', '1.weight', '1.bias', '3.weight')


def test_a_group_is_kernel_norm_and_reader_and_not_the_last_layer(network):
    group = group_of(network)
    assert (group.name, group.channels) == ('0', 6)
    assert sorted((each.parameter, each.dim) for each in group.slices) == [
        ('0.weight', 0), ('1.bias', 0), ('1.weight', 0), ('3.weight', 1)]


def test_taylor_is_the_average_of_the_absolute_sum_of_products(network):
    score = make_score('taylor')
    seen = observed(network, make_optimizer('sgd', network, 0.1), score, 3)
    for index in range(6):
        average = 0.0
        for step in seen:
            total = sum((channel(name, weight, index) * channel(name, grad, index)).sum()
                        for name, (weight, grad) in step.items() if name in MEMBERS)
            average = KEEP * average + (1 - KEEP) * abs(total)
        expected = average / (1 - KEEP ** 3)
        found = score.of(group_of(network), network)[index]
        assert found == pytest.approx(float(expected), rel=1e-4)


def papers(network, seen, index, second):
    """The paper's score of a channel; `second` gives E[grad^2] of a parameter."""
    values = []
    weights = dict(network.named_parameters())
    for name in MEMBERS:
        size = torch.zeros_like(weights[name])
        for step in seen:
            size = KEEP * size + (1 - KEEP) * step[name][1].abs()
        size = size / (1 - KEEP ** len(seen))
        each = size / (second(name).sqrt() + EPSILON) + DECAY * weights[name].detach().square()
        values.append(channel(name, each, index).flatten())
    return float(torch.cat(values).mean())


def test_the_papers_score_reads_the_second_moment_of_adamw(network):
    score, optimizer = make_score('paper'), make_optimizer('adamw', network, 1e-2)
    seen = observed(network, optimizer, score, 4)
    weights = dict(network.named_parameters())

    def second(name):
        return optimizer.state[weights[name]]['exp_avg_sq'] / (1 - 0.999 ** 4)

    found = score.of(group_of(network), network)
    assert found.tolist() == pytest.approx(
        [papers(network, seen, n, second) for n in range(6)], rel=1e-4)


def test_the_papers_score_keeps_its_own_where_an_optimiser_has_none(network):
    score = make_score('paper')
    seen = observed(network, make_optimizer('sgd', network, 1e-2), score, 4)

    def second(name):
        square = torch.zeros_like(seen[0][name][1])
        for step in seen:
            square = KEEP * square + (1 - KEEP) * step[name][1].square()
        return square / (1 - KEEP ** 4)

    found = score.of(group_of(network), network)
    assert found.tolist() == pytest.approx(
        [papers(network, seen, n, second) for n in range(6)], rel=1e-4)


def test_the_papers_score_of_muon_is_from_both_kinds_of_state(network):
    score = make_score('paper')
    optimizer = make_optimizer('muon', list(network.parameters()), 1e-3)    # divided by shape
    observed(network, optimizer, score, 3)
    with_moment = {name for name, each in network.named_parameters()
                   if 'exp_avg_sq' in optimizer.state[each]}
    assert with_moment and with_moment != set(dict(network.named_parameters()))
    assert set(score.state()['squares']) == set(dict(network.named_parameters())) - with_moment
    assert torch.isfinite(score.of(group_of(network), network)).all()


def test_magnitude_is_the_mean_of_kernels_and_readers(network):
    found = make_score('magnitude').of(group_of(network), network)
    kernels, readers = network[0].weight.detach(), network[3].weight.detach()
    for index in range(6):
        both = torch.cat([kernels[index].flatten(), readers[:, index].flatten()]).abs()
        assert found[index] == pytest.approx(float(both.mean()))


def test_batch_normalisation_is_scored_by_its_scales_and_must_be_there(network):
    network[1].weight.data = torch.tensor([1.0, -2, 3, -4, 5, -6])
    found = make_score('batchnorm').of(group_of(network), network)
    assert found.tolist() == [1, 2, 3, 4, 5, 6]
    bare = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1))
    with pytest.raises(PruningError, match='0: no batch normalisation'):
        make_score('batchnorm').of(channel_groups(bare, EXAMPLE, ('1',))[0], bare)


def test_random_scores_depend_on_the_seed_alone(network):
    group = group_of(network)
    one, same, other = (make_score('random', seed).of(group, network) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_scores_of_steps_need_a_step(network):
    for name in ('taylor', 'paper'):
        with pytest.raises(PruningError, match='no training step'):
            make_score(name).of(group_of(network), network)
    with pytest.raises(ValueError, match='score'):
        make_score('gut feeling')


@pytest.mark.parametrize('name', SCORES)
def test_what_is_left_after_a_cut_keeps_its_score(network, name):
    score, optimizer = make_score(name), make_optimizer('sgd', network, 1e-2)
    observed(network, optimizer, score, 2)
    before = score.of(group_of(network), network)
    made = cut(network, EXAMPLE, {'0': [1, 4]})
    small = made.apply(network)
    score.carry(made)
    after = score.of(group_of(small), small)
    assert len(after) == 4
    if name != 'random':
        assert after.tolist() == pytest.approx(before[[0, 2, 3, 5]].tolist(), rel=1e-5)


@pytest.mark.parametrize('name', SCORES)
def test_a_score_taken_up_again_is_the_same(network, name):
    score, optimizer = make_score(name), make_optimizer('adamw', network, 1e-2)
    observed(network, optimizer, score, 2)
    again = make_score(name)
    again.load(score.state())
    for each in (score, again):
        observed(network, optimizer, each, 1)
        network.zero_grad()
    assert set(again.state()) == set(score.state())

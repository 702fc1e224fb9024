"""Depthwise dynamic convolution: what it computes, where it begins, and tokens."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from muon_ad.networks.dynamic_conv import DynamicConv
from muon_ad.networks.dynamic_conv import NoAttention
from muon_ad.networks.dynamic_conv import tell_shape
from muon_ad.networks.dynamic_conv import TokenDynamicConv


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.double()


def test_each_sample_is_convolved_with_its_own_mixture():
    layer = randomised(DynamicConv(6, bases=3, kernel=3))
    x = torch.randn(4, 6, 5, 7).double()
    found = layer(x)
    shares = torch.softmax(x.mean(dim=(2, 3)) @ layer.gate.weight.T + layer.gate.bias, dim=1)
    assert shares.std(dim=0).min() > 0.01
    for sample in range(4):
        expected = sum(
            shares[sample, base] * F.conv2d(x[sample:sample + 1], layer.bases[base, :, None],
                                            layer.bias, padding=1, groups=6)
            for base in range(3))
        torch.testing.assert_close(found[sample:sample + 1], expected)


def test_it_begins_as_nothing_and_all_its_bases_learn_differently():
    torch.manual_seed(0)
    layer = DynamicConv(8)
    x = torch.randn(2, 8, 6, 6)
    assert not layer(x).any()
    (layer(x) - torch.randn(2, 8, 6, 6)).square().mean().backward()
    slopes = layer.bases.grad.flatten(1)
    assert slopes.abs().amax(dim=1).min() > 0
    assert torch.pdist(slopes).min() > 0


def test_it_learns_a_blur():
    torch.manual_seed(0)
    layer = DynamicConv(4, bases=2, kernel=3)
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)
    for _ in range(60):
        x = torch.randn(2, 4, 8, 8)
        loss = F.mse_loss(layer(x), F.avg_pool2d(x, 3, 1, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01


@pytest.mark.parametrize(('height', 'width'), [(4, 4), (3, 5)])
def test_tokens_are_convolved_as_the_picture_they_came_from(height, width):
    layer = randomised(TokenDynamicConv(6, bases=2, kernel=3))
    picture = torch.randn(2, 6, height, width).double()
    tell_shape(nn.Sequential(layer), (picture,), {})
    tokens = layer(picture.flatten(2).transpose(1, 2), encoder_hidden_states=None)
    expected = DynamicConv.forward(layer, picture)
    torch.testing.assert_close(tokens.transpose(1, 2).reshape(expected.shape), expected)


def test_tokens_that_do_not_fill_the_picture_are_refused():
    layer = TokenDynamicConv(4)
    with pytest.raises(ValueError, match='15 tokens; expected 3 x 3'):
        layer(torch.zeros(1, 15, 4))


@pytest.mark.parametrize('wrong', [{'channels': 0}, {'bases': 0}, {'kernel': 4}, {'kernel': -1}])
def test_sizes_that_are_no_kernel_are_refused(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f'{name} is {value}; expected'):
        DynamicConv(**{'channels': 4, **wrong})


def test_no_attention_adds_nothing():
    x = torch.randn(2, 5, 4)
    assert torch.equal(x + NoAttention()(x, attention_mask=None), x)

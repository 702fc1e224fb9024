"""Files of weights, and networks resized to them."""

import pytest
import torch
from torch import nn

from muon_ad.networks.resize import resize_to
from muon_ad.networks.weights import load_network
from muon_ad.networks.weights import save_network
from muon_ad.networks.weights import WeightsError


def network(inner: int, deep: int) -> nn.Sequential:
    """Convolutions, depthwise among them, with normalisation, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, inner, 3, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
        nn.Conv2d(inner, inner, 3, groups=inner), nn.GroupNorm(1, inner),
        nn.Conv2d(inner, deep, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(deep, 5),
    ).eval()


def test_a_resized_network_is_the_one_whose_weights_it_took():
    small = network(4, 6)
    resized = resize_to(network(8, 16), small.state_dict())
    x = torch.rand(2, 3, 12, 12)
    assert torch.equal(resized(x), small(x))
    assert str(resized) == str(small)


def test_weights_of_another_network_are_refused():
    other = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(ValueError, match='of another network'):
        resize_to(network(4, 6), other.state_dict())
    state = network(4, 6).state_dict()
    with pytest.raises(ValueError, match=r'8\.weight has shape \[6\]; expected as many dim'):
        resize_to(network(4, 6), {**state, '8.weight': torch.zeros(6)})


def test_what_was_saved_is_read(tmp_path):
    small = network(4, 6)
    save_network(tmp_path / 'deep' / 'a.safetensors', small, 'toy', {'inner': 4, 'names': ['x']})
    found = load_network(tmp_path / 'deep' / 'a.safetensors', 'toy')
    assert found.kind == 'toy' and found.config == {'inner': 4, 'names': ['x']}
    assert all(torch.equal(found.state[name], value)
               for name, value in small.state_dict().items())


def test_files_that_are_no_weights_are_refused(tmp_path):
    with pytest.raises(WeightsError, match='no such file'):
        load_network(tmp_path / 'none.safetensors')
    path = tmp_path / 'a.safetensors'
    save_network(path, network(4, 6), 'toy', {})
    with pytest.raises(WeightsError, match="weights of a 'toy'; expected of a 'style'"):
        load_network(path, 'style')
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError, match=r'not a whole \.safetensors file'):
        load_network(path)

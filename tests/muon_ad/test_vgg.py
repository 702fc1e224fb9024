"""The distilled VGG-19: shapes, the way back; weights that are missing, damaged, untrained."""

import numpy as np
import pytest
import torch
from skimage.data import astronaut
from tiny_codec import write_codecs

from muon_ad.networks.vgg import Codec
from muon_ad.networks.vgg import CodecError
from muon_ad.networks.vgg import LEVELS


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_codecs(tmp_path_factory.mktemp('codecs'))


@pytest.mark.parametrize('level', LEVELS)
def test_each_level_halves_the_sides_once_more_and_comes_back_in_size(folder, level):
    codec = Codec.load(folder, level)
    features = codec.encode(torch.rand(1, 3, 50, 67))
    step = 2 ** (level - 1)
    assert features.shape == (1, 3, -(-50 // step), -(-67 // step))
    assert codec.decode(features, (50, 67)).shape == (1, 3, 50, 67)


def test_the_first_level_loses_nothing_and_deeper_ones_the_largest_of_each_cell(folder):
    image = torch.rand(1, 3, 32, 48)
    for level, cell in ((1, 1), (3, 4)):
        codec = Codec.load(folder, level)
        largest = torch.nn.functional.max_pool2d(image, cell)
        torch.testing.assert_close(codec.encode(image), largest)
        back = codec.decode(largest, (32, 48))
        torch.testing.assert_close(back, largest.repeat_interleave(cell, 2)
                                   .repeat_interleave(cell, 3))


def test_a_missing_file_is_named_with_where_it_comes_from(folder, tmp_path):
    with pytest.raises(CodecError, match=r'_e4\.pth: no such file.*Collaborative-Distillation'):
        Codec.load(tmp_path, 4)
    with pytest.raises(CodecError, match='level is 6; expected one of'):
        Codec.load(folder, 6)


@pytest.mark.parametrize('damage', ['text', 'keys', 'list'])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = write_codecs(tmp_path) / 'cd_vgg19_small16x_d2.pth'
    if damage == 'text':
        path.write_bytes(b'no weights at all')
    else:
        torch.save({'model': {}} if damage == 'keys' else [1], path)
    with pytest.raises(CodecError, match=r'_d2\.pth: cannot be read as such weights'):
        Codec.load(tmp_path, 2)


def test_weights_that_are_not_trained_are_refused(tmp_path):
    path = write_codecs(tmp_path) / 'cd_vgg19_small16x_d3.pth'
    state = torch.load(path)
    generator = torch.Generator().manual_seed(0)
    for value in state['model'].values():
        value.copy_(torch.randn(value.shape, generator=generator) / 10)
    torch.save(state, path)
    with pytest.raises(CodecError, match='level 3 decode.*small16x_ae_base.*is not trained'):
        Codec.load(tmp_path, 3)


def test_the_published_weights_give_a_photograph_back(data):
    try:
        codecs = [Codec.load(data / 'weights', level) for level in LEVELS]
    except CodecError as error:
        pytest.skip(str(error))
    photo = torch.from_numpy(astronaut()[:128, 192:320]).permute(2, 0, 1)[None].float() / 255
    errors = [float((codec.decode(codec.encode(photo), (128, 128)) - photo).abs().mean())
              for codec in codecs]
    assert errors[0] < 0.02
    assert np.all(np.array(errors) < 0.15)

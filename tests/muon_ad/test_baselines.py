"""The baselines: the algebra of each, and all of them behind their one interface."""

from functools import partial

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut
from tiny_backbones import build_sd15
from tiny_codec import write_codecs

from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.backbone import load_backbone
from muon_ad.distill.baselines import BaselineError
from muon_ad.distill.baselines import make_stylizer
from muon_ad.distill.baselines import METHODS
from muon_ad.distill.baselines.injection import Injection
from muon_ad.distill.baselines.patches import PatchMatching
from muon_ad.distill.statistics import align_statistics
from muon_ad.distill.statistics import whiten_and_colour
from muon_ad.images import ImageError
from muon_ad.metrics.wasserstein import random_directions
from muon_ad.metrics.wasserstein import sliced_wasserstein
from muon_ad.networks.vgg import CodecError
from muon_ad.styles.draw import draw

PHOTO = cv2.resize(astronaut(), (56, 48), interpolation=cv2.INTER_AREA)
STYLE = draw('waves', 64)
QUICK = {'patches': {'steps': 3, 'scales': 1}, 'injection': {'steps': 2}}


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return write_codecs(tmp_path_factory.mktemp('codecs'))


@pytest.fixture(scope='module')
def backbone(tmp_path_factory):
    return load_backbone(build_sd15(tmp_path_factory.mktemp('backbone') / 'sd15'))


@pytest.fixture(scope='module')
def make(weights, backbone):
    return partial(make_stylizer, weights=weights, backbone=backbone)


def cloud(seed: int, channels: int = 6, count: int = 200) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    points = torch.randn(channels, count, generator=generator, dtype=torch.float64)
    return mixing @ points + mixing[:, :1]


def test_wct_gives_the_content_mean_and_covariance_of_the_style():
    content, style = cloud(1), cloud(2, count=300)
    result = whiten_and_colour(content, style).numpy()
    np.testing.assert_allclose(result.mean(1), style.numpy().mean(1), atol=1e-10)
    np.testing.assert_allclose(np.cov(result, bias=True), np.cov(style.numpy(), bias=True),
                               atol=1e-9)


def test_wct_leaves_empty_what_the_content_does_not_have():
    content = cloud(1)
    content[3:] = 5
    result = whiten_and_colour(content, cloud(2)).numpy()
    values = np.linalg.eigvalsh(np.cov(result, bias=True))
    assert np.isfinite(result).all()
    assert (values > 1e-9).sum() == 3


def test_wct_of_a_cloud_onto_itself_changes_nothing():
    torch.testing.assert_close(whiten_and_colour(cloud(1), cloud(1)), cloud(1))


def test_adain_gives_each_channel_mean_and_deviation_of_the_style():
    content, style = torch.randn(2, 3, 7, 5) * 3 + 1, torch.rand(2, 3, 9, 4)
    result = align_statistics(content, style)
    for found, wanted in ((result.mean((2, 3)), style.mean((2, 3))),
                          (result.std((2, 3), correction=0), style.std((2, 3), correction=0))):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    # In order, and where there is no deviation, not infinite.
    assert torch.equal(result.flatten(2).argsort(), content.flatten(2).argsort())
    flat = align_statistics(torch.full((1, 1, 4, 4), 7.0), style[:1, :1])
    torch.testing.assert_close(flat, style[:1, :1].mean().expand(1, 1, 4, 4))


def patches_of(picture: np.ndarray, side: int = 7) -> torch.Tensor:
    image = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    return torch.nn.functional.unfold(image, side)[0].T


def test_patches_come_to_lie_as_those_of_the_style():
    content = cv2.resize(astronaut(), (48, 48), interpolation=cv2.INTER_AREA)
    lines = random_directions(3 * 49, 64, torch.Generator().manual_seed(5))

    def distance(picture: np.ndarray) -> float:
        return float(sliced_wasserstein(patches_of(picture), patches_of(STYLE), lines))

    cheap = {'scales': 2, 'steps': 30, 'directions': 24, 'samples': 1000}
    loose = PatchMatching(content_weight=0, **cheap)(content, STYLE)
    held = PatchMatching(content_weight=1.0, **cheap)(content, STYLE)
    assert distance(loose) < 0.4 * distance(content)
    assert distance(held) < 0.6 * distance(content)

    def likeness(picture: np.ndarray) -> float:
        tones = [cv2.resize(cv2.cvtColor(each, cv2.COLOR_RGB2GRAY), (16, 16),
                            interpolation=cv2.INTER_AREA).ravel() for each in (picture, content)]
        return float(np.corrcoef(tones)[0, 1])

    assert likeness(held) > likeness(loose)
    assert likeness(held) > 0.7


class Analytic:
    """A backbone of two layers with latents [1, 3, H/8, W/8] that predicts no noise at all.

    So inversion leads nowhere, and what its layers are told to use can be foretold. `used` holds
    what they used, by time-step and layer, in the pass last made at that time-step.
    """

    multiple = 8
    layers = ['first', 'last']
    device = torch.device('cpu')

    def __init__(self) -> None:
        self.used = {}

    def encode(self, image):
        return torch.nn.functional.avg_pool2d(image, 8)

    def decode(self, latents):
        return latents.repeat_interleave(8, 2).repeat_interleave(8, 3)

    def timesteps(self, count):
        return [900, 500, 100][:count]

    def denoise(self, latents, timestep, override=None):
        tokens = latents.flatten(2).transpose(1, 2)[:, None]
        for layer in self.layers:
            self.used[timestep, layer] = override(layer, tokens, 2 * tokens, 3 * tokens)
        return torch.zeros_like(latents)

    def step(self, latents, prediction, timestep, target):
        return latents + prediction * ((target or 0) - timestep)


def test_injection_mixes_queries_and_takes_keys_and_values_from_the_style():
    backbone = Analytic()
    result = Injection(backbone, gamma=0.25, temperature=1.5, layers=('last',))(PHOTO, STYLE)
    image, pattern = (torch.from_numpy(each).permute(2, 0, 1)[None].float() / 255
                      for each in (PHOTO, STYLE))
    scene, style = backbone.encode(image), backbone.encode(pattern)
    begun = align_statistics(scene, style)
    expected = backbone.decode(begun).clamp(0, 1)[0].permute(1, 2, 0) * 255
    np.testing.assert_allclose(result, expected, atol=0.51)

    def tokens(latents: torch.Tensor) -> torch.Tensor:
        return latents.flatten(2).transpose(1, 2)[:, None]

    for timestep in backbone.timesteps(3):
        query, key, value = backbone.used[timestep, 'last']
        mixed = 0.25 * tokens(scene) + 0.75 * tokens(begun)
        torch.testing.assert_close(query, 1.5 * mixed)
        torch.testing.assert_close(key, 2 * tokens(style))
        torch.testing.assert_close(value, 3 * tokens(style))
        torch.testing.assert_close(backbone.used[timestep, 'first'][1], 2 * tokens(begun))


def test_injection_needs_a_backbone_that_denoises():
    with pytest.raises(BackboneError, match='needs a backbone that denoises.*has \\[900\\]'):
        Injection(Analytic(), steps=1)(PHOTO, STYLE)


@pytest.mark.parametrize('name', METHODS)
def test_every_method_keeps_the_size_changes_the_picture_and_repeats_itself(make, name):
    stylizer = make(name, **QUICK.get(name, {}))
    assert stylizer.name == name
    result = stylizer(PHOTO, STYLE)
    assert result.shape == PHOTO.shape
    assert result.dtype == np.uint8
    assert np.abs(result.astype(int) - PHOTO).mean() > 3
    assert result.std() > 5
    np.testing.assert_array_equal(stylizer(PHOTO, STYLE), result)
    other = stylizer(PHOTO, draw('mosaic', 64))
    assert np.abs(other.astype(int) - result).mean() > 1


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize('bad', [np.zeros((48, 56, 3), np.float32), np.zeros((8, 56, 3), np.uint8),
                                 np.zeros((48, 56), np.uint8), np.zeros((2, 48, 56, 3), np.uint8)])
def test_every_method_refuses_what_is_no_picture(make, name, bad):
    with pytest.raises(ImageError, match='content is '):
        make(name)(bad, STYLE)
    with pytest.raises(ImageError, match='style is '):
        make(name)(PHOTO, bad)


@pytest.mark.parametrize('name', METHODS)
def test_what_a_method_needs_is_named(name, tmp_path):
    method = METHODS[name]
    if method.needs_weights:
        with pytest.raises(BaselineError, match=f'{name} needs weights'):
            make_stylizer(name)
        with pytest.raises(CodecError, match=r'cd_vgg19_small16x_e\d\.pth: no such file'):
            make_stylizer(name, weights=tmp_path)
    elif method.needs_backbone:
        with pytest.raises(BaselineError, match=f'{name} needs a backbone'):
            make_stylizer(name, weights=tmp_path)
    else:
        assert make_stylizer(name).name == name


def test_an_unknown_method_is_named_with_those_there_are():
    with pytest.raises(BaselineError, match=r"no method 'gatys'; expected one of \('adain',"):
        make_stylizer('gatys')

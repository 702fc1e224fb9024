"""Training the parts of the embedded backbone, in miniature, into a folder that loads and runs."""

import csv
import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from muon_ad.cli import main
from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.backbone import load_backbone
from muon_ad.distill.features import FeatureBackbone
from muon_ad.distill.recommended import Recommendation
from muon_ad.distill.recommended import recommendation
from muon_ad.distill.recommended import RecommendationError
from muon_ad.networks.feature_encoder import FeatureEncoder
from muon_ad.train import backbone as training
from muon_ad.train import backbone_parts
from muon_ad.train import perceptual
from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.checkpoint import save_checkpoint


def picture(seed: int, side: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope='module')
def features():
    torch.manual_seed(0)
    return perceptual.Features()


@pytest.fixture(scope='module')
def trained(tmp_path_factory, features):
    """A folder in which all three parts were trained for a few steps by the command."""
    folder = tmp_path_factory.mktemp('backbone')
    (folder / 'pictures').mkdir()
    for seed in range(3):
        cv2.imwrite(str(folder / 'pictures' / f'{seed}.png'), picture(seed, 100))
    torch.save(features.state_dict(), folder / 'features.pth')
    for part in ('autoencoder', 'denoiser', 'encoder'):
        assert main([
            'train', 'backbone', part, '--pictures', str(folder / 'pictures'), '--textures', '0',
            '--features', str(folder / 'features.pth'), '--out', str(folder), '--steps', '3',
            '--batch', '2', '--crop', '32',
        ]) == 0
    return folder


def test_the_command_leaves_a_backbone_that_loads_and_attends(trained):
    backbone = load_backbone(trained / 'backbone', attention='denoiser')
    assert backbone.recommended == training.RECOMMENDED['denoiser']
    assert (backbone.downscale, backbone.latent_channels, backbone.multiple) == (4, 8, 16)
    image = torch.from_numpy(picture(5, 64)).permute(2, 0, 1)[None] / 255
    latents = backbone.encode(image)
    assert latents.shape == (1, 8, 16, 16)
    last_six = backbone.layers[-6:]
    assert all(name.startswith('up_blocks') for name in last_six)
    seen = backbone.attend(latents, 500, last_six)
    assert [each.query.shape[2] for each in seen] == [16, 16, 64, 64, 256, 256]
    assert backbone.decode(latents).shape == image.shape
    prediction = backbone.denoise(latents, 500)
    assert torch.isfinite(prediction).all() and prediction.shape == latents.shape


def test_the_log_has_every_loss_and_the_weights_are_in_half_precision(trained):
    with (trained / 'denoiser' / 'log.csv').open(newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert int(rows[-1]['step']) == 3
    assert float(rows[-1]['velocity']) > 0 and float(rows[-1]['likeness']) > 0
    vae = trained / 'backbone' / 'vae'
    weights = load_file(vae / 'diffusion_pytorch_model.safetensors')
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert json.loads((vae / 'config.json').read_text())['scaling_factor'] != 1.0


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(features, tmp_path):
    recipe = training.Recipe('autoencoder', 4, 2, 32, 2e-3)
    pictures = [picture(1, 80)]

    def learning() -> training.Learning:
        torch.manual_seed(recipe.seed)
        return training.Learning(backbone_parts.AutoencoderPart(features, 8), pictures, recipe)

    whole, first, second = learning(), learning(), learning()
    for _ in range(4):
        whole.advance()
    for _ in range(2):
        first.advance()
    save_checkpoint(tmp_path / CHECKPOINT, first.state())
    second.load(tmp_path / CHECKPOINT)
    for _ in range(2):
        second.advance()
    for name, value in whole.result().state_dict().items():
        assert torch.equal(value, second.result().state_dict()[name]), name
    second.recipe = dataclasses.replace(recipe, crop=64)
    with pytest.raises(ValueError, match='crop'):
        second.load(tmp_path / CHECKPOINT)


@pytest.mark.parametrize('make', [
    lambda features: backbone_parts.AutoencoderPart(features, 16),
    lambda features: backbone_parts.EncoderPart(features, torch.rand(2, 3, 32, 32)),
])
def test_a_part_learns(make, features):
    torch.manual_seed(0)
    recipe = training.Recipe('part', 200, 2, 32, 2e-3)
    learning = training.Learning(make(features), [picture(1, 64)], recipe)
    totals = [learning.advance()['total'] for _ in range(60)]
    assert np.mean(totals[-5:]) < 0.85 * np.mean(totals[:5])


def test_the_denoiser_asks_for_its_autoencoder(features, tmp_path):
    with pytest.raises(ValueError, match='train backbone autoencoder'):
        training.make_part('denoiser', features, [], tmp_path)


def test_the_encoder_serves_as_feature_network(trained):
    encoder = perceptual.load_features(trained / 'backbone' / 'encoder')
    image = torch.rand(1, 3, 48, 40)
    wanted = perceptual.Features()(image)
    assert [x.shape for x in encoder(image)] == [x.shape for x in wanted]
    assert not any(p.requires_grad for p in encoder.parameters())
    with pytest.raises(perceptual.FeatureError, match='no feature encoder'):
        perceptual.load_features(trained / 'pictures')


def test_attention_over_features_looks_up_the_most_similar(trained):
    backbone = load_backbone(trained / 'backbone')     # what it recommends
    assert isinstance(backbone, FeatureBackbone)
    assert backbone.recommended == training.RECOMMENDED['features']
    image = torch.from_numpy(picture(5, 64)).permute(2, 0, 1)[None] / 255
    latents = backbone.encode(image).requires_grad_()
    seen = backbone.attend(latents, 0, backbone.layers)
    assert [each.query.shape for each in seen] == [
        (1, 1, 256, 128), (1, 1, 256, 64), (1, 1, 64, 128)]
    for each in seen:
        # Among its own keys, a place is most like itself.
        found = (each.query @ each.key.mT).argmax(dim=-1)
        assert (found == torch.arange(found.shape[-1])).float().mean() > 0.9
        weights = torch.softmax(each.query @ each.key.mT / each.query.shape[-1] ** 0.5, dim=-1)
        torch.testing.assert_close(each.output, weights @ each.value, rtol=1e-4, atol=1e-4)
    sum(each.output.sum() for each in seen).backward()
    assert latents.grad.abs().sum() > 0
    assert backbone.timesteps(50) == [0]


def test_a_folder_recommends_what_it_has_been_told(tmp_path):
    assert recommendation(tmp_path) == Recommendation('denoiser', {})
    path = tmp_path / 'stylize.json'
    path.write_text('{"attention": "features", "features": {"lr": 0.1}}')
    assert recommendation(tmp_path) == Recommendation('features', {'features': {'lr': 0.1}})
    for text in ('', '[]', '{}', '{"attention": "eyes"}', '{"attention": "features", "eyes": {}}',
                 '{"attention": "features", "features": {"steps": 3}}',
                 '{"attention": "features", "features": 3}'):
        path.write_text(text)
        with pytest.raises(RecommendationError, match='stylize.json.*expected'):
            recommendation(tmp_path)


def test_attention_over_features_says_what_it_lacks(trained, tmp_path):
    with pytest.raises(BackboneError, match="attention is 'eyes'"):
        load_backbone(trained / 'backbone', attention='eyes')
    with pytest.raises(BackboneError, match='no encoder/config.json'):
        FeatureBackbone.load(tmp_path)
    backbone = FeatureBackbone.load(trained / 'backbone')
    latents = torch.zeros(1, 8, 8, 8)
    with pytest.raises(BackboneError, match='relu9_1'):
        backbone.attend(latents, 0, ['relu9_1'])
    with pytest.raises(BackboneError, match='no denoiser'):
        backbone.denoise(latents, 0)


def test_an_encoder_has_the_channels_it_is_told():
    found = FeatureEncoder((4, 6, 8, 10))(torch.rand(2, 3, 20, 24))
    assert [tuple(x.shape[1:]) for x in found] == [(4, 20, 24), (6, 10, 12), (8, 5, 6), (10, 3, 3)]

"""Content as CLIP sees it, with a tiny random CLIP of transformers' own classes."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessor
from transformers import CLIPVisionConfig
from transformers import CLIPVisionModelWithProjection

from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.backbone import load_backbone
from muon_ad.distill.clip import clip_loss
from muon_ad.distill.clip import ClipFeatures
from muon_ad.distill.settings import Settings
from muon_ad.distill.stylize import stylize

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('clip')
    CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, projection_dim=8, num_hidden_layers=2,
        num_attention_heads=2, image_size=32, patch_size=8)).save_pretrained(folder)
    CLIPImageProcessor(size={'shortest_edge': 32}, crop_size=32).save_pretrained(folder)
    return folder


def test_features_are_those_of_the_librarys_preprocessing(folder):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    pixels = CLIPImageProcessor.from_pretrained(folder)(image, return_tensors='pt')
    model = CLIPVisionModelWithProjection.from_pretrained(folder).eval()
    expected = torch.nn.functional.normalize(model(**pixels).image_embeds)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    found = ClipFeatures.load(folder, CPU)(tensor)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_loss_falls_along_its_gradient(folder):
    features = ClipFeatures.load(folder, CPU)
    torch.manual_seed(0)
    wanted, image = features(torch.rand(2, 3, 40, 56)), torch.rand(2, 3, 40, 56)
    image.requires_grad_()
    before = clip_loss(features(image), wanted)
    gradient = torch.autograd.grad(before, image)[0]
    assert clip_loss(features(image - 0.1 * gradient / gradient.norm()), wanted) < before
    assert clip_loss(wanted, wanted) == pytest.approx(0, abs=1e-6)


def test_stylising_holds_the_features(folder, backbone_folder):
    content, style = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
    settings = Settings(steps=8, size=24, timesteps=1, start='noise', clip=str(folder))
    backbone = load_backbone(backbone_folder('sd3'))
    with_clip = stylize(content, style, backbone, replace(settings, clip_weight=100.0))
    without = stylize(content, style, backbone, replace(settings, clip_weight=0.0))
    assert with_clip.history[-1].clip < without.history[-1].clip


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(BackboneError, match='there is no config.json; a CLIP folder is'):
        ClipFeatures.load(tmp_path, CPU)
    copied = shutil.copytree(folder, tmp_path / 'clip')
    (copied / 'model.safetensors').unlink()
    with pytest.raises(BackboneError, match='clip: cannot be loaded'):
        ClipFeatures.load(copied, CPU)
    config = json.loads((folder / 'preprocessor_config.json').read_text())
    del config['crop_size']
    (copied / 'preprocessor_config.json').write_text(json.dumps(config))
    shutil.copy(folder / 'model.safetensors', copied)
    with pytest.raises(BackboneError, match='crop_size'):
        ClipFeatures.load(copied, CPU)

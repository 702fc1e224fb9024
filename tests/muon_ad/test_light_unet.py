"""The light U-Net: its plan, its format on the disk, and who can use it."""

import copy
import json
import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.backbone import load_backbone
from muon_ad.distill.processors import self_attention_layers
from muon_ad.networks.dynamic_conv import NoAttention
from muon_ad.networks.dynamic_conv import TokenDynamicConv
from muon_ad.networks.light_unet import attentions
from muon_ad.networks.light_unet import feed_forwards
from muon_ad.networks.light_unet import level
from muon_ad.networks.light_unet import Light
from muon_ad.networks.light_unet import LightUNet
from muon_ad.networks.light_unet import residual_blocks
from muon_ad.networks.light_unet import shrink
from muon_ad.networks.light_unet import skips

MIDDLE = 'mid_block.attentions.0.transformer_blocks.0.attn1'
FIRST = 'down_blocks.1.attentions.0.transformer_blocks.0.attn1'
RESNET = 'up_blocks.0.resnets.0'


def dense_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(8, 16, 16), attention_head_dim=4, norm_num_groups=4,
        cross_attention_dim=8,
        down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'),
        up_block_types=('UpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'),
    ).eval()


def a_plan(model: UNet2DConditionModel) -> Light:
    """One that cuts something of every kind."""
    gone = {MIDDLE, FIRST}
    return Light(
        heads={name: 2 for name in attentions(model) if name not in gone},
        groups={name: 3 for name in residual_blocks(model)},
        features={name: 24 for name in feed_forwards(model)},
        dynamic={MIDDLE: 2}, removed=[FIRST], without_skip={RESNET: 16},
    )


def inputs(height: int = 8, width: int = 12) -> dict:
    generator = torch.Generator().manual_seed(1)
    return {'sample': torch.randn(2, 4, height, width, generator=generator),
            'timestep': torch.tensor([3, 700]),
            'encoder_hidden_states': torch.randn(2, 5, 8, generator=generator)}


def lit(model: nn.Module) -> LightUNet:
    """A light U-Net whose dynamic convolution does something."""
    torch.manual_seed(2)
    light = LightUNet.from_config(dict(model.config), light=a_plan(model).to_dict()).eval()
    nn.init.normal_(light.get_submodule(MIDDLE).bases)
    return light


@pytest.fixture(scope='module')
def light():
    return lit(dense_unet())


def test_it_is_what_the_plan_says(light):
    dense = dense_unet()
    assert isinstance(light.get_submodule(MIDDLE), TokenDynamicConv)
    assert isinstance(light.get_submodule(FIRST), NoAttention)
    assert {each.heads for each in attentions(light).values()} == {2}
    assert {each.norm2.num_groups for each in residual_blocks(light).values()} == {3}
    assert {each.net[2].in_features for each in feed_forwards(light).values()} == {24}
    assert skips(dense)[RESNET] == (16, 16)
    assert RESNET not in skips(light)
    assert len(skips(light)) == len(skips(dense)) - 1
    assert self_attention_layers(light) == [
        name for name in self_attention_layers(dense) if name not in (MIDDLE, FIRST)]
    assert light(**inputs()).sample.shape == (2, 4, 8, 12)


@torch.no_grad()
def test_it_is_saved_and_loaded_as_any_diffusers_model(light, tmp_path):
    light.save_pretrained(tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    assert config['_class_name'] == 'LightUNet'
    assert config['block_out_channels'] == [8, 16, 16]
    assert Light.from_dict(config['light']) == a_plan(dense_unet())
    loaded = LightUNet.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
    assert torch.equal(loaded(**inputs()).sample, light(**inputs()).sample)


@torch.no_grad()
def test_cutting_a_dense_one_in_place_gives_the_same_network():
    model = dense_unet()
    light = LightUNet.from_config(dict(model.config), light=a_plan(model).to_dict()).eval()
    kept = {name: list(range(2)) for name in attentions(model)} | {
        name: [0, 1, 2] for name in residual_blocks(model)} | {
        name: list(range(24)) for name in feed_forwards(model)}
    shrink(model, a_plan(model), kept)
    light.load_state_dict(model.state_dict())
    torch.testing.assert_close(light(**inputs()).sample, model(**inputs()).sample)


@torch.no_grad()
def test_a_plan_that_cuts_nothing_changes_nothing():
    dense = dense_unet()
    light = LightUNet.from_config(dict(dense.config), light=Light().to_dict()).eval()
    light.load_state_dict(dense.state_dict())
    assert torch.equal(light(**inputs()).sample, dense(**inputs()).sample)


@torch.no_grad()
def test_a_copy_convolves_pictures_of_its_own_shape(light):
    twin = copy.deepcopy(light)
    tall = twin(**inputs(16, 8)).sample
    wide = light(**inputs(8, 12)).sample
    assert torch.equal(twin(**inputs(8, 12)).sample, wide)
    assert torch.equal(light(**inputs(16, 8)).sample, tall)


def test_scales_are_counted_from_the_finest(light):
    assert [level(light, name) for name in (
        'conv_in.weight', 'time_embedding.linear_1', 'down_blocks.0.resnets.0', 'mid_block',
        'up_blocks.0', 'up_blocks.2.resnets.1', 'conv_out')] == [0, 0, 0, 2, 2, 0, 0]


@pytest.mark.parametrize(('plan', 'said'), [
    ({'head': {}}, 'expected an object with some of'),
    ([], 'expected an object with some of'),
    ({'heads': {MIDDLE: 0}}, 'module: number above 0'),
    ({'heads': [MIDDLE]}, 'module: number above 0'),
    ({'removed': MIDDLE}, 'a list of modules'),
    ({'heads': {'nowhere': 1}}, "'nowhere' as Attention; the U-Net has nothing there"),
    ({'groups': {MIDDLE: 1}}, 'as ResnetBlock2D; the U-Net has Attention there'),
    ({'dynamic': {MIDDLE.replace('attn1', 'attn2'): 4}}, 'expected a self-attention layer'),
    ({'heads': {MIDDLE: 5}}, 'increasing indices from 0 to 3'),
])
def test_a_plan_that_does_not_fit_is_refused(plan, said):
    with pytest.raises(ValueError, match=said):
        LightUNet.from_config(dict(dense_unet().config), light=plan)


def test_a_backbones_light_unet_is_loaded(backbone_folder, tmp_path):
    folder = tmp_path / 'light'
    shutil.copytree(backbone_folder('plain'), folder)
    dense = UNet2DConditionModel.from_pretrained(folder / 'unet', low_cpu_mem_usage=False)
    names = [name for name in self_attention_layers(dense) if name.startswith('up_blocks')]
    light = LightUNet.from_config(dict(dense.config), light=Light(removed=names[:1]).to_dict())
    shutil.rmtree(folder / 'unet')
    light.save_pretrained(folder / 'unet')
    backbone = load_backbone(folder)
    assert backbone.layers == [n for n in self_attention_layers(dense) if n != names[0]]
    latents = torch.randn(1, 8, 8, 8)
    assert backbone.denoise(latents, 500).shape == latents.shape
    config = json.loads((folder / 'unet/config.json').read_text())
    config['light'] = {'removed': ['nowhere']}
    (folder / 'unet/config.json').write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="light names 'nowhere'"):
        load_backbone(folder)

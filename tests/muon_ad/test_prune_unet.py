"""From a dense U-Net to a light one: sizes, weights, recovery, the commands."""

import json

import cv2
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import nn

from muon_ad.cli import main
from muon_ad.distill.backbone import load_backbone
from muon_ad.networks.dynamic_conv import TokenDynamicConv
from muon_ad.networks.light_unet import attentions
from muon_ad.networks.light_unet import level
from muon_ad.networks.light_unet import Light
from muon_ad.networks.light_unet import LightUNet
from muon_ad.networks.light_unet import skips
from muon_ad.prune.denoising import mean_loss
from muon_ad.prune.denoising import noisy_batches
from muon_ad.prune.unet import choose
from muon_ad.prune.unet import convert
from muon_ad.prune.unet_plan import parameters_by_part
from muon_ad.prune.unet_plan import plan_light
from muon_ad.prune.unet_plan import PlanError
from muon_ad.prune.unet_plan import Shares
from muon_ad.prune.unet_recovery import recovery_recipe
from muon_ad.prune.unet_recovery import RecoveryPart
from muon_ad.prune.unet_scores import measure
from muon_ad.prune.unet_table import costs
from muon_ad.prune.unet_table import light_shape
from muon_ad.train.backbone import Learning

# Stable Diffusion 1.5, as its config.json has it.
SD15 = {'_class_name': 'UNet2DConditionModel', 'sample_size': 64, 'cross_attention_dim': 768,
        'attention_head_dim': 8}
PICTURES = [cv2.resize(each, (120, 100), interpolation=cv2.INTER_CUBIC) for each in
            np.random.default_rng(0).integers(0, 255, (4, 6, 6, 3), np.uint8)]


def on_meta(**config: object) -> UNet2DConditionModel:
    with torch.device('meta'):
        return UNet2DConditionModel(**config).eval()


@pytest.fixture(scope='module')
def stable_diffusion():
    return on_meta(**{name: value for name, value in SD15.items() if name[0] != '_'})


@pytest.fixture(scope='module')
def picture_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    for number, picture in enumerate(PICTURES):
        cv2.imwrite(str(folder / f'{number}.png'), picture)
    return folder


def test_stable_diffusion_loses_what_the_paper_says(stable_diffusion):
    before = parameters_by_part(stable_diffusion)
    assert sum(before.values()) == 859_520_964      # as published
    light = light_shape(stable_diffusion, Shares())
    after = parameters_by_part(light)
    lost = {part: 1 - after[part] / before[part] for part in before}
    assert lost['shallow'] == pytest.approx(0.25, abs=0.01)
    assert lost['deep'] == pytest.approx(0.55, abs=0.01)
    assert lost['shallow'] < lost['middle'] < lost['deep']
    assert sum(after.values()) / sum(before.values()) == pytest.approx(0.60, abs=0.01)


def test_stable_diffusion_keeps_half_the_heads_and_skips_at_three_scales(stable_diffusion):
    light = light_shape(stable_diffusion, Shares())
    assert {part.heads for part in attentions(light).values()} == {4}
    assert not [name for name in attentions(light) if name.startswith('mid') and 'attn1' in name]
    assert {level(light, name) for name in skips(light)} == {0, 1, 2}
    assert {level(stable_diffusion, name) for name in skips(stable_diffusion)} == {0, 1, 2, 3}


def test_costs_are_counted_by_part(stable_diffusion):
    dense = costs(stable_diffusion)
    # What others count for a pass over 64x64 latents: 401 billion multiply-adds.
    assert dense['total'].flops / 2 == pytest.approx(401e9, rel=0.01)
    first = costs(stable_diffusion, 32)
    assert first['total'].parameters == dense['total'].parameters
    assert 4 * first['total'].flops < dense['total'].flops
    assert sum(dense[part].flops for part in ('shallow', 'middle', 'deep')) == (
        dense['total'].flops)
    reading = sum(
        skip * (9 * stable_diffusion.get_submodule(name).out_channels
                + stable_diffusion.get_submodule(name).out_channels + 2)
        for name, (_, skip) in skips(stable_diffusion).items())
    assert dense['skips'].parameters == reading
    inside = sum(each.numel() for part in attentions(stable_diffusion).values()
                 for each in part.parameters())
    assert dense['attention'].parameters == inside


def test_shares_are_kept_where_they_can_be():
    dense = on_meta(block_out_channels=(64, 128), cross_attention_dim=16, layers_per_block=1,
                    down_block_types=('CrossAttnDownBlock2D', 'DownBlock2D'),
                    up_block_types=('UpBlock2D', 'CrossAttnUpBlock2D'))
    before = parameters_by_part(dense)
    assert before['middle'] == 0
    after = parameters_by_part(light_shape(dense, Shares(shallow=0.3, deep=0.5, heads=1)))
    assert after['shallow'] / before['shallow'] == pytest.approx(0.7, abs=0.02)
    assert after['deep'] / before['deep'] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(('wrong', 'said'), [
    ({'shallow': 1.0}, 'shallow is 1.0; expected 0 or more and below 1'),
    ({'shallow': 0.6}, 'shallow is 0.6 and deep is 0.55'),
    ({'heads': 0.0}, 'heads is 0.0; expected above 0'),
    ({'skips': 0}, 'skips is 0; expected 1 or more'),
])
def test_shares_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(PlanError, match=said):
        Shares(**wrong)


def test_plans_that_cannot_be_are_refused(stable_diffusion):
    layers = [name for name in attentions(stable_diffusion) if name.endswith('attn1')]
    with pytest.raises(PlanError, match='expected one or more'):
        plan_light(stable_diffusion, Shares(), layers)
    with pytest.raises(PlanError, match=r"layers to drop are \['nowhere'\]"):
        plan_light(stable_diffusion, Shares(), ['nowhere'])
    with pytest.raises(PlanError, match="replacement is 'zero'"):
        plan_light(stable_diffusion, Shares(), layers[:1], 'zero')
    with pytest.raises(PlanError, match='is a light one already'):
        plan_light(light_shape(stable_diffusion, Shares()), Shares())


@pytest.fixture(scope='module')
def dense(backbone_folder):
    return load_backbone(backbone_folder('plain'))


def light_of(dense):
    batches = noisy_batches(dense, PICTURES, 2, 2, 32, 0)
    measured = measure(dense, batches)
    plan = plan_light(dense.denoiser, Shares())
    kept = choose(plan, {**measured.heads, **measured.groups, **measured.features})
    return convert(dense.denoiser, plan, kept), kept


def test_weights_are_those_of_the_parts_that_stay(dense):
    before = {name: each.clone() for name, each in dense.denoiser.state_dict().items()}
    light, kept = light_of(dense)
    name = next(name for name in kept if name.endswith('attn1'))
    width = before[f'{name}.to_q.weight'].shape[0] // 2
    rows = [head * width + n for head in kept[name] for n in range(width)]
    assert torch.equal(light.get_submodule(name).to_q.weight, before[f'{name}.to_q.weight'][rows])
    assert torch.equal(light.conv_in.weight, before['conv_in.weight'])
    assert all(torch.equal(each, before[key]) for key, each in dense.denoiser.state_dict().items())


def test_several_transformers_in_a_row_and_sizes_of_pictures_are_no_obstacle(backbone_folder):
    xl = load_backbone(backbone_folder('sdxl'))
    light, _ = light_of(xl)
    middle = [name for name, part in light.named_modules() if isinstance(part, TokenDynamicConv)]
    assert middle == [f'mid_block.attentions.0.transformer_blocks.{n}.attn1' for n in (0, 1)]
    latents = torch.randn(2, 4, 4, 8)
    assert xl.with_denoiser(light).predict(latents, 500).shape == latents.shape


def test_recovery_draws_the_light_one_to_the_dense_one(dense):
    torch.manual_seed(0)
    light, kept = light_of(dense)
    assert not light.get_submodule('mid_block.attentions.0.transformer_blocks.0.attn1').bases.any()
    part = RecoveryPart(dense, light, kept)
    learning = Learning(part, PICTURES, recovery_recipe(12, 4, 32, 2e-3, 0))
    history = [learning.advance() for _ in range(12)]
    assert set(history[0]) == {'rate', 'total', *part.COLUMNS}
    assert all(history[0][name] > 0 for name in part.COLUMNS)
    crops = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))

    def losses(model: nn.Module) -> dict:
        again = RecoveryPart(dense, model, kept)
        return again.losses(crops, torch.Generator().manual_seed(6))

    start = losses(light_of(dense)[0])
    end = losses(learning.result())
    assert end['features'] < 0.9 * start['features']
    assert end['prediction'] < start['prediction']
    assert light.get_submodule('mid_block.attentions.0.transformer_blocks.0.attn1').bases.any()
    assert all(not each.requires_grad for each in dense.denoiser.parameters())


def test_an_uncut_network_has_nothing_to_recover(dense):
    part = RecoveryPart(dense, convert(dense.denoiser, Light(), {}), {})
    losses = part.losses(torch.rand(2, 3, 32, 32), torch.Generator().manual_seed(0))
    for name in ('prediction', 'features', 'maps'):
        assert losses[name].item() == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope='module')
def pruned(backbone_folder, picture_folder, tmp_path_factory):
    """A folder like Stable Diffusion's, pruned by the command."""
    out = tmp_path_factory.mktemp('pruned') / 'light'
    arguments = ['prune', 'unet', str(backbone_folder('sd15')), '-o', str(out), '--images',
                 str(picture_folder), '--recover', '2', '--batch', '2', '--crop', '16', '--rule',
                 'loss', '--layers', '4']
    assert main(arguments) == 0
    return out


def test_the_command_leaves_a_backbone_that_is_lighter(pruned, backbone_folder):
    dense, light = load_backbone(backbone_folder('sd15')), load_backbone(pruned)
    assert isinstance(light.denoiser, LightUNet)
    assert len(light.layers) == 4
    assert sum(map(torch.numel, light.denoiser.parameters())) < 0.75 * sum(
        map(torch.numel, dense.denoiser.parameters()))
    report = json.loads((pruned / 'pruning.json').read_text())
    assert set(report['denoising loss']) == {'dense', 'pruned', 'recovered'}
    assert len(report['layers']) == len(dense.layers) - 1
    batches = noisy_batches(light, PICTURES, 1, 2, 16, 0)
    assert np.isfinite(mean_loss(light, batches))
    stored = load_file(pruned / 'unet' / 'diffusion_pytorch_model.safetensors')
    assert {each.dtype for each in stored.values()} == {torch.float32}


def test_what_the_command_leaves_is_a_pipeline_for_diffusers(pruned):
    unet = LightUNet.from_pretrained(pruned / 'unet', low_cpu_mem_usage=False)
    pipeline = StableDiffusionPipeline.from_pretrained(
        pruned, unet=unet, local_files_only=True, low_cpu_mem_usage=False, safety_checker=None)
    latents = pipeline('', num_inference_steps=1, height=16, width=16, output_type='latent')
    assert latents.images.shape == (1, 4, 4, 4)


def test_pictures_are_redrawn_with_what_the_command_leaves(pruned, picture_folder, tmp_path):
    photo, style = (str(picture_folder / f'{n}.png') for n in (0, 1))
    assert main(['stylize', photo, style, '-o', str(tmp_path / 'out.png'), '--backbone',
                 str(pruned), '--steps', '2', '--size', '32']) == 0
    assert (tmp_path / 'out.png').is_file()


@pytest.mark.parametrize(('arguments', 'said'), [
    (['--recover', '-1'], '--recover is -1; expected 0 or more'),
    (['--batch', '0'], '--batch is 0; expected 1 or more'),
    (['--rate', '0'], '--rate is 0.0; expected a number above 0'),
    (['--layers', '3'], '--layers is 3 without a --rule'),
    (['--crop', '20'], '--crop is 20; expected a multiple of 8'),
    (['--heads', '2'], 'heads is 2.0; expected above 0 and up to 1'),
    (['--rule', 'loss', '--layers', '40'], '--layers is 40; expected 1 to'),
])
def test_bad_options_are_one_line(backbone_folder, picture_folder, tmp_path, capsys, arguments,
                                  said):
    folder = str(backbone_folder('plain'))
    assert main(['prune', 'unet', folder, '-o', str(tmp_path / 'out'), '--images',
                 str(picture_folder), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_one_picture_is_not_enough_and_there_is_nothing_to_resume(
    backbone_folder, picture_folder, tmp_path, capsys,
):
    command = ['prune', 'unet', str(backbone_folder('plain')), '-o', str(tmp_path / 'out'),
               '--crop', '8', '--batch', '1', '--images']
    assert main([*command, str(picture_folder / '0.png')]) == 2
    assert '--images has 1 picture; expected 2 or more' in capsys.readouterr().err
    assert main([*command, str(picture_folder), '--resume']) == 2
    assert 'no checkpoint to resume' in capsys.readouterr().err


def test_other_folders_are_refused(backbone_folder, tmp_path, capsys):
    assert main(['prune', 'unet', str(backbone_folder('sd3')), '-o', str(tmp_path / 'x')]) == 2
    assert 'expected a pipeline with a unet/' in capsys.readouterr().err
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'file').touch()
    assert main(['prune', 'unet', str(backbone_folder('plain')), '-o',
                 str(tmp_path / 'full')]) == 2
    assert 'is there already' in capsys.readouterr().err


def test_the_table_of_a_folder_and_of_a_bare_configuration(backbone_folder, tmp_path, capsys):
    file = tmp_path / 'config.json'
    file.write_text((backbone_folder('sdxl') / 'unet' / 'config.json').read_text())
    assert main(['prune', 'table', str(file), '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    dense, light = found['unets'].values()
    model = UNet2DConditionModel.from_pretrained(backbone_folder('sdxl') / 'unet',
                                                 low_cpu_mem_usage=False)
    assert dense['total']['parameters'] == sum(map(torch.numel, model.parameters()))
    assert light['total']['parameters'] < dense['total']['parameters']
    assert light['total']['flops'] < dense['total']['flops']


def test_the_table_holds_several_against_the_first(pruned, backbone_folder, capsys):
    folder = backbone_folder('sd15')
    assert main(['prune', 'table', str(folder), str(pruned), '--size', '8']) == 0
    shown = capsys.readouterr().out
    assert 'of which skips' in shown and '8x8 latents' in shown and '(-' in shown


@pytest.mark.parametrize(('content', 'said'), [
    ('{', 'is no configuration of a U-Net'), ('[]', 'is no configuration of a U-Net'),
    ('{"_class_name": "AutoencoderKL"}', 'expected JSON with a _class_name of'),
    ('{"_class_name": "UNet2DConditionModel", "down_block_types": ["No"]}', 'can make no U-Net'),
])
def test_files_that_are_no_unet_are_refused(tmp_path, capsys, content, said):
    (tmp_path / 'config.json').write_text(content)
    assert main(['prune', 'table', str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
    assert main(['prune', 'table', str(tmp_path / 'nowhere')]) == 2
    assert 'there is no U-Net' in capsys.readouterr().err

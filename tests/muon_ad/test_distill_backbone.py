"""Local diffusers folders as backbones: latents, prompts, noise, and errors for what is wrong."""

import json
import shutil

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers import UNet2DConditionModel

from muon_ad.distill import backbone as backbones
from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.backbone import load_backbone
from muon_ad.distill.noise import Diffusion
from muon_ad.distill.noise import FlowMatching
from muon_ad.distill.noise import load_noise_schedule
from muon_ad.distill.prompts import null_prompt

SIZES = {'sd15': (4, 8, 4), 'sdxl': (4, 8, 4), 'sd3': (4, 8, 16), 'plain': (4, 8, 8)}


@pytest.mark.parametrize('name', SIZES)
def test_pictures_become_latents_and_come_back(backbone_folder, name):
    backbone = load_backbone(backbone_folder(name))
    assert (backbone.downscale, backbone.multiple, backbone.latent_channels) == SIZES[name]
    image = torch.rand(2, 3, 32, 16)
    latents = backbone.encode(image)
    assert latents.shape == (2, backbone.latent_channels, 8, 4)
    back = backbone.decode(latents)
    assert back.shape == image.shape
    assert back.min() >= 0 and back.max() <= 1
    latents.requires_grad_()
    assert torch.autograd.grad(backbone.decode(latents).sum(), latents)[0].abs().max() > 0


def test_latents_are_scaled_and_shifted_as_sd3_wants(backbone_folder):
    backbone = load_backbone(backbone_folder('sd3'))
    image = torch.rand(1, 3, 16, 16)
    raw = backbone._autoencoder.encode(image * 2 - 1).latent_dist.mean
    torch.testing.assert_close(backbone.encode(image), (raw - 0.0609) * 1.5305)
    shown = (backbone._autoencoder.decode(raw).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(backbone.decode(backbone.encode(image)), shown)


def test_nothing_is_trained(backbone_folder):
    backbone = load_backbone(backbone_folder('sd15'))
    for model in (backbone._autoencoder, backbone.denoiser):
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(('name', 'pipeline'), [
    ('sd15', 'StableDiffusionPipeline'), ('sdxl', 'StableDiffusionXLPipeline'),
    ('sd3', 'StableDiffusion3Pipeline')])
def test_one_step_is_that_of_the_librarys_pipeline(backbone_folder, name, pipeline):
    """The empty prompt, the sizes and the move between time-steps, against diffusers' own."""
    folder = backbone_folder(name)
    backbone = load_backbone(folder)
    missing = {'text_encoder_3': None, 'tokenizer_3': None} if name == 'sd3' else {}
    pipe = getattr(diffusers, pipeline).from_pretrained(folder, low_cpu_mem_usage=False, **missing)
    if name != 'sd3':
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    latents = torch.randn(1, backbone.latent_channels, 8, 8)
    with torch.no_grad():
        first, second = backbone.timesteps(2)
        found = latents
        for now, then in ((first, second), (second, None)):
            found = backbone.step(found, backbone.denoise(found, now), now, then)
    expected = pipe(prompt='', height=32, width=32, num_inference_steps=2, guidance_scale=1.0,
                    latents=latents, output_type='latent').images
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_half_precision_is_that_of_the_denoiser_alone(backbone_folder):
    backbone = load_backbone(backbone_folder('sdxl'), dtype=torch.bfloat16)
    latents = backbone.encode(torch.rand(1, 3, 32, 32))
    assert latents.dtype == torch.float32
    assert backbone.attend(latents, 10, backbone.layers[:1])[0].query.dtype == torch.bfloat16
    assert backbone.denoise(latents, 10).dtype == torch.float32


def test_t5_takes_part_where_it_is_there(backbone_folder):
    prompts = {name: null_prompt(backbone_folder(name), load_backbone(backbone_folder(name))
                                 .denoiser)['encoder_hidden_states']
               for name in ('sd3', 'sd3_t5')}
    clip, t5 = 77, 256
    for prompt in prompts.values():
        assert prompt.shape == (1, clip + t5, 64)
        assert prompt[:, :clip].any()
    assert not prompts['sd3'][:, clip:].any()
    assert prompts['sd3_t5'][:, clip:].any()


def test_without_text_encoder_the_prompt_is_zeros(backbone_folder):
    for name, width in (('sd15', 16), ('sdxl', 32), ('sd3', 64)):
        folder = backbone_folder(name)
        denoiser = load_backbone(folder).denoiser
        prompt = null_prompt(folder / 'nowhere', denoiser)
        assert prompt['encoder_hidden_states'].shape == (1, 1, width)
        assert all(not part.any() for part in prompt.values())
        encoded = null_prompt(folder, denoiser)
        assert prompt.keys() == encoded.keys()
        assert encoded['encoder_hidden_states'].any()


@pytest.mark.parametrize('prediction', ['epsilon', 'sample', 'v_prediction'])
def test_split_inverts_each_prediction(prediction):
    noise = Diffusion(DDIMScheduler(prediction_type=prediction))
    latents, epsilon = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    alpha, sigma = noise.levels(400)
    assert alpha ** 2 + sigma ** 2 == pytest.approx(1)
    output = {'epsilon': epsilon, 'sample': latents,
              'v_prediction': alpha * epsilon - sigma * latents}[prediction]
    found = noise.split(noise.add_noise(latents, epsilon, 400), output, 400)
    torch.testing.assert_close(found, (latents, epsilon))
    there = noise.step(noise.add_noise(latents, epsilon, 400), output, 400, 700)
    torch.testing.assert_close(there, noise.add_noise(latents, epsilon, 700))


def test_flow_matching_goes_on_a_straight_line():
    noise = FlowMatching(FlowMatchEulerDiscreteScheduler(shift=3.0))
    latents, epsilon = torch.randn(2, 1, 16, 4, 4, dtype=torch.float64)
    noisy = noise.add_noise(latents, epsilon, 250.0)
    torch.testing.assert_close(noisy, 0.75 * latents + 0.25 * epsilon)
    torch.testing.assert_close(noise.split(noisy, epsilon - latents, 250.0), (latents, epsilon))


@pytest.mark.parametrize('name', ['sd15', 'sd3', 'plain'])
def test_noise_is_that_of_the_librarys_scheduler(backbone_folder, name):
    folder = backbone_folder(name)
    noise = load_noise_schedule(folder)
    config = json.loads((folder / 'scheduler' / 'scheduler_config.json').read_text())
    scheduler = getattr(diffusers, config['_class_name']).from_config(config)
    timestep = noise.timesteps(7)[2]
    latents, epsilon = torch.randn(2, 1, 4, 4, 4)
    if name == 'sd3':
        expected = scheduler.scale_noise(latents, scheduler.timesteps[300][None], epsilon)
        timestep = scheduler.timesteps[300].item()
    else:
        expected = scheduler.add_noise(latents, epsilon, torch.tensor([timestep]))
    torch.testing.assert_close(noise.add_noise(latents, epsilon, timestep), expected)


@pytest.mark.parametrize('name', ['sd15', 'sd3', 'plain'])
def test_time_steps_fall_and_differ(backbone_folder, name):
    noise = load_noise_schedule(backbone_folder(name))
    for count, fewer in ((1, 0), (2, 0), (50, 0), (1000, 1)):
        steps = noise.timesteps(count)
        assert count - fewer <= len(steps) <= count
        assert all(np.isfinite(noise.levels(step)).all() for step in steps[:2])
        assert all(a > b for a, b in zip(steps, steps[1:], strict=False))


def test_there_are_no_more_time_steps_than_in_training(backbone_folder):
    assert len(load_noise_schedule(backbone_folder('plain')).timesteps(5000)) == 1000


@pytest.fixture
def copied(backbone_folder, tmp_path):
    def copy(name):
        return shutil.copytree(backbone_folder(name), tmp_path / name)
    return copy


def rewritten(path, **changes):
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **changes}))


def test_no_folder_says_what_a_folder_holds(tmp_path):
    with pytest.raises(BackboneError, match=r'absent: no such folder; a backbone is a folder as'):
        load_backbone(tmp_path / 'absent')
    with pytest.raises(BackboneError, match='there is no model_index.json; a backbone is'):
        load_backbone(tmp_path)


@pytest.mark.parametrize(('part', 'message'), [
    ('unet', 'no unet/ and no transformer/'), ('vae', 'no vae/config.json'),
    ('scheduler', 'no scheduler/scheduler_config.json')])
def test_a_missing_part_is_named(copied, part, message):
    folder = copied('plain')
    shutil.rmtree(folder / part)
    with pytest.raises(BackboneError, match=f'plain: there is {message}; a backbone is a folder'):
        load_backbone(folder)


def test_missing_or_damaged_weights_are_named(copied):
    folder = copied('plain')
    weights = folder / 'unet' / 'diffusion_pytorch_model.safetensors'
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BackboneError, match=r'plain: unet/ cannot be loaded'):
        load_backbone(folder)
    weights.unlink()
    with pytest.raises(BackboneError, match=r'plain: unet/ cannot be loaded: .*; a backbone is'):
        load_backbone(folder)


def test_a_damaged_configuration_is_named(copied):
    folder = copied('plain')
    (folder / 'vae' / 'config.json').write_text('{')
    with pytest.raises(BackboneError, match=r'vae/config.json: cannot be read as JSON'):
        load_backbone(folder)
    (folder / 'vae' / 'config.json').write_text('[]')
    with pytest.raises(BackboneError, match=r'holds list; expected an object'):
        load_backbone(folder)


def test_another_kind_of_model_is_refused(copied):
    folder = copied('plain')
    rewritten(folder / 'vae' / 'config.json', _class_name='VQModel')
    with pytest.raises(BackboneError, match=r"'VQModel'; expected one of \['AutoencoderKL'"):
        load_backbone(folder)


def test_an_inpainting_model_is_refused(copied):
    folder = copied('plain')
    config = UNet2DConditionModel.load_config(folder / 'unet')
    UNet2DConditionModel.from_config({**config, 'in_channels': 17}).save_pretrained(
        folder / 'unet')
    with pytest.raises(BackboneError, match=r'takes 17 channels and vae/ has 8'):
        load_backbone(folder)


def test_an_unknown_prediction_is_refused(copied):
    folder = copied('plain')
    rewritten(folder / 'scheduler' / 'scheduler_config.json', prediction_type='guess')
    with pytest.raises(BackboneError, match=r"'guess'; expected one of \('epsilon'"):
        load_backbone(folder)


def test_a_damaged_text_encoder_is_named(copied):
    folder = copied('sd15')
    (folder / 'text_encoder' / 'model.safetensors').unlink()
    with pytest.raises(BackboneError, match=r'sd15: the empty prompt cannot be encoded'):
        load_backbone(folder)
    shutil.rmtree(folder / 'tokenizer')
    with pytest.raises(BackboneError, match=r'there is text_encoder/ and no tokenizer/'):
        load_backbone(folder)


def test_the_shipped_backbone_that_is_missing_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(backbones, 'models_folder', lambda: tmp_path)
    with pytest.raises(BackboneError, match='the shipped backbone backbone_tiny is not in'):
        load_backbone()

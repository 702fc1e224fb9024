"""Capture of self-attention: the same results as diffusers' own processors, and what was seen."""

from functools import partial

import pytest
import torch
from diffusers.models.attention_processor import Attention as AttentionModule
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.attention_processor import FusedAttnProcessor2_0
from diffusers.models.attention_processor import JointAttnProcessor2_0
from torch import nn

from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.backbone import load_backbone
from muon_ad.distill.processors import capture
from muon_ad.distill.processors import Captured
from muon_ad.distill.processors import CaptureJoint
from muon_ad.distill.processors import CaptureSelf
from muon_ad.distill.processors import self_attention_layers

FOLDERS = ('sd15', 'sdxl', 'sd3', 'plain')


def naive(query, key, value):
    scores = query.double() @ key.double().mT / query.shape[-1] ** 0.5
    return scores.softmax(-1) @ value.double()


def randomised(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double()


SELF_CASES = {
    'plain': {},
    'group norm': {'norm_num_groups': 4},
    'spatial norm': {'spatial_norm_dim': 6},
    'residual, rescaled': {'residual_connection': True, 'rescale_output_factor': 1.7},
    'query and key norm': {'qk_norm': 'layer_norm'},
    'bias': {'bias': True},
}


@pytest.mark.parametrize('options', SELF_CASES.values(), ids=SELF_CASES)
@pytest.mark.parametrize('flat', [True, False])
def test_self_attention_equals_the_librarys(options, flat):
    torch.manual_seed(0)
    if 'spatial_norm_dim' in options and flat:
        pytest.skip('spatial norm takes pictures')
    module = randomised(AttentionModule(32, heads=2, dim_head=8, processor=AttnProcessor2_0(),
                                        **options))
    x = torch.randn(3, 20, 32) if flat else torch.randn(3, 32, 4, 5)
    temb = torch.randn(3, 6, 4, 5).double()
    expected = module(x.double(), temb=temb)
    captured = Captured()
    module.set_processor(CaptureSelf('layer', captured, None))
    assert torch.equal(module(x.double(), temb=temb), expected)
    seen = captured['layer']
    assert seen.query.shape == (3, 2, 20, 8)
    torch.testing.assert_close(seen.output, naive(seen.query, seen.key, seen.value))


def test_self_attention_heeds_a_mask():
    torch.manual_seed(0)
    module = randomised(AttentionModule(16, heads=2, dim_head=8, processor=AttnProcessor2_0()))
    x = torch.randn(2, 6, 16).double()
    mask = torch.zeros(2, 1, 6).double()
    mask[:, :, 3:] = -1e4
    expected = module(x, attention_mask=mask)
    assert not torch.allclose(expected, module(x))
    module.set_processor(CaptureSelf('layer', Captured(), None))
    assert torch.equal(module(x, attention_mask=mask), expected)


@pytest.mark.parametrize('text', [True, False])
@pytest.mark.parametrize('last', [True, False])
def test_joint_attention_equals_the_librarys(text, last):
    torch.manual_seed(0)
    module = randomised(AttentionModule(
        16, heads=2, dim_head=8, added_kv_proj_dim=16, context_pre_only=last, bias=True,
        qk_norm='rms_norm', processor=JointAttnProcessor2_0()))
    image, words = torch.randn(2, 20, 16).double(), torch.randn(2, 7, 16).double()
    arguments = (image, words) if text else (image,)
    expected = module(*arguments)
    captured = Captured()
    module.set_processor(CaptureJoint('layer', captured, None))
    for ours, theirs in zip(module(*arguments), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    seen = captured['layer']
    assert seen.key.shape == (2, 2, 20, 8)      # of the image alone
    torch.testing.assert_close(seen.output, naive(seen.query, seen.key, seen.value))


def note(order, name, *_):
    order.append(name)


def test_layers_come_in_order_of_execution(backbone_folder):
    for folder in FOLDERS:
        backbone = load_backbone(backbone_folder(folder))
        order = []
        hooks = [module.register_forward_pre_hook(partial(note, order, name))
                 for name, module in backbone.denoiser.named_modules()
                 if name in backbone.layers]
        latents = torch.randn(1, backbone.latent_channels, 8, 8)
        backbone.denoise(latents, 500)
        for hook in hooks:
            hook.remove()
        assert order == backbone.layers
        assert len(order) >= 3


def test_cross_attention_is_no_layer(backbone_folder):
    layers = load_backbone(backbone_folder('sd15')).layers
    assert len(layers) == 6
    assert all(name.endswith('.attn1') for name in layers)


@pytest.mark.parametrize('folder', FOLDERS)
def test_capture_changes_nothing_and_puts_processors_back(backbone_folder, folder):
    backbone = load_backbone(backbone_folder(folder))
    model = backbone.denoiser
    latents = torch.randn(2, backbone.latent_channels, 8, 12)
    before, expected = dict(model.attn_processors), backbone.denoise(latents, 300)
    with capture(model, backbone.layers) as captured:
        found = backbone.denoise(latents, 300)
    assert torch.equal(found, expected)
    for name in backbone.layers:
        seen = captured[name]
        torch.testing.assert_close(
            seen.output, naive(seen.query, seen.key, seen.value).float(), rtol=1e-4, atol=1e-5)
    assert model.attn_processors == before


def test_processors_return_after_an_error(backbone_folder):
    backbone = load_backbone(backbone_folder('sd15'))
    before = dict(backbone.denoiser.attn_processors)

    def fail(*_):
        raise RuntimeError('on purpose')

    latents = torch.zeros(1, 4, 8, 8)
    with pytest.raises(RuntimeError, match='on purpose'):
        backbone.attend(latents, 1, backbone.layers, fail)
    assert backbone.denoiser.attn_processors == before


@pytest.mark.parametrize('folder', FOLDERS)
def test_override_replaces_keys_and_values(backbone_folder, folder):
    backbone = load_backbone(backbone_folder(folder))
    last = backbone.layers[-1]
    latents, other = torch.randn(2, 1, backbone.latent_channels, 8, 8)
    with torch.no_grad():
        style = backbone.attend(other, 500, [last])[0]
        own = backbone.attend(latents, 500, [last])[0]
        injected = backbone.attend(
            latents, 500, [last], lambda _, query, key, value: (query, style.key, style.value))[0]
        plain = backbone.denoise(latents, 500)
        same = backbone.denoise(latents, 500, lambda _, *qkv: qkv)
        mixed = backbone.denoise(
            latents, 500,
            lambda name, query, key, value: (query, 2 * key, value) if name == last else
            (query, key, value))
    torch.testing.assert_close(injected.query, own.query)
    torch.testing.assert_close(
        injected.output, naive(own.query, style.key, style.value).float(), rtol=1e-4, atol=1e-5)
    assert torch.equal(plain, same)
    assert not torch.allclose(plain, mixed)


def test_override_may_bring_more_keys(backbone_folder):
    backbone = load_backbone(backbone_folder('sd3'))
    latents = torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        twice = backbone.denoise(latents, 500, lambda _, query, key, value: (
            query, torch.cat([key, key], 2), torch.cat([value, value], 2)))
    assert twice.shape == latents.shape
    assert twice.isfinite().all()


@pytest.mark.parametrize('folder', ['sdxl', 'sd3'])
@pytest.mark.parametrize('override', [None, lambda _, query, *kv: (query, kv[0] * 2, kv[1])])
def test_gradient_checkpointing_gives_the_same_gradient(backbone_folder, folder, override):
    gradients = []
    for checkpointing in (False, True):
        backbone = load_backbone(backbone_folder(folder), gradient_checkpointing=checkpointing)
        assert backbone.denoiser.is_gradient_checkpointing == checkpointing
        torch.manual_seed(0)
        latents = torch.randn(1, backbone.latent_channels, 8, 8, requires_grad=True)
        seen = backbone.attend(latents, 400, backbone.layers[::2], override)
        loss = sum((one.output + one.query).square().mean() for one in seen)
        gradients.append(torch.autograd.grad(loss, latents)[0])
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_gradient_checkpointing_keeps_fewer_activations(backbone_folder):
    saved = []
    for checkpointing in (False, True):
        backbone = load_backbone(backbone_folder('sd3'), gradient_checkpointing=checkpointing)
        latents = torch.randn(1, 16, 8, 8, requires_grad=True)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
                lambda tensor, kept=kept: kept.append(tensor.numel()) or tensor, lambda x: x):
            backbone.attend(latents, 400, backbone.layers[-1:])
        saved.append(sum(kept))
    assert saved[1] < saved[0] / 2


def test_unknown_layers_and_processors_are_named(backbone_folder):
    backbone = load_backbone(backbone_folder('sd15'))
    with pytest.raises(BackboneError, match=r"layers are \['nowhere'\]; expected some of"):
        backbone.attend(torch.zeros(1, 4, 8, 8), 1, ['nowhere'])
    model = backbone.denoiser
    with pytest.raises(BackboneError, match="no attention layer 'nowhere'"), \
            capture(model, ['nowhere']):
        pass
    model.set_attn_processor(FusedAttnProcessor2_0())
    with pytest.raises(BackboneError, match='FusedAttnProcessor2_0'), \
            capture(model, self_attention_layers(model)):
        pass

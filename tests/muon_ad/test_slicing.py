"""Heads, channels and features cut out of diffusers' modules compute what masking them does."""

import copy

import pytest
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.attention_processor import JointAttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from muon_ad.networks.slicing import drop_skip
from muon_ad.networks.slicing import keep_features
from muon_ad.networks.slicing import keep_groups
from muon_ad.networks.slicing import keep_heads
from muon_ad.networks.slicing import SlicingError

KEPT = {'8 of 16': [0, 2, 3, 5, 8, 11, 14, 15], 'one': [7], 'all': list(range(16))}
ATTENTIONS = {
    'self': {}, 'cross': {'cross_attention_dim': 12}, 'bias': {'bias': True},
    'norms': {'qk_norm': 'layer_norm'},
    'pictures': {'norm_num_groups': 4, 'residual_connection': True},
}


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


def attention(**options):
    return randomised(Attention(20, heads=16, dim_head=4, processor=AttnProcessor2_0(),
                                **options))


def masked(layer, inputs):
    """A copy of a linear layer or convolution that is blind to some inputs."""
    layer = copy.deepcopy(layer)
    with torch.no_grad():
        layer.weight[:, inputs] = 0
    return layer


def gone(kept, count, width=1):
    return [part * width + n for part in range(count) if part not in kept for n in range(width)]


@pytest.mark.parametrize('kept', KEPT.values(), ids=KEPT)
@pytest.mark.parametrize('options', ATTENTIONS.values(), ids=ATTENTIONS)
def test_heads_that_are_cut_compute_as_heads_that_are_masked(options, kept):
    module = attention(**options)
    text = torch.randn(2, 5, 12).double() if 'cross_attention_dim' in options else None
    x = torch.randn(2, 20, 3, 4).double() if 'norm_num_groups' in options else (
        torch.randn(2, 9, 20).double())
    mask = copy.deepcopy(module)
    mask.to_out[0] = masked(mask.to_out[0], gone(kept, 16, 4))
    expected = mask(x, encoder_hidden_states=text)
    before = sum(each.numel() for each in module.parameters())
    keep_heads(module, kept)
    torch.testing.assert_close(module(x, encoder_hidden_states=text), expected)
    assert (module.heads, module.sliceable_head_dim) == (len(kept), len(kept))
    assert module.inner_dim == module.inner_kv_dim == 4 * len(kept)
    assert module.to_q.weight.shape == (module.to_q.out_features, 20) == (4 * len(kept), 20)
    assert module.to_out[0].in_features == 4 * len(kept)
    after = sum(each.numel() for each in module.parameters())
    fixed = sum(each.numel() for name, each in module.named_parameters()
                if 'norm' in name or name == 'to_out.0.bias')
    assert (after - fixed) * 16 == (before - fixed) * len(kept)


def test_heads_of_an_mmdit_are_cut_for_picture_and_text():
    module = randomised(Attention(
        20, heads=4, dim_head=4, processor=JointAttnProcessor2_0(), bias=True,
        added_kv_proj_dim=20, context_pre_only=False, qk_norm='rms_norm'))
    x, text = torch.randn(2, 9, 20).double(), torch.randn(2, 5, 20).double()
    mask = copy.deepcopy(module)
    mask.to_out[0] = masked(mask.to_out[0], gone([1, 3], 4, 4))
    mask.to_add_out = masked(mask.to_add_out, gone([1, 3], 4, 4))
    expected = mask(x, encoder_hidden_states=text)
    keep_heads(module, [1, 3])
    for found, wanted in zip(module(x, encoder_hidden_states=text), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize('options', [{}, {'time_embedding_norm': 'scale_shift'},
                                     {'temb_channels': None}, {'out_channels': 24}])
def test_groups_that_are_cut_compute_as_groups_that_are_masked(options):
    module = randomised(ResnetBlock2D(in_channels=16, **{'temb_channels': 6, 'groups': 8,
                                                         **options}))
    x = torch.randn(2, 16, 5, 6).double()
    time = None if options.get('temb_channels', 6) is None else torch.randn(2, 6).double()
    width = module.norm2.num_channels // 8
    mask = copy.deepcopy(module)
    mask.conv2 = masked(mask.conv2, gone([0, 3, 6], 8, width))
    expected = mask(x, time)
    keep_groups(module, [0, 3, 6])
    torch.testing.assert_close(module(x, time), expected)
    assert module.conv1.weight.shape[0] == module.conv1.out_channels == 3 * width
    assert module.norm2.num_groups == 3


@pytest.mark.parametrize('activation', ['geglu', 'gelu', 'swiglu'])
def test_features_that_are_cut_compute_as_features_that_are_masked(activation):
    module = randomised(FeedForward(6, activation_fn=activation))
    x = torch.randn(2, 9, 6).double()
    kept = [0, 1, 5, 20, 23]
    mask = copy.deepcopy(module)
    mask.net[2] = masked(mask.net[2], gone(kept, 24))
    expected = mask(x)
    keep_features(module, kept)
    torch.testing.assert_close(module(x), expected)
    assert module.net[2].in_features == 5


def test_a_block_without_its_skip_computes_as_one_that_is_blind_to_it():
    module = randomised(ResnetBlock2D(in_channels=24, out_channels=8, temb_channels=6, groups=4))
    x, time = torch.randn(2, 24, 4, 5).double(), torch.randn(2, 6).double()
    mask = copy.deepcopy(module)
    mask.conv1, mask.conv_shortcut = (masked(each, list(range(12, 24)))
                                      for each in (mask.conv1, mask.conv_shortcut))
    expected = mask(x, time)
    drop_skip(module, 12)
    found = module(x, time)
    torch.testing.assert_close(found, expected)
    x[:, 12:] = 7
    assert torch.equal(module(x, time), found)
    assert module.norm1.num_groups == 2


def test_a_norm_whose_groups_straddle_the_skip_keeps_their_number():
    module = ResnetBlock2D(in_channels=24, out_channels=8, temb_channels=6, groups=4)
    drop_skip(module, 16)
    assert (module.norm1.num_groups, module.norm1.num_channels) == (4, 16)
    assert module(torch.randn(1, 24, 4, 4), torch.randn(1, 6)).shape == (1, 8, 4, 4)


@pytest.mark.parametrize('kept', [[], [3, 1], [1, 1], [-1], [16]])
def test_indices_that_are_no_heads_are_refused(kept):
    with pytest.raises(SlicingError, match='heads to keep are .* expected one or more increasing'):
        keep_heads(attention(), kept)


def test_what_cannot_be_cut_says_so():
    fused = attention()
    fused.fused_projections = True
    with pytest.raises(SlicingError, match='unfuse_qkv_projections'):
        keep_heads(fused, [0])
    shared = Attention(20, heads=4, kv_heads=2, dim_head=4)
    with pytest.raises(SlicingError, match='as many heads of both'):
        keep_heads(shared, [0])
    across = Attention(20, heads=4, kv_heads=4, dim_head=4, qk_norm='layer_norm_across_heads')
    with pytest.raises(SlicingError, match='norm across heads'):
        keep_heads(across, [0])
    with pytest.raises(SlicingError, match='hidden is 20; expected 1 to 15'):
        drop_skip(ResnetBlock2D(in_channels=16, temb_channels=6, groups=4), 20)


def test_frozen_weights_stay_frozen_and_keep_their_dtype():
    module = attention().half().requires_grad_(False)
    keep_heads(module, [1, 2])
    assert all(each.dtype == torch.float16 and not each.requires_grad
               for each in module.parameters())

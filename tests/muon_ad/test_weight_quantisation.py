"""Weights of 4 and 8 bits: GPTQ against nearest, files, backbones from them, and memory."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from muon_ad.cli import main
from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.backbone import load_backbone
from muon_ad.distill.quantise.gptq import gptq
from muon_ad.distill.quantise.gptq import InputStatistics
from muon_ad.distill.quantise.memory import memory_of
from muon_ad.distill.quantise.memory import networks_of
from muon_ad.distill.quantise.memory import parameters
from muon_ad.distill.quantise.memory import read_configuration
from muon_ad.distill.quantise.memory import weight_bytes
from muon_ad.distill.quantise.tensor import make_tensor
from muon_ad.distill.quantise.tensor import pack
from muon_ad.distill.quantise.tensor import rounded
from muon_ad.distill.quantise.tensor import unpack
from muon_ad.distill.quantise.weights import FILE
from muon_ad.distill.quantise.weights import load_quantised
from muon_ad.distill.quantise.weights import quantise
from muon_ad.distill.quantise.weights import QuantisedFileError
from muon_ad.distill.quantise.weights import save_quantised

SHIPPED = Path(__file__).resolve().parents[2] / 'models' / 'backbone_tiny'


def correlated(rows: int, width: int) -> torch.Tensor:
    """Inputs with a few strong directions, as activations have."""
    torch.manual_seed(3)
    return torch.randn(rows, 4) @ torch.randn(4, width) + 0.1 * torch.randn(rows, width)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=40))
def test_four_bits_come_back_from_half_as_many_bytes(values):
    integers = torch.tensor(values, dtype=torch.int8)
    packed = pack(integers, 4)
    assert packed.nbytes == (len(values) + 1) // 2
    assert torch.equal(unpack(packed, 4, (len(values),)), integers)


def test_gptq_changes_the_output_less_than_rounding_to_nearest():
    torch.manual_seed(0)
    weight, inputs = torch.randn(24, 64), correlated(600, 64)
    statistics = InputStatistics(64)
    statistics.add(inputs[:256])
    statistics.add(inputs[256:512].reshape(4, 64, 64))
    integers, scale = gptq(weight, statistics, 4, 16)
    assert integers.min() >= -8 and integers.max() <= 7 and scale.shape == (24, 4)
    ours = make_tensor(integers, scale, 4, 16, torch.float32).dequantize()
    nearest = rounded(weight, 4, 16).dequantize()
    unseen = inputs[512:]
    expected = unseen @ weight.T
    assert error(unseen @ ours.T, expected) < 0.6 * error(unseen @ nearest.T, expected)
    # It pays with weights that are further from the original.
    assert error(ours, weight) > error(nearest, weight)


def test_gptq_on_inputs_without_correlation_is_rounding_to_nearest():
    torch.manual_seed(0)
    weight, statistics = torch.randn(8, 16), InputStatistics(16)
    statistics.add(torch.eye(16))
    integers, scale = gptq(weight, statistics, 8, 8)
    nearest = rounded(weight, 8, 8)
    torch.testing.assert_close(scale, nearest.scale)
    # But for the greatest of a group, which lies half-way between two integers.
    apart = (integers.int() - nearest.qdata.int()).abs()
    assert apart.max() <= 1 and apart.sum() <= 8 * 2


def test_gptq_needs_inputs_and_survives_dead_ones():
    with pytest.raises(ValueError, match='saw no input'):
        gptq(torch.ones(2, 8), InputStatistics(8), 4, 8)
    statistics = InputStatistics(8)
    statistics.add(torch.cat([torch.zeros(20, 4), torch.randn(20, 4)], 1))
    integers, scale = gptq(torch.randn(2, 8), statistics, 4, 8)
    assert torch.isfinite(scale).all() and integers.abs().max() > 0


class Small(nn.Module):
    """One layer of each kind; `conv_in` is of those that are left alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_in = nn.Conv2d(4, 32, 1)
        self.body = nn.Conv2d(32, 32, 3, padding=1)
        self.down = nn.Conv2d(32, 24, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.linear = nn.Linear(24, 10)

    def forward(self, x):
        x = self.depthwise(self.down(self.body(self.conv_in(x)).relu()).relu())
        return self.linear(x.mean((2, 3)))


def samples(count: int) -> torch.Tensor:
    return correlated(count * 4 * 8, 8).reshape(count, 4, 8, 8)


@pytest.mark.parametrize('bits, limit', [(4, 0.15), (8, 0.01)])
def test_every_kind_of_layer_is_quantised_and_calibration_helps(bits, limit):
    x, nearest, ours = samples(24), Small(), Small()
    expected = Small()(x[16:]).detach()
    report = quantise(nearest, bits, 16)
    assert (report.calibrated, report.nearest, report.kept) == (0, 3, 2)
    report = quantise(ours, bits, 16, lambda: ours(x[:16]))
    assert (report.calibrated, report.nearest, report.kept) == (3, 0, 2)
    assert type(ours.conv_in.weight.data) is torch.Tensor
    with torch.no_grad():
        assert error(ours(x[16:]), expected) < min(limit, error(nearest(x[16:]), expected))
    assert report.bytes_after < report.bytes_before


@pytest.mark.parametrize('bits', [4, 8])
def test_a_file_gives_back_what_was_saved(tmp_path, bits):
    network, x = Small(), samples(2)
    quantise(network, bits, 16, lambda: network(x))
    save_quantised(network, tmp_path / FILE)
    again = load_quantised(Small(), tmp_path / FILE, torch.float32)
    with torch.no_grad():
        assert error(again(x), network(x)) < 1e-3     # scales are kept in float16
    for name, layer in network.named_children():
        if name not in ('conv_in', 'depthwise'):
            assert torch.equal(getattr(again, name).weight.qdata, layer.weight.qdata)
    with safe_open(tmp_path / FILE, 'pt') as file:
        assert file.get_tensor('body.weight.integers').nbytes == 32 * 32 * 9 * bits // 8


def test_files_that_do_not_fit_are_errors(tmp_path):
    with pytest.raises(QuantisedFileError, match='cannot be read'):
        load_quantised(Small(), tmp_path / 'none', torch.float32)
    network = Small()
    quantise(network, 8, 16)
    save_quantised(network, tmp_path / FILE)
    with pytest.raises(QuantisedFileError, match='weights of another network'):
        load_quantised(nn.Linear(3, 3), tmp_path / FILE, torch.float32)


def test_bits_and_groups_that_do_not_exist():
    with pytest.raises(ValueError, match='bits is 3; expected one of'):
        quantise(Small(), 3)
    with pytest.raises(ValueError, match='group is 1'):
        quantise(Small(), 4, 1)


@pytest.mark.parametrize('name', ['sd15', 'sdxl', 'sd3'])
def test_a_quantised_folder_is_a_backbone(backbone_folder, name, tmp_path, capsys):
    folder, out = backbone_folder(name), tmp_path / 'out'
    assert main(['quantize', 'unet', str(folder), '-o', str(out), '--bits', '8', '--group', '8',
                 '--size', '32']) == 0
    assert 'times smaller' in capsys.readouterr().out
    before, after = load_backbone(folder), load_backbone(out)
    torch.manual_seed(0)
    latents = torch.randn(1, before.latent_channels, 8, 8)
    time = before.timesteps(2)[0]
    with torch.no_grad():
        expected, found = before.denoise(latents, time), after.denoise(latents, time)
    assert 0 < error(found, expected) < 0.05
    latents.requires_grad_(True)
    after.denoise(latents, time).square().sum().backward()
    assert latents.grad.abs().sum() > 0
    part = 'transformer' if name == 'sd3' else 'unet'
    assert sorted(path.name for path in (out / part).iterdir()) == ['config.json', FILE]
    half = load_backbone(out, dtype=torch.bfloat16)
    with torch.no_grad():
        assert error(half.denoise(latents, time), expected) < 0.1


def test_a_broken_quantised_folder_is_a_backbone_error(backbone_folder, tmp_path):
    folder = backbone_folder('plain')
    assert main(['quantize', 'unet', str(folder), '-o', str(tmp_path / 'out'), '--size', '32',
                 '--rounding', 'nearest']) == 0
    (tmp_path / 'out' / 'unet' / FILE).write_bytes(b'broken')
    with pytest.raises(BackboneError, match='cannot be read'):
        load_backbone(tmp_path / 'out')


def test_bad_arguments_are_one_line(backbone_folder, capsys):
    folder = str(backbone_folder('plain'))
    assert main(['quantize', 'unet', folder, '-o', folder]) == 2
    assert 'the folder itself' in capsys.readouterr().err
    assert main(['quantize', 'unet', folder, '-o', folder + '2', '--size', '33']) == 2
    assert '--size is 33; expected a multiple of' in capsys.readouterr().err


def test_the_shipped_backbone_keeps_its_predictions(tmp_path):
    assert main(['quantize', 'unet', str(SHIPPED), '-o', str(tmp_path / 'out'), '--bits', '8',
                 '--rounding', 'nearest', '--size', '32']) == 0
    before = load_backbone(SHIPPED, attention='denoiser')
    after = load_backbone(tmp_path / 'out', attention='denoiser')
    torch.manual_seed(0)
    latents = torch.randn(1, before.latent_channels, 8, 8)
    with torch.no_grad():
        assert error(after.denoise(latents, 500), before.denoise(latents, 500)) < 0.03


# -- memory ----------------------------------------------------------------------------------

def test_stable_diffusion_xl_is_the_real_one():
    """Counts of the published checkpoints: 2.567 billion parameters in the U-Net."""
    counts = {name: parameters(part)
              for name, part in networks_of(read_configuration('sdxl')).items()}
    assert counts == {'unet': 2_567_463_684, 'vae': 83_653_863, 'text_encoder': 123_060_480,
                      'text_encoder_2': 694_659_840}


def test_memory_of_a_folder_follows_its_weights(backbone_folder, capsys):
    folder = backbone_folder('sdxl')
    assert main(['quantize', 'memory', str(folder), '--pixels', '64', '--group', '8',
                 '--json']) == 0
    said = json.loads(capsys.readouterr().out)
    unet = load_backbone(folder).denoiser
    count = parameters(unet)
    assert said['parameters']['unet'] == count
    rows = {row['precision']: row for row in said['footprints']}
    assert (rows['fp32']['denoiser'], rows['bf16']['denoiser']) == (4 * count, 2 * count)
    for bits in (8, 4):
        report = quantise(load_backbone(folder, dtype=torch.bfloat16).denoiser, bits, 8)
        assert rows[f'int{bits}']['denoiser'] == report.bytes_after
    for row in rows.values():
        assert 0 < row['checkpointed'] < row['activations']
        assert row['total'] == sum(row[key] for key in ('denoiser', 'autoencoder', 'optimiser',
                                                        'checkpointed'))
    assert rows['bf16']['activations'] == rows['fp32']['activations'] // 2


def test_activations_grow_with_the_picture(backbone_folder):
    configuration = read_configuration(str(backbone_folder('sd15')))
    small, large = (memory_of(configuration, pixels).footprints[0] for pixels in (32, 64))
    # Four times the positions; attention to the text and to the time stays as it is.
    assert 3.3 < large.activations / small.activations <= 4.0
    assert main(['quantize', 'memory', str(backbone_folder('sd15')), '--pixels', '36']) == 2


def test_a_config_alone_and_what_is_none(backbone_folder, tmp_path, capsys):
    config = backbone_folder('sd15') / 'unet' / 'config.json'
    assert main(['quantize', 'memory', str(config)]) == 0
    assert 'unet' in capsys.readouterr().out
    assert main(['quantize', 'memory', str(tmp_path)]) == 2
    assert "expected one of ['sdxl']" in capsys.readouterr().err
    assert main(['quantize', 'memory', str(backbone_folder('sd3'))]) == 2
    assert 'has no unet' in capsys.readouterr().err
    broken = tmp_path / 'config.json'
    broken.write_text('{')
    assert main(['quantize', 'memory', str(broken)]) == 2


def test_weight_bytes_by_hand():
    layer = nn.Sequential(nn.Linear(64, 10))
    assert weight_bytes(layer, 32) == 4 * 650
    assert weight_bytes(layer, 4, 32) == 640 // 2 + 2 * 20 + 2 * 10

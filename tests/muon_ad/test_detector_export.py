"""Weights of the detector as files, and their export: dense and pruned, checked against torch."""

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from torch import nn

from muon_ad.export import check_against_torch
from muon_ad.export import ExportError
from muon_ad.networks.detector import DetectorNet
from muon_ad.networks.detector import Exported
from muon_ad.networks.detector import load_detector
from muon_ad.networks.detector import save_detector
from muon_ad.networks.resize import resize_to
from muon_ad.networks.weights import save_network
from muon_ad.networks.weights import WeightsError
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import PackageError
from muon_ad.train import detector_export
from muon_ad.train.detector_export import export_detector

SHIPPED = Path(__file__).resolve().parents[2] / 'models' / 'detector_default'
CLASSES = ('a', 'b', 'c')


def network(seed: int = 2) -> DetectorNet:
    """An untrained detector whose answers depend on what it sees."""
    torch.manual_seed(seed)
    net = DetectorNet(len(CLASSES)).eval()
    for layer in [*net.box, *net.label]:
        nn.init.normal_(layer.weight, std=0.5)
    return net


def slimmer(net: DetectorNet) -> DetectorNet:
    """The detector with half of the channels within its first residual block."""
    state = dict(net.state_dict())
    for name, value in state.items():
        if name.startswith('stage8.2.body.0') and value.ndim:
            state[name] = value[::2]
        elif name == 'stage8.2.body.1.0.weight':
            state[name] = value[:, ::2]
    return resize_to(DetectorNet(net.classes), state).eval()


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    detector_export.add_arguments(parser)
    return detector_export.run(parser.parse_args([str(each) for each in arguments]))


def test_the_runtime_finds_what_torch_finds(tmp_path):
    net = network()
    about = {'name': 'own', 'licence': 'Apache-2.0', 'training': {'steps': 0}}
    made = export_detector(net, CLASSES, tmp_path, [(96, 64), (64, 64)], about)
    assert made == load_package(tmp_path)
    assert list(made.variants) == ['dense_96x64', 'dense_64x64']
    frame = cv2.resize(skimage.data.astronaut(), (96, 64))
    with torch.no_grad():
        expected = Exported(net)(torch.from_numpy(frame)[None]).numpy()
    raw = Detector(made, score_threshold=0.0).engine.run({'image': frame[None]})[0]
    np.testing.assert_allclose(raw, expected, rtol=1e-3, atol=1e-3)
    variant = made.variant('dense_96x64')
    assert variant.parameters == sum(p.numel() for p in net.parameters())
    assert variant.gflops > made.variant('dense_64x64').gflops > 0


def test_a_pruned_network_comes_back_from_its_file(tmp_path):
    net = slimmer(network())
    save_detector(tmp_path / 'p.safetensors', net, CLASSES)
    again, classes = load_detector(tmp_path / 'p.safetensors')
    assert classes == CLASSES
    assert again.stage8[2].body[0][0].out_channels == 16
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(image), net(image), rtol=0, atol=0)


def test_files_that_hold_no_detector_are_errors(tmp_path):
    path = tmp_path / 'net.safetensors'
    with pytest.raises(WeightsError, match='net.safetensors: no such file'):
        load_detector(path)
    save_network(path, network(), 'style', {'classes': CLASSES})
    with pytest.raises(WeightsError, match="'style'; expected of a 'detector'"):
        load_detector(path)
    save_network(path, network(), 'detector', {})
    with pytest.raises(WeightsError, match='names no classes'):
        load_detector(path)
    save_network(path, nn.Linear(2, 2), 'detector', {'classes': CLASSES})
    with pytest.raises(WeightsError, match='net.safetensors: .*another network'):
        load_detector(path)
    save_network(path, network(), 'detector', {'classes': ['a']})
    with pytest.raises(WeightsError, match='names 1 classes, and its network tells 3 apart'):
        load_detector(path)


def test_the_command_adds_a_level_to_a_package(tmp_path, capsys):
    out = tmp_path / 'package'
    dense, pruned = tmp_path / 'dense.safetensors', tmp_path / 'p01.safetensors'
    save_detector(dense, network(), CLASSES)
    save_detector(pruned, slimmer(network()), CLASSES)
    assert run(dense, '-o', out, '--sizes', '64x64', '96x64', '--licence', 'Apache-2.0') == 0
    before = load_package(out)
    assert run(pruned, '-o', out, '--sizes', '64x64') == 0
    after = load_package(out)
    assert list(after.variants) == ['dense_64x64', 'dense_96x64', 'p01_64x64']
    assert after.default_variant == 'dense_64x64'
    assert after.variant('dense_64x64') == before.variant('dense_64x64')
    small, whole = after.variant('p01_64x64'), after.variant('dense_64x64')
    assert small.pruned == pytest.approx(1 - small.parameters / whole.parameters, abs=1e-3)
    assert small.pruned > 0 and small.gflops < whole.gflops
    assert 'from PyTorch on 3 pictures' in capsys.readouterr().out


def test_a_package_of_other_classes_is_not_touched(tmp_path):
    path, out = tmp_path / 'dense.safetensors', tmp_path / 'package'
    save_detector(path, network(), CLASSES)
    run(path, '-o', out, '--sizes', '64x64')
    before = (out / 'model.yaml').read_text()
    save_detector(path, network(), ('x', 'y', 'z'))
    with pytest.raises(PackageError, match="expected a detector of \\['x', 'y', 'z'\\]"):
        run(path, '-o', out, '--sizes', '64x64')
    assert (out / 'model.yaml').read_text() == before


def test_an_export_of_another_network_is_found_out(tmp_path):
    made = export_detector(network(), CLASSES, tmp_path, [(64, 64)], {'name': 'own'})
    pictures = detector_export.photographs()
    assert check_against_torch(made, '', Exported(network()).eval(), pictures) < 1e-4
    with pytest.raises(ExportError, match='dense_64x64.onnx: differs from the PyTorch network'):
        check_against_torch(made, '', Exported(network(seed=3)).eval(), pictures)


@pytest.mark.parametrize('path', sorted((SHIPPED / 'weights').glob('*.safetensors')),
                         ids=lambda path: path.stem)
def test_the_shipped_weights_are_those_of_the_shipped_networks(path):
    net, classes = load_detector(path)
    package = load_package(SHIPPED)
    assert classes == package.classes
    for width, height in detector_export.SIZES:
        name = f'{path.stem}_{width}x{height}'
        check_against_torch(package, name, Exported(net).eval(), detector_export.photographs())
        assert package.variant(name).parameters == sum(p.numel() for p in net.parameters())

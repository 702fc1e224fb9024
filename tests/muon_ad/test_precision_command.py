"""Sensitivity, the judges, and `muon-ad quantize` on packages and files."""

import json

import cv2
import numpy as np
import onnx
import precision_networks as networks
import pytest
import yaml
from support import file_entry

from muon_ad.cli import main
from muon_ad.precision.command import converted_name
from muon_ad.precision.convert import convert
from muon_ad.precision.convert import Settings
from muon_ad.precision.error import PrecisionError
from muon_ad.precision.network import Network
from muon_ad.precision.rules import SENSITIVITY
from muon_ad.precision.sensitivity import choose
from muon_ad.runtime.package import load_package
from muon_ad.runtime.style import StyleModel


@pytest.fixture(scope='module')
def frames():
    return [feed['image'][0] for feed in networks.random_feeds(8, size=(64, 48))]


@pytest.fixture(scope='module')
def pictures(tmp_path_factory, frames):
    folder = tmp_path_factory.mktemp('frames')
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f'{index}.png'), frame)
    return folder


@pytest.fixture
def package(tmp_path):
    """A style package of a tiny network that has layers, with two sizes in one file."""
    folder = tmp_path / 'tiny'
    folder.mkdir()
    networks.style_network(folder / 'transfer.onnx')
    encoder = networks.Builder()
    number = encoder.node('Cast', ['image'], 'number', to=networks.FLOAT)
    mean = encoder.node('ReduceMean', [number], 'mean', keepdims=0)
    unit = encoder.node('Div', [mean, encoder.constant('white', np.float32(255))], 'unit')
    encoder.node('Mul', [unit, encoder.constant(
        'vector', np.ones((1, 4 * networks.CHANNELS), np.float32))], 'style')
    encoder.save(folder / 'encoder.onnx', {'image': (networks.UINT8, [1, 256, 256, 3])},
                 {'style': (networks.FLOAT, [1, 4 * networks.CHANNELS])})
    for name, grey in (('dark', 120), ('light', 250)):
        cv2.imwrite(str(folder / f'{name}.png'), np.full((256, 256, 3), grey, np.uint8))
    variant = {**file_entry(folder / 'transfer.onnx'), 'precision': 'fp32', 'parameters': 5,
               'gflops': 0.5, 'pruned': 0.4}
    (folder / 'model.yaml').write_text(yaml.safe_dump({
        'name': 'tiny', 'task': 'style', 'input': {'resize': 'fit'},
        'variants': {'p40_64x48': {**variant, 'width': 64, 'height': 48},
                     'p40_96x72': {**variant, 'width': 96, 'height': 72}},
        'style': {
            'encoder': file_entry(folder / 'encoder.onnx'),
            'images': {name: file_entry(folder / f'{name}.png') for name in ('dark', 'light')},
        },
    }, sort_keys=False))
    return folder


def test_the_worst_layers_are_kept_until_the_error_is_small_enough():
    harm = {'a': 1.0, 'b': 8.0, 'c': 3.0, 'd': 0.5}
    chosen = choose(list(harm), 2.0, harm.__getitem__,
                    lambda kept: sum(value for name, value in harm.items() if name not in kept))
    assert chosen.kept == ('b', 'c')
    assert chosen.steps == (12.5, 4.5, 1.5)
    assert chosen.alone == harm


def test_nothing_is_kept_where_the_error_is_small_already():
    chosen = choose(['a'], 2.0, lambda name: pytest.fail('measured in vain'), lambda kept: 1.0)
    assert chosen.kept == ()


def test_a_limit_that_cannot_be_met():
    with pytest.raises(PrecisionError, match='max_error is 0.1; the error is 1 with one layer'):
        choose(['a', 'b', 'c'], 0.1, lambda name: 1.0, lambda kept: 1.0)
    with pytest.raises(PrecisionError, match='max_error is 0; expected more than 0'):
        choose(['a'], 0, lambda name: 1.0, lambda kept: 1.0)


@pytest.mark.parametrize('damaged', ['second', 'third'])
def test_sensitivity_finds_the_layer_that_was_damaged(tmp_path, frames, damaged):
    network = Network(networks.plain_network(tmp_path / 'plain.onnx', damaged), frames)
    out = tmp_path / 'int8.onnx'
    loose = convert(network, Settings(calibration='minmax'), out)
    limit = loose.error / 3
    report = convert(network, Settings(calibration='minmax', max_error=limit), out)
    assert report.choice.kept[0] == damaged
    assert report.kept[damaged] == SENSITIVITY
    assert damaged not in report.quantised
    assert report.error <= limit < loose.error
    assert set(report.latency_ms) == {'fp32', 'int8', 'int8_all'}


def test_a_package_gets_int8_variants_beside_the_others(package, pictures, tmp_path, capsys):
    out, report = tmp_path / 'out', tmp_path / 'report'
    assert main(['quantize', str(package), '-o', str(out), '--frames', str(pictures),
                 '--count', '8', '--calibration', 'minmax', '--report', str(report)]) == 0
    made = load_package(out)
    assert list(made.variants) == ['p40_64x48', 'p40_int8_64x48', 'p40_96x72', 'p40_int8_96x72']
    variant = made.variant('p40_int8_64x48')
    assert (variant.precision, variant.pruned, variant.parameters) == ('int8', 0.4, 5)
    assert variant.file == made.variant('p40_int8_96x72').file
    assert variant.file.stat().st_size < made.variant('p40_64x48').file.stat().st_size
    assert list(load_package(package).variants) == ['p40_64x48', 'p40_96x72']
    told = json.loads((report / 'tiny' / 'transfer_int8.json').read_text())
    assert [each['name'] for each in told['layers']] == ['stem', 'inner', 'outer', 'last']
    assert (report / 'tiny' / 'transfer_int8.png').stat().st_size > 1000
    assert 0 < told['error'] < 3
    assert made.quality['precision']['p40_int8_64x48']['error'] == round(told['error'], 4)
    assert 'grey levels' in capsys.readouterr().out


def test_both_precisions_stylise_alike(package, pictures, tmp_path):
    for precision in ('int8', 'fp16'):
        assert main(['quantize', str(package), '-o', str(package), '--frames', str(pictures),
                     '--count', '8', '--precision', precision, '--variants', 'p40_64x48',
                     '--report', str(tmp_path)]) == 0
    made = load_package(package)
    assert set(made.quality['precision']) == {'p40_int8_64x48', 'p40_fp16_64x48'}
    frame = cv2.imread(str(pictures / '0.png'))
    models = [StyleModel(made, name) for name in
              ('p40_64x48', 'p40_int8_64x48', 'p40_fp16_64x48')]
    for style in ('dark', 'light'):
        for model in models:
            model.set_style(style)
        want, *others = [model.stylise(frame).astype(float) for model in models]
        assert all(np.abs(other - want).mean() < 3 for other in others)


def test_a_file_without_a_package(tmp_path, pictures):
    path = networks.plain_network(tmp_path / 'plain.onnx')
    out = tmp_path / 'made' / 'small.onnx'
    assert main(['quantize', str(path), '-o', str(out), '--frames', str(pictures), '--count', '8',
                 '--keep', 'second', '--report', str(tmp_path)]) == 0
    assert 'QuantizeLinear' in [node.op_type for node in onnx.load(out).graph.node]
    told = json.loads((tmp_path / 'small.json').read_text())
    assert told['quantised'] == ['first', 'third']
    assert told['error'] < 0.1


@pytest.mark.parametrize(('arguments', 'message'), [
    (['none.onnx'], 'none.onnx: no such file'),
    (['text.onnx'], 'text.onnx: is not an ONNX network'),
    (['style.onnx'], 'Give the model package'),
    (['plain.onnx', '--variants', 'dense'], 'is a file, which has none'),
    (['plain.onnx', '--keep', 'tenth'], "no layer ['tenth']"),
    (['plain.onnx', '--count', '1'], 'count is 1; expected 4'),
    (['plain.onnx', '--max-error', '1e-9'], 'max_error is 1e-09'),
    (['no_package'], "model is 'no_package'; expected a folder"),
])
def test_bad_input_is_one_line_and_nothing_is_written(
    tmp_path, pictures, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'text.onnx').write_text('not a network')
    networks.style_network(tmp_path / 'style.onnx')
    networks.plain_network(tmp_path / 'plain.onnx')
    count = [] if '--count' in arguments else ['--count', '8']
    assert main(['quantize', *arguments, '-o', 'out', '--frames', str(pictures), *count]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert not (tmp_path / 'out').exists()


def test_a_folder_in_the_way(package, pictures, tmp_path, capsys):
    (tmp_path / 'other').mkdir()
    assert main(['quantize', str(package), '-o', str(tmp_path / 'other'),
                 '--frames', str(pictures)]) == 2
    assert 'exists; expected a new folder' in capsys.readouterr().err


@pytest.mark.parametrize(('name', 'expected'), [
    ('dense_320x240', 'dense_int8_320x240'),
    ('transfer', 'transfer_int8'),
    ('small_net', 'small_net_int8'),
])
def test_names_of_variants(name, expected):
    assert converted_name(name, 'int8') == expected

"""TensorRT's command and options, and agreement of ONNX files with torch."""

import json
import os
import shlex
import subprocess

import pytest
import skimage.data
import torch
from torch import nn

from muon_ad.cli import main
from muon_ad.deploy import agreement
from muon_ad.deploy.agreement import DisagreementError
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.engine import tensorrt_options
from muon_ad.runtime.package import sha256_of


def build(capsys, *arguments: object) -> dict:
    assert main(['export', 'tensorrt', *map(str, arguments), '--json']) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_names_file_shapes_precision_and_core(negative_package, capsys):
    said = build(capsys, negative_package, '--variant', 'large', '--dla-core', '1',
                 '--memory-limit-mb', '64')
    path = negative_package / 'transfer.onnx'
    assert said['command'] == [
        'trtexec', f'--onnx={path}', '--saveEngine=transfer.fp16.engine', '--fp16',
        '--minShapes=image:1x96x128x3', '--optShapes=image:1x96x128x3',
        '--maxShapes=image:1x96x128x3', '--memPoolSize=workspace:64M', '--useDLACore=1',
        '--allowGPUFallback',
    ]
    options = EngineOptions(memory_limit_mb=64, precision='fp16', dla_core=1)
    assert said['provider_options'] == tensorrt_options(options)
    assert said['ingredients']['model_sha256'] == sha256_of(path)
    assert said['ingredients']['size'] == [128, 96]


def test_sizes_and_precisions_have_engines_of_their_own(negative_package, capsys):
    keys = {build(capsys, negative_package, '--variant', variant, '--precision', precision)['key']
            for variant in ('small', 'large') for precision in ('fp32', 'fp16', 'int8')}
    assert len(keys) == 6


def test_a_file_with_fixed_sizes_needs_no_shapes(one_box_package, capsys):
    said = build(capsys, one_box_package, '--precision', 'int8')
    assert '--int8' in said['command'] and not any('Shapes' in word for word in said['command'])
    assert any('has no scales' in note for note in said['notes'])
    assert build(capsys, one_box_package / 'detector.onnx', '--precision', 'fp32')['notes'] == []


def test_the_script_runs_the_command_that_is_printed(one_box_package, tmp_path, capsys):
    script = tmp_path / 'build.sh'
    assert main(['export', 'tensorrt', str(one_box_package), '-o', str(script)]) == 0
    shown = capsys.readouterr().out
    assert 'trt_fp16_enable=1' in shown and 'engine cache key' in shown
    (tmp_path / 'trtexec').write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / 'trtexec').chmod(0o755)
    done = subprocess.run([script], capture_output=True, text=True, check=True,
                          env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'})
    assert done.stdout.split() == shlex.split(shown.splitlines()[0])[1:]


@pytest.mark.parametrize('arguments, message', [
    (['--precision', 'fp32', '--dla-core', '0'], 'a DLA works in fp16 or int8'),
    (['--variant', 'huge'], "no variant 'huge'"),
    (['--size', '64x64'], '--size is for an ONNX file'),
])
def test_bad_arguments_are_one_line(negative_package, capsys, arguments, message):
    assert main(['export', 'tensorrt', str(negative_package), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1


# -- agreement -------------------------------------------------------------------------------

class Blur(nn.Module):
    """Photographs in, photographs out, with a second output beside."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, image):
        x = image.permute(0, 3, 1, 2).float()
        return self.gain * nn.functional.avg_pool2d(x, 4), x.mean((2, 3))


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp('exported') / 'blur.onnx'
    torch.onnx.export(Blur(), (torch.zeros(1, 64, 64, 3, dtype=torch.uint8),), str(path),
                      input_names=['image'], output_names=['blurred', 'mean'], dynamo=False)
    return path


@pytest.fixture
def feeds():
    return [{'image': getattr(skimage.data, name)()[None, 100:164, 100:164].copy()}
            for name in ('astronaut', 'coffee')]


def test_what_was_exported_agrees(exported, feeds):
    found = agreement.check(Blur(), exported, feeds, greatest=1e-3)
    assert [difference.output for difference in found] == ['blurred', 'mean']
    assert all(difference.mean <= difference.greatest < 1e-3 for difference in found)


def test_another_module_is_found_out_with_the_figure(exported, feeds):
    blurred, mean = agreement.compare(Blur(gain=1.1), exported, feeds)
    expected = max(1.1 * Blur()(torch.from_numpy(feed['image']))[0].max() for feed in feeds)
    assert blurred.greatest == pytest.approx(float(expected) / 11, rel=1e-3)
    assert 0.01 < blurred.relative < 0.2 and mean.greatest < 1e-3
    with pytest.raises(DisagreementError, match='the greatest difference of output blurred'):
        agreement.check(Blur(gain=1.1), exported, feeds, greatest=1.0)
    with pytest.raises(DisagreementError, match='the mean difference of output blurred'):
        agreement.check(Blur(gain=1.1), exported, feeds, mean=1.0)


def test_other_shapes_nothing_to_compare_and_infinities_are_errors(exported, feeds):
    class Other(nn.Module):
        def forward(self, image):
            return image.float()

    class Infinite(Blur):
        def forward(self, image):
            blurred, mean = super().forward(image)
            return blurred / 0, mean

    with pytest.raises(DisagreementError, match='outputs are'):
        agreement.compare(Other(), exported, feeds)
    with pytest.raises(ValueError, match='at least one input'):
        agreement.compare(Blur(), exported, [])
    with pytest.raises(DisagreementError, match='is not finite'):
        agreement.compare(Infinite(), exported, feeds)

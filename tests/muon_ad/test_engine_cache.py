"""The folder of a TensorRT engine: every ingredient counts, order and places do not."""

import json
from dataclasses import replace

import onnxruntime as ort
import pytest

from muon_ad.runtime import engine_cache
from muon_ad.runtime.engine import Engine
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.engine import tensorrt_options
from muon_ad.runtime.engine_cache import engine_folder
from muon_ad.runtime.engine_cache import EngineIdentity
from muon_ad.runtime.engine_cache import Machine
from muon_ad.runtime.engine_cache import this_machine

MACHINE = Machine('1.23.2', '100300', 'Orin', '8.7', 'R36 (release), REVISION: 4.0')
OPTIONS = EngineOptions(('tensorrt',), memory_limit_mb=256, precision='int8', dla_core=0)
IDENTITY = EngineIdentity('ab' * 32, tensorrt_options(OPTIONS), (320, 240), MACHINE)


def test_the_same_again_is_the_same_key():
    again = EngineIdentity('ab' * 32, tensorrt_options(OPTIONS), (320, 240), replace(MACHINE))
    assert again.key() == IDENTITY.key()
    assert len(IDENTITY.key()) == engine_cache.KEY_LENGTH


@pytest.mark.parametrize('field', ['onnxruntime', 'tensorrt', 'gpu', 'compute_capability',
                                   'driver'])
def test_every_trait_of_the_machine_counts(field):
    other = replace(IDENTITY, machine=replace(MACHINE, **{field: 'other'}))
    assert other.key() != IDENTITY.key()


@pytest.mark.parametrize('change', [{'model_sha256': 'ac' * 32}, {'size': (640, 480)},
                                    {'size': (240, 320)}])
def test_model_and_size_count(change):
    assert replace(IDENTITY, **change).key() != IDENTITY.key()


@pytest.mark.parametrize('change', [{'precision': 'fp16'}, {'precision': 'fp32'}, {'dla_core': 1},
                                    {'dla_core': -1}, {'memory_limit_mb': 512},
                                    {'memory_limit_mb': 0}])
def test_every_choice_of_the_options_counts(change):
    options = tensorrt_options(replace(OPTIONS, **change))
    assert replace(IDENTITY, options=options).key() != IDENTITY.key()


@pytest.mark.parametrize('name', sorted(IDENTITY.options))
def test_every_single_flag_counts(name):
    changed = {**IDENTITY.options, name: 'changed'}
    without = {key: value for key, value in IDENTITY.options.items() if key != name}
    keys = {IDENTITY.key(), *(replace(IDENTITY, options=o).key() for o in (changed, without))}
    assert len(keys) == 3


def test_order_and_places_do_not_count():
    backwards = dict(reversed(IDENTITY.options.items()))
    assert list(backwards) != list(IDENTITY.options)
    placed = {**backwards, 'trt_engine_cache_path': '/a', 'trt_timing_cache_path': '/b'}
    assert replace(IDENTITY, options=backwards).key() == IDENTITY.key()
    assert replace(IDENTITY, options=placed).key() == IDENTITY.key()


def test_the_folder_says_what_it_is_for(tmp_path):
    folder = engine_folder(tmp_path / 'deep' / 'cache', IDENTITY)
    assert folder == tmp_path / 'deep' / 'cache' / IDENTITY.key()
    said = json.loads((folder / 'key.json').read_text())
    assert said == IDENTITY.described()
    assert said['options']['trt_dla_core'] == '0' and said['gpu'] == 'Orin'
    (folder / 'engine').write_bytes(b'built')
    assert engine_folder(tmp_path / 'deep' / 'cache', IDENTITY) == folder
    assert (folder / 'engine').read_bytes() == b'built'


def test_this_machine_is_read_and_admits_what_it_cannot_know(monkeypatch, tmp_path):
    assert this_machine().onnxruntime == ort.__version__
    monkeypatch.setattr(engine_cache, '_library', lambda *names: None)
    release = tmp_path / 'nv_tegra_release'
    monkeypatch.setattr(engine_cache, '_DRIVER_FILES', (tmp_path / 'none', release))
    this_machine.cache_clear()
    try:
        assert this_machine() == Machine(ort.__version__)
        this_machine.cache_clear()
        release.write_text('# R36 (release), REVISION: 4.0\nmore\n')
        assert this_machine().driver == '# R36 (release), REVISION: 4.0'
    finally:
        this_machine.cache_clear()


def test_an_engine_gives_tensorrt_a_folder_for_its_model_alone(
    negative_package, one_box_package, tmp_path
):
    options = EngineOptions(('cpu',), cache_dir=tmp_path, size=(64, 48))
    paths = set()
    for file in (negative_package / 'transfer.onnx', one_box_package / 'detector.onnx'):
        chosen = Engine(file, options)._provider_options('tensorrt')
        assert chosen['trt_engine_cache_path'] == chosen['trt_timing_cache_path']
        paths.add(chosen['trt_engine_cache_path'])
    assert {path.name for path in tmp_path.iterdir()} == {path.rsplit('/', 1)[1] for path in paths}
    assert len(paths) == 2

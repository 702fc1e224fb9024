"""`muon-ad models`: list, show, verify, bench, pull and import, without a network."""

import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
import yaml
from onnx import helper
from onnx import TensorProto

from muon_ad.cli import main
from muon_ad.models import pull
from muon_ad.networks.style import StyleConfig
from muon_ad.networks.style import StyleEncoder
from muon_ad.networks.style import StyleStudent
from muon_ad.networks.weights import save_network
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import sha256_of
from muon_ad.train.images import DataError
from muon_ad.train.style_export import build_package
from muon_ad.train.teacher import BoxTeacher
from muon_ad.train.teacher import make_teacher

SSDLITE = 'ssdlite320_mobilenet_v3_large'


@pytest.fixture
def said(capsys):
    """Run a command that must end with a status, and return what it printed as JSON."""
    def call(*arguments: object, status: int = 0) -> object:
        assert main([str(argument) for argument in arguments]) == status
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture(scope='module')
def style_package(tmp_path_factory) -> Path:
    """A package of a tiny untrained student, made from its weights as the shipped one is."""
    import cv2

    folder = tmp_path_factory.mktemp('models') / 'tiny'
    torch.manual_seed(0)
    config = StyleConfig.from_dict({**StyleConfig().to_dict(), 'channels': 16, 'blocks': 1})
    for name, kind, network in (('dense', 'style', StyleStudent(config)),
                                ('encoder', 'style_encoder', StyleEncoder(config))):
        save_network(folder / 'weights' / f'{name}.safetensors', network, kind, config.to_dict())
    (folder / 'styles').mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    cv2.imwrite(str(folder / 'styles' / 'noise.png'), noise)
    build_package(folder)
    return folder


def test_list_as_json_and_a_folder_without_packages(said, negative_package, tmp_path):
    shutil.copytree(negative_package, tmp_path / 'negative')
    found = said('models', 'list', tmp_path, '--json')
    package, = found['packages']
    assert package['name'] == 'negative' and list(package['variants']) == ['small', 'large']
    size = (tmp_path / 'negative' / 'transfer.onnx').stat().st_size
    assert package['variants']['large']['bytes'] == size
    (tmp_path / 'negative' / 'transfer.onnx').write_bytes(b'')
    found = said('models', 'list', tmp_path, '--json', status=1)
    assert found['packages'] == [] and 'sha256' in found['broken'][0]


def test_list_shows_the_shipped_packages_by_default(capsys):
    assert main(['models', 'list']) == 0
    shown = capsys.readouterr().out
    assert 'style_default' in shown and 'detector_default' in shown


def test_show_tells_inputs_operators_and_quality(said, negative_package, tmp_path, capsys):
    folder = shutil.copytree(negative_package, tmp_path / 'negative')
    data = yaml.safe_load((folder / 'model.yaml').read_text())
    (folder / 'model.yaml').write_text(yaml.safe_dump({**data, 'quality': {'fps': {'one': 7.5}}}))
    about = said('models', 'show', folder, '--variant', 'large', '--json')
    assert list(about['variants']) == ['large']
    large = about['variants']['large']
    assert large['operators'] == {'Cast': 2, 'Sub': 1, 'Add': 1, 'Clip': 1}
    assert large['inputs']['image'] == "tensor(uint8) [1, 'h', 'w', 3]"
    assert main(['models', 'show', str(folder)]) == 0
    shown = capsys.readouterr().out
    assert 'quality: fps, one' in shown and '7.5' in shown and 'small' in shown
    assert main(['models', 'show', str(folder), '--variant', 'huge']) == 2
    assert "no variant 'huge'" in capsys.readouterr().err


def results(checks, what):
    return [check['result'] for check in checks if check['what'] == what]


def test_verify_compares_with_the_weights(said, style_package):
    checks = said('models', 'verify', style_package, '--json')
    assert results(checks, 'files and hashes') == ['ok']
    assert results(checks, 'runs in ONNX Runtime') == ['ok', 'ok']
    assert results(checks, 'agrees with its weights') == ['ok', 'ok']


def test_verify_fails_where_file_and_weights_differ(said, style_package, tmp_path):
    folder = shutil.copytree(style_package, tmp_path / 'other')
    torch.manual_seed(1)
    config = StyleConfig.from_dict({**StyleConfig().to_dict(), 'channels': 16, 'blocks': 1})
    save_network(folder / 'weights' / 'dense.safetensors', StyleStudent(config), 'style',
                 config.to_dict())
    checks = said('models', 'verify', folder, '--json', status=1)
    assert results(checks, 'agrees with its weights') == ['FAILED', 'FAILED']
    detail = next(check['detail'] for check in checks if check['result'] == 'FAILED')
    assert 'the greatest difference of output stylised from torch is' in detail


def test_verify_says_what_it_did_not_check(said, negative_package):
    checks = said('models', 'verify', negative_package, '--json')
    assert set(results(checks, 'agrees with its weights')) == {'not checked'}
    assert any('there is no weights/' in check['detail'] for check in checks)


def test_verify_fails_for_a_changed_file_and_an_even_picture(said, negative_package, tmp_path):
    folder = shutil.copytree(negative_package, tmp_path / 'negative')
    (folder / 'transfer.onnx').write_bytes(b'broken')
    checks = said('models', 'verify', folder, '--json', status=1)
    assert results(checks, 'files and hashes') == ['FAILED'] and len(checks) == 1
    even = helper.make_graph(
        [helper.make_node('Mul', ['image', 'zero'], ['stylised']),
         helper.make_node('Identity', ['style'], ['unused'])],
        'even', [helper.make_tensor_value_info('image', TensorProto.UINT8, [1, 'h', 'w', 3]),
                 helper.make_tensor_value_info('style', TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor_value_info('stylised', TensorProto.UINT8, [1, 'h', 'w', 3])],
        [helper.make_tensor('zero', TensorProto.UINT8, [], [0])])
    onnx.save(helper.make_model(even, opset_imports=[helper.make_opsetid('', 17)], ir_version=9),
              folder / 'transfer.onnx')
    data = yaml.safe_load((folder / 'model.yaml').read_text())
    for entry in data['variants'].values():
        entry['sha256'] = sha256_of(folder / 'transfer.onnx')
    (folder / 'model.yaml').write_text(yaml.safe_dump(data))
    checks = said('models', 'verify', folder, '--json', status=1)
    assert results(checks, 'runs in ONNX Runtime') == ['FAILED', 'FAILED']
    assert 'even' in next(check['detail'] for check in checks if check['result'] == 'FAILED')


def test_bench_measures_every_variant_with_every_thread_count(negative_package, tmp_path, capsys):
    path = tmp_path / 'bench.json'
    assert main(['models', 'bench', str(negative_package), '--frames', '5', '--threads', '1',
                 '--json', str(path)]) == 0
    rows = json.loads(path.read_text())['rows']
    assert [(row['variant'], row['threads']) for row in rows] == [('small', 1), ('large', 1)]
    for row in rows:
        assert 0 < row['min_ms'] <= row['median_ms'] <= row['p99_ms']
        assert row['fps'] == pytest.approx(1000 / row['median_ms'], rel=0.05)
        assert row['memory_mb'] > 0
    assert 'large' in capsys.readouterr().out
    assert main(['models', 'bench', str(negative_package), '--frames', '0']) == 2


# -- pull ------------------------------------------------------------------------------------

CONTENT = b'weights as they were published'


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Serve a file on this machine as torchvision's server would; returns its address."""
    import hashlib

    folder = tmp_path / 'served'
    folder.mkdir()
    name = f'net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth'
    (folder / name).write_bytes(CONTENT)
    (folder / 'net-00000000.pth').write_bytes(CONTENT)
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f'http://127.0.0.1:{server.server_port}/{name}'
    server.shutdown()
    server.server_close()
    thread.join()


def test_pull_downloads_once_and_checks_the_hash(published, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pull, 'weights_url', lambda name: published)
    cache = tmp_path / 'cache'
    assert main(['models', 'pull', SSDLITE, '--cache', str(cache)]) == 0
    target = cache / published.rsplit('/', 1)[1]
    assert target.read_bytes() == CONTENT and sha256_of(target) in capsys.readouterr().out
    monkeypatch.setattr(pull, '_download', None)        # must not be needed again
    assert main(['models', 'pull', SSDLITE, '--cache', str(cache)]) == 0


def test_pull_refuses_what_does_not_match(published, tmp_path, monkeypatch, capsys):
    wrong = published.rsplit('/', 1)[0] + '/net-00000000.pth'
    monkeypatch.setattr(pull, 'weights_url', lambda name: wrong)
    assert main(['models', 'pull', SSDLITE, '--cache', str(tmp_path / 'cache')]) == 2
    assert 'expected one that begins with 00000000' in capsys.readouterr().err
    assert list((tmp_path / 'cache').iterdir()) == []
    file = tmp_path / 'mine.pth'
    file.write_bytes(CONTENT)
    assert main(['models', 'pull', SSDLITE, '--cache', str(tmp_path), '--file', str(file)]) == 2
    assert 'mine.pth: sha256 is' in capsys.readouterr().err


def test_pull_takes_a_local_file(published, tmp_path, monkeypatch):
    monkeypatch.setattr(pull, 'weights_url', lambda name: published)
    monkeypatch.setattr(pull, '_download', None)
    file = tmp_path / 'mine.pth'
    file.write_bytes(CONTENT)
    assert main(['models', 'pull', SSDLITE, '--cache', str(tmp_path), '--file', str(file)]) == 0
    assert (tmp_path / published.rsplit('/', 1)[1]).read_bytes() == CONTENT
    assert main(['models', 'pull', SSDLITE, '--file', str(tmp_path / 'none')]) == 2


def test_pull_says_in_a_line_that_it_is_offline(published, tmp_path, monkeypatch, capsys):
    nobody = published.replace('127.0.0.1', 'nobody.invalid')
    monkeypatch.setattr(pull, 'weights_url', lambda name: nobody)
    monkeypatch.setenv('no_proxy', '*')
    assert main(['models', 'pull', SSDLITE, '--cache', str(tmp_path / 'cache')]) == 1
    error = capsys.readouterr().err
    assert 'offline' in error and '--file' in error and error.count('\n') == 1


def test_published_names_and_unknown_ones(capsys):
    url = torchvision.models.get_model_weights(SSDLITE).DEFAULT.url
    assert pull.weights_url(SSDLITE) == url
    assert pull.weights_url('SSDLite320_MobileNet_V3_Large_Weights.COCO_V1') == url
    assert main(['models', 'pull', 'yolo']) == 2
    assert "'yolo' is not known to torchvision" in capsys.readouterr().err


# -- import ----------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def ssdlite(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('imported') / 'ssdlite'
    assert main(['models', 'import', SSDLITE, str(folder), '--random-weights']) == 0
    return folder


class Seen:
    """Stands in for a detector that finds what it is told to."""

    def __init__(self, boxes, scores, class_ids):
        self.boxes = np.array(boxes, np.float32).reshape(-1, 4)
        self.scores, self.class_ids = np.float32(scores), np.array(class_ids, np.int64)

    def __len__(self):
        return len(self.boxes)

    def detect(self, scene):
        return self


def test_an_imported_ssdlite_teaches(ssdlite):
    package = load_package(ssdlite)
    teacher = make_teacher(package, ['person', 'tv'], 320, 256)
    assert isinstance(teacher, BoxTeacher)
    boxes, objectness, labels, features = teacher.label(np.zeros((256, 320, 3), np.uint8))
    assert (boxes.shape, labels.shape, features.shape) == ((1680, 4), (1680, 2), (1680, 0))
    person, tv = (package.classes.index(name) for name in ('person', 'tv'))
    seen = [[0, 0, 40, 40], [100, 60, 300, 200], [0, 0, 30, 30], [5, 5, 45, 45]]
    teacher.detector = Seen(seen, [0.9, 0.8, 0.7, 0.6],
                            [tv, person, package.classes.index('bed'), person])
    boxes, objectness, labels, _ = teacher.label(np.zeros((256, 320, 3), np.uint8))
    small = np.flatnonzero(labels[:, 1])
    large = np.flatnonzero(labels[:, 0] * (objectness > 0.75))
    # 40 pixels: stride 8, whose 40 x 32 cells come first; 200 pixels: stride 32, the last 80.
    assert 4 <= len(small) <= 9 and small.max() < 1280
    assert (objectness[small] == np.float32(0.9)).all()
    assert 4 <= len(large) <= 9 and large.min() >= 1600
    np.testing.assert_array_equal(boxes[large], np.tile([100, 60, 300, 200], (len(large), 1)))
    # What overlaps goes to the surest, and the bed is nobody's: the rest of the frame is empty.
    assert set(np.unique(objectness)) <= {0, np.float32(0.9), np.float32(0.8), np.float32(0.6)}


def test_a_teacher_of_boxes_has_no_features_and_must_know_the_classes(ssdlite):
    package = load_package(ssdlite)
    with pytest.raises(DataError, match='give --mimic 0'):
        make_teacher(package, ['person'], 320, 256, inside=True)
    with pytest.raises(DataError, match='unicorn'):
        make_teacher(package, ['unicorn'], 320, 256)
    with pytest.raises(DataError, match='multiples of 32'):
        make_teacher(package, ['person'], 300, 256)


def test_training_with_an_imported_teacher_runs(ssdlite, tmp_path):
    import cv2
    import skimage.data

    cv2.imwrite(str(tmp_path / 'picture.png'), skimage.data.coffee())
    arguments = ['train', 'detector', '--teacher', ssdlite, '--images', tmp_path, '--mimic', '0',
                 '--steps', '2', '--pool', '2', '--batch', '2', '--width', '64', '--height', '64',
                 '--classes', 'person,cup', '--out', tmp_path / 'run']
    assert main([str(argument) for argument in arguments]) == 0
    detector = Detector(load_package(tmp_path / 'run' / 'package'))
    assert detector.classes == ('person', 'cup')


def test_an_onnx_detector_is_imported_and_drops_in(said, one_box_package, tmp_path, capsys):
    source = one_box_package / 'detector.onnx'
    arguments = ['models', 'import', source, tmp_path / 'out', '--classes', 'person,chair',
                 '--layout', 'nhwc', '--dtype', 'uint8', '--color', 'rgb', '--licence', 'MIT']
    wrong = [*arguments, '--sha256', '0' * 64]
    assert main([str(argument) for argument in wrong]) == 2
    assert 'detector.onnx: sha256 is' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
    # Its decoder has one stride, which the usual YOLOX has not.
    right = [*arguments, '--sha256', sha256_of(source)]
    assert main([str(argument) for argument in right]) == 2
    assert 'decoder yolox expects one output' in capsys.readouterr().err


def test_a_yolox_as_its_authors_export_it_is_imported(data, tmp_path):
    source = data / 'weights' / 'yolox_nano.onnx'
    assert main(['models', 'import', str(source), str(tmp_path / 'out'), '--sha256',
                 sha256_of(source), '--licence', 'Apache-2.0']) == 0
    package = load_package(tmp_path / 'out')
    variant = package.variant()
    assert (variant.width, variant.height, package.licence) == (416, 416, 'Apache-2.0')
    assert 0.85e6 < variant.parameters < 0.95e6 and 1.0 < variant.gflops < 1.2
    import skimage.data

    found = Detector(package).detect(skimage.data.astronaut())
    assert 'person' in [package.classes[index] for index in found.class_ids]


def test_what_is_no_image_detector_is_refused(negative_package, tmp_path, capsys):
    assert main(['models', 'import', str(tmp_path / 'none.onnx'), str(tmp_path / 'out')]) == 2
    assert 'no such file' in capsys.readouterr().err
    assert main(['models', 'import', str(negative_package / 'transfer.onnx'),
                 str(tmp_path / 'out')]) == 2
    assert 'leaves sizes open' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()

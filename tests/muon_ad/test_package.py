"""Loading model packages: what is accepted, and the error for everything else."""

import re
import shutil

import pytest
import yaml

from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import PackageError


@pytest.fixture
def package(negative_package, tmp_path):
    """A copy of a good package that a test may spoil."""
    return shutil.copytree(negative_package, tmp_path / 'package')


def change(package, edit) -> None:
    path = package / 'model.yaml'
    data = yaml.safe_load(path.read_text())
    edit(data)
    path.write_text(yaml.safe_dump(data))


def test_good_package(package):
    loaded = load_package(package)
    assert loaded.name == 'negative'
    assert list(loaded.styles) == ['dark', 'light']
    assert loaded.variant().name == loaded.default_variant == 'small'
    assert (loaded.variant('large').width, loaded.variant('large').height) == (128, 96)


def test_package_of_links_is_accepted(package, tmp_path):
    linked = tmp_path / 'linked'
    linked.mkdir()
    for file in package.iterdir():
        (linked / file.name).symlink_to(file)
    assert load_package(linked).variant().file.is_file()


def test_unknown_variant_names_those_there_are(package):
    with pytest.raises(PackageError, match=r"no variant 'huge'; .*'large', 'small'"):
        load_package(package).variant('huge')


def test_missing_folder(tmp_path):
    with pytest.raises(PackageError, match='no such file'):
        load_package(tmp_path / 'nothing')


@pytest.mark.parametrize('text', ['{', 'just text', '[1, 2]', ''])
def test_unreadable_yaml(package, text):
    (package / 'model.yaml').write_text(text)
    with pytest.raises(PackageError, match='model.yaml'):
        load_package(package)


def test_missing_model_file(package):
    (package / 'transfer.onnx').unlink()
    with pytest.raises(PackageError, match='transfer.onnx: no such file'):
        load_package(package)


def test_wrong_hash_shows_both(package):
    with (package / 'transfer.onnx').open('ab') as stream:
        stream.write(b'x')
    with pytest.raises(PackageError, match=r'sha256 is [0-9a-f]{64}, .* expects [0-9a-f]{64}'):
        load_package(package)


BAD = {
    'task': (lambda d: d.update(task='dance'), "task is 'dance'; expected one of"),
    'no task': (lambda d: d.pop('task'), 'task is missing'),
    'no variants': (lambda d: d.update(variants={}), 'at least one variant'),
    'default': (lambda d: d.update(default_variant='x'), "default_variant is 'x'"),
    'width': (lambda d: d['variants']['small'].update(width=0), 'width is 0; expected 16 to 8192'),
    'width type': (lambda d: d['variants']['small'].update(width='9'), 'expected a int'),
    'escape': (lambda d: d['variants']['small'].update(file='../x.onnx'), 'inside the package'),
    'absolute': (lambda d: d['variants']['small'].update(file='/x.onnx'), 'inside the package'),
    'layout': (lambda d: d.update(input={'layout': 'chwn'}), "input.layout is 'chwn'"),
    'unknown input': (lambda d: d.update(input={'size': 3}), 'size'),
    'mean': (lambda d: d.update(input={'mean': [1, 2]}), 'three numbers'),
    'fit': (lambda d: d.update(input={'resize': 'letterbox'}), 'suits task style'),
    'no style': (lambda d: d.pop('style'), 'style is'),
    'default style': (lambda d: d['style'].update(default='x'), "style.default is 'x'"),
    'detection': (lambda d: d.update(task='detection'), 'decoder.name and a list of classes'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_field(package, name):
    edit, message = BAD[name]
    change(package, edit)
    with pytest.raises(PackageError, match=re.escape(message)):
        load_package(package)

"""Files in YAML: model packages, calibrations and parameters, whole, spoilt and random."""

import contextlib
import shutil

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from odd import is_finite
from odd import ODD_TEXTS
from odd import spoilt
from odd import YAML_TEXTS

from muon_ad.documents import DocumentError
from muon_ad.documents import parse_document
from muon_ad.documents import quoted
from muon_ad.runtime.installed import find_package
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import PackageError
from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.calibration import CalibrationError
from muon_ad_nodes.parts.calibration import load_calibration
from muon_ad_nodes.parts.realtime import POLICIES
from muon_ad_nodes.parts.realtime import settings_from_arguments

STYLE = {
    'name': 'x', 'task': 'style', 'summary': 's', 'licence': 'MIT', 'default_variant': 'large',
    'input': {
        'color': 'bgr', 'layout': 'nchw', 'dtype': 'float32', 'resize': 'fit',
        'mean': [1.0, 2, 3], 'std': [1, 2.0, 3], 'pad_value': 114,
    },
    'variants': {}, 'style': {}, 'quality': {'a': 1},
}  # fmt: skip
CALIBRATION = {
    'image_width': 64, 'image_height': 48, 'camera_name': 'eye', 'distortion_model': 'plumb_bob',
    'camera_matrix': {'rows': 3, 'cols': 3, 'data': [50.0, 0, 32, 0, 50, 24, 0, 0, 1]},
    'distortion_coefficients': {'rows': 1, 'cols': 5, 'data': [0.1, 0.2, 0, 0, 0]},
    'rectification_matrix': {'rows': 3, 'cols': 3, 'data': [1, 0, 0, 0, 1, 0, 0, 0, 1]},
    'projection_matrix': {'rows': 3, 'cols': 4, 'data': [50, 0, 32, 0, 0, 50, 24, 0, 0, 0, 1, 0]},
}  # fmt: skip
PARAMETERS = {
    '/**': {'ros__parameters': {'realtime': {'policy': 'fifo', 'priority': 5}}},
    '/left/eye': {'ros__parameters': {'realtime.cpus': [0, 1], 'realtime': {'lock_memory': True}}},
}


def write(path, document) -> bool:
    """Write a document as YAML, or a text as it is; return whether that is possible."""
    with contextlib.suppress(yaml.YAMLError, UnicodeEncodeError):
        text = document if isinstance(document, str) else yaml.safe_dump(document)
        path.write_text(text, encoding='utf-8')
        return True
    return False


@given(YAML_TEXTS)
def test_any_text_is_a_document_or_an_error_of_bounded_size(text):
    with contextlib.suppress(DocumentError):
        assert len(quoted(parse_document(text))) < 30_000


@pytest.fixture(params=['negative_package', 'one_box_package'])
def package(request, tmp_path):
    """A good package in a folder of its own."""
    good = request.getfixturevalue(request.param)
    folder = shutil.copytree(good, tmp_path / 'package')
    document = yaml.safe_load((folder / 'model.yaml').read_text())
    document['input'] = {**STYLE['input'], 'resize': 'stretch'}
    document.update({key: STYLE[key] for key in ('summary', 'licence', 'quality')})
    return folder, document


@given(data=st.data())
def test_model_packages(package, data):
    folder, document = package
    if not write(folder / 'model.yaml', data.draw(spoilt(document) | YAML_TEXTS)):
        return
    with contextlib.suppress(PackageError):
        _check_package(load_package(folder))


def _check_package(package: ModelPackage) -> None:
    """All that is in a package that was accepted can be used."""
    assert package.variant().file.is_file()
    assert isinstance(package.name, str)
    prepared = package.input
    assert is_finite(*prepared.mean, *prepared.std)
    assert all(prepared.std)
    assert 0 <= prepared.pad_value <= 255
    for variant in package.variants.values():
        assert is_finite(variant.pruned, variant.gflops)
    if package.task == 'style':
        assert package.styles[package.default_style].is_file()
        assert package.style_encoder.is_file()


@given(ODD_TEXTS)
def test_folder_of_a_model_package(name):
    with pytest.raises(PackageError):
        load_package(name)
    with contextlib.suppress(PackageError):
        assert find_package(name).is_dir()


@given(document=spoilt(CALIBRATION) | YAML_TEXTS)
def test_calibrations(tmp_path, document):
    path = tmp_path / 'camera.yaml'
    if not write(path, document):
        return
    with contextlib.suppress(CalibrationError):
        calibration = load_calibration(str(path))
        assert isinstance(calibration, Calibration)
        assert calibration.calibrated
        assert is_finite(*calibration.k, *calibration.d, *calibration.p, *calibration.r)
        from builtin_interfaces.msg import Time

        calibration.message(Time(), 'eye')


@given(ODD_TEXTS)
def test_locations_of_calibrations(location):
    with pytest.raises(CalibrationError):
        load_calibration(location)


@given(
    document=spoilt(PARAMETERS) | YAML_TEXTS,
    words=st.lists(
        st.sampled_from([
            '--ros-args', '-p', '-r', '--params-file', '__node:=eye', '__ns:=/left', 'FILE',
            'realtime.cpus:=[', 'realtime.priority:=x', 'realtime.policy:=[fifo]', 'realtime.:=',
            'realtime.cpus:=[-1, 99999999999999999999999, 5000]', 'realtime.lock_memory:=1',
        ]) | YAML_TEXTS.map('realtime.cpus:={}'.format),
        max_size=4,
    ),
)  # fmt: skip
def test_real_time_settings_never_raise_as_the_node_reports_what_is_wrong(
    tmp_path, document, words
):
    path = tmp_path / 'params.yaml'
    if not write(path, document):
        return
    words = ['--params-file', str(path), *(str(path) if w == 'FILE' else w for w in words)]
    settings = settings_from_arguments(words, 'eye')
    assert settings.policy == '' or settings.policy in POLICIES
    assert 0 <= settings.priority <= 99
    assert all(0 <= cpu < 1024 for cpu in settings.cpus)
    assert isinstance(settings.lock_memory, bool)

"""Finding model packages by name: sourced workspaces, then the checkout."""

import shutil

import pytest

from muon_ad.runtime.installed import find_package
from muon_ad.runtime.installed import models_folder
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import PackageError


def test_checkout_is_found_without_ros(monkeypatch):
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    assert load_package(find_package('style_default')).task == 'style'


def test_sourced_workspace_comes_first(monkeypatch, tmp_path, negative_package):
    folder = tmp_path / 'share' / 'muon_ad_nodes' / 'models'
    shutil.copytree(negative_package, folder / 'negative')
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'/nowhere:{tmp_path}')
    assert models_folder() == folder
    assert find_package('negative') == folder / 'negative'


def test_path_and_unknown_name(negative_package, tmp_path):
    assert find_package(str(negative_package)) == negative_package
    with pytest.raises(PackageError, match='detector_default'):
        find_package('unicorn')
    with pytest.raises(PackageError, match="model is ''"):
        find_package('', tmp_path)

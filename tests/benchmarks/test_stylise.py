"""Rates and ratios of the style benchmark."""

import _stylers
import numpy as np
import pytest
import stylise
from stylise import Case
from stylise import Rates

from muon_ad.runtime.package import load_package

SIZE = (320, 240)


def test_every_frame_is_counted_but_the_first():
    seen = []
    frames = [np.full((1, 1, 3), value, np.uint8) for value in range(4)]
    fps = stylise.rate(lambda rgb: seen.append(rgb[0, 0, 0]), frames, seconds=0.0)
    assert fps > 0
    # One to warm up, then as many as there must be, each another.
    assert seen == [3, 0, 1, 2]
    assert len(seen) == 1 + stylise.LEAST


def rounds(*fps: float) -> list[Rates]:
    return [Rates(value, None) for value in fps]


def test_ratios_compare_like_with_like():
    found = stylise.compare({
        Case('suite', SIZE, 1, False): rounds(30.0, 40.0),
        Case('microast', SIZE, 1, False): rounds(10.0, 10.0),
        Case('suite', SIZE, 1, True): rounds(15.0, 20.0),
        Case('microast', SIZE, 1, True): rounds(3.0, 4.0),
    })
    assert {name: ratio['rounds'] for name, ratio in found.items()} == {
        'fps_320x240_1t_vs_microast': [3.0, 4.0],
        'fps_320x240_1t_beside_detector_vs_microast': [5.0, 5.0],
        'fps_320x240_1t_kept_beside_detector': [0.5, 0.5],
    }


def test_without_peer_and_detector_there_is_nothing_to_compare():
    assert stylise.compare({Case('suite', SIZE, 1, False): rounds(30.0)}) == {}


def test_variants_are_found_by_size(negative_package):
    package = load_package(negative_package)
    assert _stylers.variant_of(package, (128, 96)) == 'large'
    with pytest.raises(ValueError, match='no variant of 320x240'):
        _stylers.variant_of(package, SIZE)


def test_the_peer_is_left_out_where_its_weights_are_not(tmp_path, monkeypatch, capsys):
    pytest.importorskip('torch')
    monkeypatch.setattr(_stylers, 'WEIGHTS', tmp_path)
    assert _stylers.peers(tmp_path) == {}
    assert 'no peer' in capsys.readouterr().out


def test_the_published_weights_fit_the_peer_and_stylise(data, tmp_path):
    pytest.importorskip('torch')
    import _microast
    import cv2

    from muon_ad.runtime.engine import Engine

    style = tmp_path / 'style.png'
    cv2.imwrite(str(style), np.tile(np.uint8([[[200, 60, 0]]]), (64, 64, 1)))
    path = tmp_path / 'microast.onnx'
    _microast.export(data / 'weights', style, 64, 48, path)
    grey = np.full((1, 48, 64, 3), 128, np.uint8)
    stylised = Engine(path).run({'image': grey})[0]
    assert stylised.shape == grey.shape
    blue, red = stylised[..., 2].mean(), stylised[..., 0].mean()
    assert blue > red, 'a blue style must tint a grey picture'

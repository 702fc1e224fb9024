"""The style package that ships: whole, small, legible, and its styles unlike each other."""

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from muon_ad.metrics.style import flicker
from muon_ad.metrics.style import similarity
from muon_ad.runtime.package import load_package
from muon_ad.runtime.style import fitting
from muon_ad.runtime.style import read_style
from muon_ad.runtime.style import StyleModel
from muon_ad.styles.draw import draw

FOLDER = Path(__file__).resolve().parents[2] / 'models' / 'style_default'
NETWORKS, SIZES = ('dense', 'p40', 'p60'), ('320x240', '640x480')
PHOTO = cv2.resize(astronaut()[:384], (320, 240), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope='module')
def package():
    return load_package(FOLDER)


@pytest.fixture(scope='module')
def results(package) -> dict[str, np.ndarray]:
    model = StyleModel(package)
    found = {}
    for name in model.styles:
        model.set_style(name)
        found[name] = model.stylise(PHOTO).copy()
    return found


def test_it_is_small_and_says_where_it_comes_from(package):
    assert len(package.styles) >= 8
    assert package.licence == 'Apache-2.0'
    assert {f'{network}{precision}_{size}' for network in NETWORKS for precision in ('', '_int8')
            for size in SIZES} <= package.variants.keys()
    for path in [*FOLDER.glob('*.onnx'), *FOLDER.glob('weights/*')]:
        assert path.stat().st_size < 2_000_000, path
    for path in package.styles.values():
        assert path.stat().st_size < 300_000
    card = (FOLDER / 'README.md').read_text()
    assert 'muon-ad train style' in card
    assert {'dense_320x240', 'p60_int8_320x240', 'photograph', 'fps'} <= package.quality.keys()


def test_its_style_images_are_those_that_the_generator_draws(package):
    for name, path in package.styles.items():
        difference = np.abs(read_style(path).astype(int) - draw(name))
        # Another version of OpenCV may round an edge otherwise.
        assert difference.mean() < 1, name


def test_every_style_changes_the_picture_and_keeps_the_scene(results):
    def tone(image: np.ndarray) -> np.ndarray:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return cv2.resize(grey, (40, 30), interpolation=cv2.INTER_AREA).ravel()

    for name, result in results.items():
        assert result.shape == PHOTO.shape
        assert np.abs(result.astype(int) - PHOTO).mean() > 20, name
        assert np.corrcoef(tone(result), tone(PHOTO))[0, 1] > 0.5, name


def test_any_two_styles_differ_by_a_real_margin(results):
    for one, two in combinations(results, 2):
        difference = np.abs(results[one].astype(int) - results[two]).mean()
        assert difference > 12, (one, two)


def test_the_answer_is_steady_and_has_no_frame(package):
    model = StyleModel(package)
    wide = cv2.resize(astronaut()[:384], (321, 240), interpolation=cv2.INTER_AREA)
    plain = np.full((240, 320, 3), 120, np.uint8)
    for name in model.styles:
        model.set_style(name)
        assert flicker(lambda image: model.stylise(image).copy(), wide) < 16, name
        result = model.stylise(plain).astype(np.float32).mean(axis=2)
        edge = np.concatenate([result[:4].ravel(), result[-4:].ravel(), result[:, :4].ravel(),
                               result[:, -4:].ravel()])
        assert abs(edge.mean() - result[16:-16, 16:-16].mean()) < 25, name


@pytest.mark.parametrize(('name', 'share'), [('p40', 0.4), ('p60', 0.6)])
def test_the_pruned_ones_are_that_much_smaller_and_look_alike(package, results, name, share):
    dense, pruned = (package.variants[f'{each}_320x240'] for each in ('dense', name))
    assert pruned.pruned == pytest.approx(1 - pruned.parameters / dense.parameters, abs=0.001)
    assert pruned.pruned == pytest.approx(share, abs=0.05)
    assert pruned.gflops < dense.gflops * (1.1 - share)
    assert alike(package, pruned.name, results) > 0.5


@pytest.mark.parametrize('name', NETWORKS)
def test_the_int8_ones_are_smaller_files_and_look_the_same(package, name):
    whole, reduced = (package.variants[f'{name}{each}_320x240'] for each in ('', '_int8'))
    assert reduced.precision == 'int8' and reduced.parameters == whole.parameters
    assert reduced.file.stat().st_size < 0.5 * whole.file.stat().st_size
    model = StyleModel(package, whole.name)
    wanted = {}
    for style in model.styles:
        model.set_style(style)
        wanted[style] = model.stylise(PHOTO).copy()
    assert alike(package, reduced.name, wanted) > 0.8


def alike(package, name: str, wanted: dict[str, np.ndarray]) -> float:
    """The mean SSIM of a variant's pictures to those wanted, by style."""
    model = StyleModel(package, name)
    found = []
    for style, picture in wanted.items():
        model.set_style(style)
        found.append(similarity(model.stylise(PHOTO), picture))
    return float(np.mean(found))


def test_all_variants_run(package):
    for variant in package.variants:
        model = StyleModel(package, variant)
        result = model.stylise(PHOTO)
        size = fitting(PHOTO.shape[1::-1], (model.variant.width, model.variant.height))
        assert result.shape == (size[1], size[0], 3)
        assert result.std() > 20

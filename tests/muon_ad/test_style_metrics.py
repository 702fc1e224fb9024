"""The judge of style networks: orders what is obviously ordered, and is loaded with care."""

import shutil

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from muon_ad.metrics.style import flicker
from muon_ad.metrics.style import Judge
from muon_ad.metrics.style import JudgeError
from muon_ad.metrics.style_report import compare
from muon_ad.metrics.style_report import draw_sheet
from muon_ad.metrics.style_report import mean_figures
from muon_ad.metrics.style_report import Peer
from muon_ad.metrics.style_report import write_quality
from muon_ad.networks.microast import MicroAST
from muon_ad.runtime.package import load_package
from muon_ad.styles.draw import draw

PHOTO = cv2.resize(astronaut(), (160, 160), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope='module')
def judge(data):
    return Judge.load(data / 'weights' / 'squeezenet_v1.0.npz')


def test_equal_images_have_no_distance(judge):
    assert judge.style_distance(PHOTO, PHOTO) == pytest.approx(0, abs=1e-6)
    assert judge.content_distance(PHOTO, PHOTO) == pytest.approx(0, abs=1e-6)


def test_another_sheet_of_a_style_is_nearer_than_another_style(judge):
    mosaic = draw('mosaic', 160)
    same = judge.style_distance(draw('mosaic', 160, seed=1), mosaic)
    assert same < 0.6 * judge.style_distance(draw('swirls', 160), mosaic)
    assert same < 0.6 * judge.style_distance(PHOTO, mosaic)


def test_content_survives_a_change_of_colour_but_not_of_place(judge):
    recoloured = judge.content_distance(255 - PHOTO // 2, PHOTO)
    noisy = PHOTO + np.random.default_rng(0).integers(0, 9, PHOTO.shape, np.uint8) // 2
    assert judge.content_distance(noisy, PHOTO) < recoloured
    assert recoloured < judge.content_distance(draw('swirls', 160), PHOTO)


def test_flicker_is_nothing_for_what_moves_along_and_much_for_a_fixed_grid():
    assert flicker(lambda image: 255 - image, PHOTO) == 0
    grid = np.indices((160, 159)).sum(axis=0)[..., None] % 2 * 20

    def hatched(image: np.ndarray) -> np.ndarray:
        return (image // 2 + grid).astype(np.uint8)

    assert flicker(hatched, PHOTO) == pytest.approx(20, abs=1)


def test_microast_recolours_the_picture_and_keeps_the_scene(data, judge):
    peer = Peer(MicroAST.load(data / 'weights'), draw('swirls'))
    result = peer(PHOTO)
    assert result.shape == PHOTO.shape
    assert judge.style_distance(result, draw('swirls')) < 0.9 * judge.style_distance(
        PHOTO, draw('swirls'))
    assert judge.content_distance(result, PHOTO) < 0.95 * judge.content_distance(
        draw('swirls', 160), PHOTO)


def test_microast_names_the_weights_that_are_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match='microast_content_encoder.pth.*EndyWon'):
        MicroAST.load(tmp_path)


def test_a_report_judges_every_style_and_is_written_into_the_package(
        judge, negative_package, tmp_path):
    folder = tmp_path / 'copy'
    shutil.copytree(negative_package, folder)
    package = load_package(folder)
    photos = [cv2.resize(PHOTO, (65, 48), interpolation=cv2.INTER_AREA)]
    table = compare(package, judge, photos, None)
    assert table.keys() == {'dark', 'light'}
    assert table['dark'].keys() == {'small', 'photograph'}     # not the large variant
    assert table['dark']['photograph']['content_distance'] == 0
    assert table['dark']['photograph']['ssim'] == 1
    assert draw_sheet(package, photos).shape == (2 * 48, 48 + 64 + 64, 3)
    assert table['dark']['small']['content_distance'] > 0
    write_quality(package, mean_figures(table))
    means = load_package(folder).quality
    assert means['small']['style_distance'] == pytest.approx(np.mean(
        [row['small']['style_distance'] for row in table.values()]), abs=1e-3)


def test_missing_and_other_weights_are_named(tmp_path):
    with pytest.raises(JudgeError, match='no such file'):
        Judge.load(tmp_path / 'none.npz')
    np.savez(tmp_path / 'other.npz', something=np.zeros(3))
    with pytest.raises(JudgeError, match='expected SqueezeNet'):
        Judge.load(tmp_path / 'other.npz')

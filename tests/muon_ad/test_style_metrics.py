"""The judge of style networks: orders what is obviously ordered, and is loaded with care."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from muon_ad.metrics.style import flicker
from muon_ad.metrics.style import Judge
from muon_ad.metrics.style import JudgeError
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


def test_missing_and_other_weights_are_named(tmp_path):
    with pytest.raises(JudgeError, match='no such file'):
        Judge.load(tmp_path / 'none.npz')
    np.savez(tmp_path / 'other.npz', something=np.zeros(3))
    with pytest.raises(JudgeError, match='expected SqueezeNet'):
        Judge.load(tmp_path / 'other.npz')

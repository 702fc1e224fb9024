"""The entropy of scenes that are blank, plain, rich and noisy, and of regions of them."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muon_ad.runtime.entropy import Region
from muon_ad.runtime.entropy import RegionError
from muon_ad.runtime.entropy import scene_entropy
from muon_ad.runtime.lod import LodSettings
from muon_ad.scene import Scene
from muon_ad.scene import View


def noise(low=0, high=256, shape=(120, 160, 3)):
    return np.random.default_rng(0).integers(low, high, shape, np.uint8)


def test_blank_is_0_and_noise_nearly_1():
    assert scene_entropy(np.full((48, 64, 3), 77, np.uint8)) == 0
    assert scene_entropy(noise()) > 0.9


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 255), st.integers(1, 256))
def test_it_is_from_0_to_1_for_frames_of_every_size(width, height, low, span):
    frame = noise(low, min(low + span, 256), (height, width, 3))
    assert 0 <= scene_entropy(frame) <= 1


def test_noise_of_a_few_levels_and_a_smooth_shade_are_plain():
    wall = noise(150, 156, (480, 640, 3))
    shade = np.broadcast_to(
        np.linspace(80, 160, 640).astype(np.uint8)[None, :, None], (480, 640, 3)
    )
    for frame in (wall, shade):
        assert scene_entropy(frame) < LodSettings.plain


def test_noise_within_a_class_of_grey_levels_is_not_seen():
    assert scene_entropy(noise(144, 152)) == 0


def test_a_room_is_rich():
    assert scene_entropy(Scene(View.from_fov(640, 480, 62.2)).rgb(0.0)) > LodSettings.rich


def test_most_photographs_are_rich_and_none_is_blank(data):
    found = []
    for path in sorted((data / 'photos').glob('*.jpg')):
        picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        found.append(scene_entropy(cv2.resize(picture, (640, 480))))
    assert min(found) > LodSettings.plain
    assert np.mean(np.array(found) > LodSettings.rich) > 0.8


def test_size_changes_it_little():
    frame = Scene(View.from_fov(640, 480, 62.2)).rgb(0.0)
    small = cv2.resize(frame, (320, 240), interpolation=cv2.INTER_AREA)
    assert scene_entropy(small) == pytest.approx(scene_entropy(frame), abs=0.05)


def test_what_is_no_frame_is_refused():
    with pytest.raises(ValueError, match='at least one pixel'):
        scene_entropy(np.zeros((0, 64, 3), np.uint8))


def test_a_region_is_measured_alone():
    frame = np.full((480, 640, 3), 90, np.uint8)
    frame[:240, :320] = noise(shape=(240, 320, 3))
    for values, rich in (
        ([0, 0, 320, 240], True), ([0, 0, 0.5, 0.5], True),
        ([320, 240, 320, 240], False), ([0.5, 0.5, 0.5, 0.5], False),
    ):
        found = scene_entropy(Region.parse(values).of(frame))
        assert (found > 0.9) == rich and (found == 0) != rich, values


def test_a_region_is_cut_at_the_border_and_may_be_empty():
    frame = np.zeros((48, 64, 3), np.uint8)
    assert Region.parse([60, 40, 100, 100]).of(frame).shape == (8, 4, 3)
    assert Region.parse([64, 0, 10, 10]).of(frame).size == 0
    assert Region.parse([0.9, 0.9, 1.0, 1.0]).of(frame).shape == (5, 6, 3)
    assert Region.parse([]) is None
    assert Region.parse([0, 0, 1, 1]).of(frame).shape == (48, 64, 3)


@pytest.mark.parametrize('values', [
    [1, 2, 3], [0, 0, 0, 10], [-1, 0, 10, 10], [0, 0, float('inf'), 1], [0, 0, float('nan'), 1],
])
def test_what_is_no_region_is_refused_with_what_was_expected(values):
    with pytest.raises(RegionError, match='expected'):
        Region.parse(values)

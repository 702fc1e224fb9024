"""The strip of colour bars and frame number."""

import cv2
import numpy as np
import pytest

from muon_ad.test_pattern import draw_strip
from muon_ad.test_pattern import read_number
from muon_ad.test_pattern import strip_height


@pytest.mark.parametrize('number', [0, 1, 0x5A5A5A, (1 << 24) - 1])
@pytest.mark.parametrize('size', [(96, 72), (640, 480), (1280, 720)])
def test_the_number_reads_back(size, number):
    picture = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), np.uint8)
    draw_strip(picture, number)
    assert read_number(picture) == number


def test_the_number_survives_scaling_and_compression():
    picture = np.full((480, 640, 3), 90, np.uint8)
    draw_strip(picture, 1234567)
    small = cv2.resize(picture, (320, 240), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode('.jpg', small, (cv2.IMWRITE_JPEG_QUALITY, 50))
    assert read_number(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) == 1234567


def test_the_number_wraps():
    picture = np.zeros((480, 640, 3), np.uint8)
    draw_strip(picture, (1 << 24) + 7)
    assert read_number(picture) == 7


def test_the_strip_leaves_the_rest_alone_and_shows_red_as_red():
    picture = np.full((480, 640, 3), 90, np.uint8)
    draw_strip(picture, 0)
    rows = strip_height(480)
    assert (picture[:-rows] == 90).all()
    bar = 640 // 3 // 8
    assert tuple(picture[-rows // 2, 5 * bar + bar // 2]) == (235, 16, 16)


def test_a_narrow_picture_is_an_error():
    with pytest.raises(ValueError, match='64 pixels wide'):
        draw_strip(np.zeros((48, 64, 3), np.uint8), 0)

"""The generator of style images: repeatable, and each sheet unlike the others."""

import argparse

import cv2
import numpy as np
import pytest

from muon_ad.styles import draw as drawing

SIZE = 128


@pytest.mark.parametrize('name', drawing.STYLES)
def test_the_same_seed_draws_the_same_sheet_and_another_seed_another(name):
    sheet = drawing.draw(name, SIZE, seed=3)
    assert sheet.shape == (SIZE, SIZE, 3)
    assert sheet.dtype == np.uint8
    np.testing.assert_array_equal(sheet, drawing.draw(name, SIZE, seed=3))
    assert np.mean(sheet != drawing.draw(name, SIZE, seed=4)) > 0.2


@pytest.mark.parametrize('name', drawing.STYLES)
def test_every_sheet_has_strokes_light_and_dark(name):
    grey = cv2.cvtColor(drawing.draw(name, SIZE), cv2.COLOR_RGB2GRAY).astype(np.float32)
    assert np.percentile(grey, 95) - np.percentile(grey, 5) > 60
    fine = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 6)).mean()
    assert fine > 4


def test_noise_covers_every_level_alike():
    field = drawing.noise(np.random.default_rng(0), 64, 16)
    assert field.min() == 0 and field.max() == 1
    counts, _ = np.histogram(field, bins=8, range=(0, 1))
    assert np.ptp(counts) <= 2


def test_an_unknown_name_and_a_silly_size_are_refused():
    with pytest.raises(ValueError, match="no style 'pastel'"):
        drawing.draw('pastel')
    with pytest.raises(ValueError, match='size is 8'):
        drawing.draw('mosaic', 8)


def test_the_command_writes_the_sheets_asked_for(tmp_path):
    parser = argparse.ArgumentParser()
    drawing.add_arguments(parser)
    out = tmp_path / 'new' / 'sheets'
    args = parser.parse_args([str(out), '--size', '64', '--names', 'waves', 'knife'])
    assert drawing.run(args) == 0
    assert sorted(path.name for path in out.iterdir()) == ['knife.png', 'waves.png']
    written = cv2.cvtColor(cv2.imread(str(out / 'waves.png')), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(written, drawing.draw('waves', 64))

"""The rendered scene: deterministic, and true to its own geometry."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from muon_ad import scene
from muon_ad.scene import Scene
from muon_ad.scene import SceneError
from muon_ad.scene import View

TIMES = (0.0, 1.7, 4.4, 9.0, 1_700_000_000.25)
COLOR = View.from_fov(320, 240, 55.0)
DEPTH = View.from_fov(320, 240, 65.0, (-0.015, 0.0, 0.0))


@pytest.fixture(scope='module')
def color() -> Scene:
    return Scene(COLOR)


@pytest.fixture(scope='module')
def depth() -> Scene:
    return Scene(DEPTH)


def project(view: View, point) -> tuple[int, int]:
    x, y, z = point
    return round(view.cx + view.fx * x / z), round(view.cy + view.fy * y / z)


def test_frames_have_the_promised_types(color):
    rgb, metres = color.render(0.5)
    assert rgb.shape == (240, 320, 3) and rgb.dtype == np.uint8
    assert metres.shape == (240, 320) and metres.dtype == np.float32
    assert np.isfinite(metres).all()
    assert metres.min() > 1.0 and metres.max() < 5.2


@pytest.mark.parametrize('t', TIMES)
def test_equal_times_give_equal_frames(color, t):
    again = Scene(COLOR)
    for mine, other in zip(color.render(t), again.render(t), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert color.truth(t) == again.truth(t)


def test_the_scene_moves_smoothly(color):
    still = color.rgb(3.0).astype(float)
    soon = np.abs(color.rgb(3.0 + 1 / 30) - still).mean()
    later = np.abs(color.rgb(4.0) - still).mean()
    assert 0 < soon < later


@pytest.mark.parametrize('t', TIMES)
def test_truth_agrees_with_depth(color, t):
    """An object's depth is found at its centre, unless a nearer one covers it."""
    metres = color.depth(t)
    truths = color.truth(t)
    assert [truth.centre[2] for truth in truths] == sorted(truth.centre[2] for truth in truths)
    confirmed = 0
    for truth in truths:
        u, v = project(COLOR, truth.centre)
        if 0 <= u < COLOR.width and 0 <= v < COLOR.height:
            assert metres[v, u] <= truth.centre[2] + 1e-4
            confirmed += abs(metres[v, u] - truth.centre[2]) < 1e-4
    assert confirmed >= 3


@pytest.mark.parametrize('t', TIMES)
def test_boxes_enclose_exactly_what_has_the_depth(color, t):
    metres = color.depth(t)
    nearest = color.truth(t)[0]
    rows, columns = np.nonzero(np.abs(metres - nearest.centre[2]) < 1e-4)
    found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert nearest.label == 'person'
    np.testing.assert_allclose(nearest.box, found, atol=1.5)


@pytest.mark.parametrize('t', TIMES)
def test_the_visitor_is_prominent(color, t):
    box = next(truth.box for truth in color.truth(t) if truth.name == 'visitor')
    assert box[3] - box[1] > 0.4 * COLOR.height
    assert box[3] == pytest.approx(COLOR.height, abs=1)     # never cut off above the lower edge


@pytest.mark.parametrize('t', TIMES)
def test_colour_edges_lie_where_depth_says(color, t):
    """The pictures' frames are dark wood all around, inside the outline seen in depth."""
    rgb, metres = color.render(t)
    for truth in color.truth(t):
        x0, y0, x1, y1 = truth.box
        whole = x0 > 2 and y0 > 2 and x1 < COLOR.width - 2 and y1 < COLOR.height - 2
        mask = (np.abs(metres - truth.centre[2]) < 1e-4).astype(np.uint8)
        hidden = mask.sum() < 0.8 * (x1 - x0) * (y1 - y0)
        if whole and not hidden and truth.name != 'visitor':
            rim = mask - cv2.erode(mask, np.ones((3, 3), np.uint8))
            assert np.median(rgb[rim > 0].max(axis=1)) < 110


@pytest.mark.parametrize('t', TIMES)
def test_two_views_see_one_world(color, depth, t):
    """Every depth pixel, carried over to the colour camera, meets the depth rendered there."""
    v, u = np.mgrid[0:DEPTH.height, 0:DEPTH.width]
    z = depth.depth(t).astype(float)
    x = (u - DEPTH.cx) * z / DEPTH.fx + DEPTH.position[0]
    y = (v - DEPTH.cy) * z / DEPTH.fy
    across = np.round(COLOR.cx + COLOR.fx * x / z).astype(int)
    down = np.round(COLOR.cy + COLOR.fy * y / z).astype(int)
    seen = (across >= 0) & (across < COLOR.width) & (down >= 0) & (down < COLOR.height)
    there = color.depth(t)[down[seen], across[seen]]
    error = np.abs(there - z[seen]) / z[seen]
    assert np.median(error) < 0.002
    assert (error > 0.02).mean() < 0.05                     # edges and what one view hides


def test_wide_and_small_views_work():
    wide = Scene(View.from_fov(160, 120, 110.0))
    rgb, metres = wide.render(2.0)
    assert rgb.std() > 20 and metres.min() > 0.5


def test_missing_photographs_are_named(monkeypatch, tmp_path):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'astronaut.png').write_bytes(b'not a picture')
    fake = type('Spec', (), {'origin': str(tmp_path / '__init__.py')})
    monkeypatch.setattr(scene.importlib.util, 'find_spec', lambda name: fake)
    with pytest.raises(SceneError, match='astronaut.png.*pip install'):
        Scene(COLOR)
    monkeypatch.setattr(scene.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(SceneError, match='not installed.*pip install scikit-image'):
        Scene(COLOR)


def test_it_needs_neither_ros_nor_torch_nor_a_download():
    code = (
        'import sys\n'
        'from muon_ad.scene import Scene, View\n'
        'Scene(View.from_fov(160, 120, 60.0)).render(0.0)\n'
        "print({'rclpy', 'torch', 'pooch', 'skimage', 'scipy'} & set(sys.modules))\n"
    )
    folder = scene.__file__.removesuffix('muon_ad/scene.py')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          env={'PYTHONPATH': folder}, check=True)
    assert done.stdout.strip() == 'set()'

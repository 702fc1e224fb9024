"""StyleModel: frames of every size, styles that are right and wrong, changes while running."""

import shutil
import threading

import cv2
import numpy as np
import pytest

from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import PackageError
from muon_ad.runtime.style import fitting
from muon_ad.runtime.style import read_style
from muon_ad.runtime.style import StyleError
from muon_ad.runtime.style import StyleModel


@pytest.fixture
def model(negative_package) -> StyleModel:
    return StyleModel(load_package(negative_package))


def grey_frame(value: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_it_starts_with_the_default_style_and_knows_the_others(model):
    assert model.styles == ('dark', 'light')
    assert model.style == 'dark'
    assert (model.stylise(grey_frame(100)) == 155).all()


def test_a_built_in_style_changes_the_next_frame(model):
    model.stylise(grey_frame(100))
    model.set_style('light')
    assert model.style == 'light'
    assert (model.stylise(grey_frame(100)) == 195).all()


def test_a_style_from_a_file_is_named_by_its_path(model, tmp_path):
    path = tmp_path / 'mine.png'
    cv2.imwrite(str(path), grey_frame(20, 300, 200))
    model.set_style(path)
    assert model.style == str(path)
    assert (model.stylise(grey_frame(100)) == 175).all()


@pytest.mark.parametrize('shape', [(48, 64), (96, 128), (17, 301), (1, 1), (1080, 1920)])
def test_frames_of_any_size_come_out_at_the_variant_s_size(model, shape):
    result = model.stylise(np.full((*shape, 3), 55, np.uint8))
    assert result.shape == (48, 64, 3)
    assert (result == 200).all()


def test_a_frame_with_gaps_in_memory_is_read_anew_each_time(model):
    wide = grey_frame(10, 128)
    view = wide[:, ::2]
    assert (model.stylise(view) == 245).all()
    wide[:] = 90
    assert (model.stylise(view) == 165).all()


def test_a_read_only_frame_is_taken(model):
    frame = np.frombuffer(bytes([7]) * (48 * 64 * 3), np.uint8).reshape(48, 64, 3)
    assert (model.stylise(frame) == 248).all()


@pytest.mark.parametrize('frame', [
    np.zeros((48, 64), np.uint8), np.zeros((48, 64, 4), np.uint8),
    np.zeros((48, 64, 3), np.float32), np.zeros((0, 64, 3), np.uint8),
])
def test_what_is_no_rgb_frame_is_refused_with_its_shape(model, frame):
    with pytest.raises(StyleError, match='expected uint8'):
        model.stylise(frame)


def wrong_styles(folder):
    (folder / 'empty.png').write_bytes(b'')
    (folder / 'text.png').write_text('a picture is worth a thousand of these')
    cv2.imwrite(str(folder / 'tiny.png'), grey_frame(0, 15, 400))
    whole = cv2.imencode('.png', np.random.default_rng(0).integers(
        0, 255, (64, 64, 3), np.uint8))[1].tobytes()
    (folder / 'cut.png').write_bytes(whole[:40])
    cv2.imwrite(str(folder / 'float.tiff'), np.zeros((64, 64, 3), np.float32))
    return {
        'missing.png': 'no such file', '': 'is a folder', 'empty.png': 'the file is empty',
        'text.png': 'is not an image', 'cut.png': 'is not an image',
        'tiny.png': '15x400 pixels is too small', 'float.tiff': 'float32 pixels',
    }


def test_a_wrong_style_is_refused_by_path_and_problem_and_the_old_one_stays(model, tmp_path):
    model.set_style('light')
    for name, problem in wrong_styles(tmp_path).items():
        path = tmp_path / name
        with pytest.raises(StyleError) as caught:
            model.set_style(path)
        assert problem in str(caught.value)
        assert str(path) in str(caught.value)
        assert model.style == 'light'
        assert (model.stylise(grey_frame(100)) == 195).all()


def test_an_empty_name_is_refused_and_a_missing_file_suggests_the_built_in_ones(model):
    with pytest.raises(StyleError, match='no style given'):
        model.set_style('')
    with pytest.raises(StyleError, match="'dark', 'light'"):
        model.set_style('drak')


def test_grey_deep_and_transparent_styles_are_converted(tmp_path):
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[:] = (200, 100, 50)
    cases = {
        'grey.png': (np.full((64, 64), 90, np.uint8), (90, 90, 90)),
        'deep.png': (rgb[..., ::-1].astype(np.uint16) * 257, (200, 100, 50)),
        'opaque.png': (np.dstack([rgb[..., ::-1], np.full((64, 64), 255, np.uint8)]),
                       (200, 100, 50)),
        'clear.png': (np.dstack([rgb[..., ::-1], np.zeros((64, 64), np.uint8)]),
                      (255, 255, 255)),
    }
    for name, (pixels, expected) in cases.items():
        cv2.imwrite(str(tmp_path / name), pixels)
        image = read_style(tmp_path / name)
        assert image.shape == (256, 256, 3)
        assert tuple(image[128, 128]) == expected


def test_the_middle_square_of_a_wide_style_is_used(tmp_path):
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = 200
    cv2.imwrite(str(tmp_path / 'wide.png'), wide)
    assert (read_style(tmp_path / 'wide.png') == 200).all()


def test_a_detection_package_is_refused(negative_package):
    from dataclasses import replace
    package = replace(load_package(negative_package), task='detection')
    with pytest.raises(StyleError, match='expected a style package'):
        StyleModel(package)


def test_the_style_changes_under_a_running_stream(model):
    """Every answer belongs to one of the two styles, whole, while another thread changes them."""
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            model.set_style('light')
            model.set_style('dark')

    thread = threading.Thread(target=change)
    thread.start()
    try:
        seen = set()
        for _ in range(20000):
            result = model.stylise(grey_frame(100))
            assert result.min() == result.max()
            seen.add(int(result[0, 0, 0]))
            if len(seen) == 2:
                break
    finally:
        stop.set()
        thread.join()
    assert seen == {155, 195}


@pytest.mark.parametrize(
    'frame, size',
    [
        ((640, 480), (320, 240)), ((768, 432), (320, 176)), ((1280, 720), (320, 176)),
        ((480, 640), (176, 240)), ((320, 240), (320, 240)), ((5000, 10), (320, 8)),
    ],
)
def test_fit_keeps_the_aspect(frame, size):
    assert fitting(frame, (320, 240)) == size


def test_package_that_fits_gives_the_frames_aspect(negative_package, tmp_path):
    folder = shutil.copytree(negative_package, tmp_path / 'fit')
    text = (folder / 'model.yaml').read_text()
    (folder / 'model.yaml').write_text(text + 'input: {resize: fit}\n')
    model = StyleModel(load_package(folder))
    for shape, expected in (((100, 200), (32, 64)), ((48, 64), (48, 64)), ((90, 30), (48, 16))):
        rgb = np.full((*shape, 3), 55, np.uint8)
        assert model.stylise(rgb).shape[:2] == expected
        assert (model.stylise(rgb) == 200).all()


@pytest.fixture
def levels(negative_package) -> StyleModel:
    """A model of two variants, the large one in use."""
    return StyleModel(load_package(negative_package), 'large', lower=('small',))


def test_variants_take_turns_without_loading_or_binding_anew(levels, monkeypatch):
    monkeypatch.setattr('muon_ad.runtime.style.Engine', None)
    assert levels.variant.name == 'large'
    first = {}
    for _ in range(3):
        for index, (name, shape) in enumerate((('large', (96, 128, 3)), ('small', (48, 64, 3)))):
            levels.use(index)
            result = levels.stylise(grey_frame(55))
            assert levels.variant.name == name
            assert result.shape == shape and (result == 200).all()
            memory = result.ctypes.data
            assert first.setdefault(name, memory) == memory, 'a buffer of its own, bound once'


def test_variants_of_one_file_share_its_session(levels):
    sessions = set()
    for index in range(2):
        levels.use(index)
        sessions.add(id(levels.engine._session))
    assert len(sessions) == 1


def test_variants_of_other_files_have_their_own_session(negative_package, tmp_path):
    folder = shutil.copytree(negative_package, tmp_path / 'two_files')
    shutil.copy(folder / 'transfer.onnx', folder / 'other.onnx')
    text = (folder / 'model.yaml').read_text()
    head, tail = text.split('small:', 1)
    (folder / 'model.yaml').write_text(
        head + 'small:' + tail.replace('transfer.onnx', 'other.onnx', 1)
    )
    model = StyleModel(load_package(folder), 'large', lower=('small',))
    large = model.engine._session
    model.use(1)
    assert model.engine._session is not large
    assert model.engine.path.name == 'other.onnx'


def test_a_style_holds_for_all_variants(levels):
    levels.set_style('light')
    for index in range(2):
        levels.use(index)
        assert (levels.stylise(grey_frame(100)) == 195).all()


def test_results_of_one_size_where_that_is_asked_for(negative_package, tmp_path):
    folder = shutil.copytree(negative_package, tmp_path / 'fit')
    text = (folder / 'model.yaml').read_text()
    (folder / 'model.yaml').write_text(text + 'input: {resize: fit}\n')
    model = StyleModel(load_package(folder), 'large', lower=('small',), same_size=True)
    for shape, expected in (((48, 64), (96, 128, 3)), ((60, 120), (64, 128, 3))):
        for index in range(2):
            model.use(index)
            result = model.stylise(np.full((*shape, 3), 55, np.uint8))
            assert result.shape == expected and (result == 200).all()


def test_a_lower_variant_that_is_none_is_refused(negative_package):
    with pytest.raises(PackageError, match="no variant 'tiny'"):
        StyleModel(load_package(negative_package), lower=('tiny',))

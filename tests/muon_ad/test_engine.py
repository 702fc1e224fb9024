"""The engine: bound buffers, providers reported, errors for what the network does not take."""

import numpy as np
import pytest

from muon_ad.runtime.engine import Engine
from muon_ad.runtime.engine import EngineError
from muon_ad.runtime.engine import EngineOptions


def feeds(height=48, width=64, grey=10, style=0.0):
    image = np.full((1, height, width, 3), grey, np.uint8)
    return {'image': image, 'style': np.full((1, 1), style, np.float32)}


@pytest.fixture
def engine(negative_package):
    return Engine(negative_package / 'transfer.onnx')


def test_result_and_reused_buffer(engine):
    first, = engine.run(feeds(grey=10))
    assert (first == 245).all()
    again, = engine.run(feeds(grey=55))
    assert again is first
    assert (again == 200).all()


def test_other_size_gets_another_buffer(engine):
    small, = engine.run(feeds())
    large, = engine.run(feeds(96, 128, grey=0))
    assert large.shape == (1, 96, 128, 3)
    assert (large == 255).all()
    assert (engine.run(feeds(grey=5))[0] == 250).all()
    assert small.shape == (1, 48, 64, 3)


def test_twins_keep_their_buffers_while_they_take_turns(engine):
    twin = engine.twin()
    small, = engine.run(feeds(grey=0))
    large, = twin.run(feeds(96, 128, grey=0))
    for grey in (5, 10):
        assert engine.run(feeds(grey=grey))[0] is small
        assert (small == 255 - grey).all()
        assert twin.run(feeds(96, 128, grey=grey))[0] is large
        assert (large == 255 - grey).all()
    assert twin.provider == engine.provider


def test_same_memory_with_new_content(engine):
    feed = feeds(grey=0)
    engine.run(feed)
    feed['image'][:] = 255
    assert (engine.run(feed)[0] == 0).all()


def test_padded_rows_with_new_content(engine):
    padded = np.zeros((1, 48, 70, 3), np.uint8)
    feed = {**feeds(), 'image': padded[:, :, :64]}
    assert (engine.run(feed)[0] == 255).all()
    for grey in (40, 80, 120):
        padded[:] = grey
        assert (engine.run(feed)[0] == 255 - grey).all()


@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda f: f.pop('style'), 'takes'),
        (lambda f: f.update(image=f['image'].astype(np.float32)), 'float32'),
        (lambda f: f.update(image=f['image'][0]), 'has shape'),
        (lambda f: f.update(image=f['image'][..., :2]), 'has shape'),
    ],
)
def test_wrong_feed(engine, spoil, message):
    feed = feeds()
    spoil(feed)
    with pytest.raises(EngineError, match=message):
        engine.run(feed)
    assert (engine.run(feeds(grey=0))[0] == 255).all()


def test_missing_provider_is_reported(negative_package):
    options = EngineOptions(providers=('tensorrt', 'cpu'))
    engine = Engine(negative_package / 'transfer.onnx', options)
    assert engine.provider == 'CPU'
    assert 'tensorrt was asked for' in engine.notes[0]


def test_no_provider_left(negative_package):
    with pytest.raises(EngineError, match='none of'):
        Engine(negative_package / 'transfer.onnx', EngineOptions(providers=('tensorrt',)))


def test_unknown_provider(negative_package):
    with pytest.raises(EngineError, match="'abacus' is not known"):
        Engine(negative_package / 'transfer.onnx', EngineOptions(providers=('abacus',)))


def test_missing_and_broken_file(tmp_path):
    with pytest.raises(EngineError, match='no such model file'):
        Engine(tmp_path / 'none.onnx')
    (tmp_path / 'broken.onnx').write_bytes(b'not a network')
    with pytest.raises(EngineError, match='cannot load it'):
        Engine(tmp_path / 'broken.onnx')

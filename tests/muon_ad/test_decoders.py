"""Decoders: what is encoded by the definition of a format is decoded to the same boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muon_ad.runtime.decoders import DecoderError
from muon_ad.runtime.decoders import Frame
from muon_ad.runtime.decoders import make_decoder

WIDTH, HEIGHT = 96, 64
CLASSES = 3
FRAME = Frame(WIDTH, HEIGHT, CLASSES)
STRIDES = (8, 16, 32)
ROWS = sum(WIDTH // stride * (HEIGHT // stride) for stride in STRIDES)


def yolox_row(stride: int, column: int, row: int) -> int:
    """Where a cell lies in YOLOX's output: level by level, row by row."""
    before = [s for s in STRIDES if s < stride]
    start = sum(WIDTH // s * (HEIGHT // s) for s in before)
    return start + row * (WIDTH // stride) + column


@given(
    st.sampled_from(STRIDES), st.integers(0, 11), st.integers(0, 7), st.floats(2, 90),
    st.floats(2, 60), st.floats(0, 1), st.floats(0, 1), st.integers(0, CLASSES - 1),
    st.floats(0.5, 1), st.floats(0.5, 1),
)
def test_yolox_finds_the_box_that_was_encoded(
    stride, column, row, width, height, dx, dy, class_id, objectness, probability
):
    column, row = column % (WIDTH // stride), row % (HEIGHT // stride)
    raw = np.zeros((1, ROWS, 5 + CLASSES), np.float32)
    values = raw[0, yolox_row(stride, column, row)]
    values[:5] = dx, dy, np.log(width / stride), np.log(height / stride), objectness
    values[5 + class_id] = probability
    found = make_decoder('yolox', FRAME, {})([raw], 0.2)
    x, y = (column + dx) * stride, (row + dy) * stride
    expected = [[x - width / 2, y - height / 2, x + width / 2, y + height / 2]]
    np.testing.assert_allclose(found.boxes, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.scores, [objectness * probability], rtol=1e-5)
    assert found.class_ids.tolist() == [class_id]


@given(
    st.integers(0, 5), st.integers(0, 3), st.floats(0.05, 0.95), st.floats(0.05, 0.95),
    st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.integers(0, CLASSES - 1),
)
def test_fastestdet_finds_the_box_that_was_encoded(column, row, width, height, dx, dy, class_id):
    raw = np.zeros((1, 5 + CLASSES, 4, 6), np.float32)
    cell = raw[0, :, row, column]
    cell[0] = 0.8
    cell[1:3] = np.arctanh([dx, dy])
    cell[3:5] = np.log([width / (1 - width), height / (1 - height)])
    cell[5 + class_id] = 0.9
    found = make_decoder('fastestdet', FRAME, {})([raw], 0.5)
    x, y = (column + dx) / 6 * WIDTH, (row + dy) / 4 * HEIGHT
    half = width * WIDTH / 2, height * HEIGHT / 2
    expected = [[x - half[0], y - half[1], x + half[0], y + half[1]]]
    np.testing.assert_allclose(found.boxes, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.72], rtol=1e-5)
    assert found.class_ids.tolist() == [class_id]


def test_torchvision_passes_boxes_on_and_drops_the_filling():
    boxes = np.float32([[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 0]])
    outputs = [boxes, np.float32([0.9, 0.3, 0]), np.array([2, 1, 0])]
    found = make_decoder('torchvision', FRAME, {})(outputs, 0.0)
    np.testing.assert_array_equal(found.boxes, boxes[:2])
    assert found.class_ids.tolist() == [2, 1]


@pytest.mark.parametrize(('name', 'shape'), [
    ('yolox', (1, ROWS, 5 + CLASSES)), ('fastestdet', (1, 5 + CLASSES, 4, 6)),
])
@given(seed=st.integers(0, 1000), threshold=st.floats(0.01, 0.99))
def test_candidates_are_exactly_those_that_reach_the_threshold(name, shape, seed, threshold):
    raw = np.random.default_rng(seed).random(shape, np.float32)
    found = make_decoder(name, FRAME, {})([raw], threshold)
    cells = raw[0] if name == 'yolox' else raw[0].reshape(5 + CLASSES, -1).T
    objectness = cells[:, 4 if name == 'yolox' else 0]
    expected = objectness * cells[:, 5:].max(axis=1)
    np.testing.assert_array_equal(found.scores, expected[expected >= np.float32(threshold)])
    assert len(found.boxes) == len(found.scores) == len(found.class_ids)


def test_strides_are_an_option_of_yolox():
    raw = np.zeros((1, 6, 5 + CLASSES), np.float32)
    raw[0, 5, [4, 7]] = 1
    found = make_decoder('yolox', FRAME, {'strides': [32]})([raw], 0.5)
    np.testing.assert_allclose(found.boxes, [[48, 16, 80, 48]])


@pytest.mark.parametrize(('name', 'outputs', 'message'), [
    ('yolox', [np.zeros((1, 7, 8), np.float32)], r'yolox.*\[1, 126, 8\].*\(1, 7, 8\)'),
    ('yolox', [], r'yolox expects one output'),
    ('fastestdet', [np.zeros((1, 9, 4, 6), np.float32)], r'fastestdet.*\(1, 9, 4, 6\)'),
    ('torchvision', [np.zeros((1, 4), np.float32)], r'boxes \[D, 4\]'),
    ('torchvision', [np.zeros((1, 4)), np.ones(1), np.array([3])], r'label 3.*names 3 classes'),
])
def test_output_of_another_format_is_an_error(name, outputs, message):
    with pytest.raises(DecoderError, match=message):
        make_decoder(name, FRAME, {})(outputs, 0.5)


def test_unknown_names_and_options_are_errors():
    with pytest.raises(DecoderError, match="decoder.name is 'ssd'.*fastestdet.*yolox"):
        make_decoder('ssd', FRAME, {})
    with pytest.raises(DecoderError, match=r"no option \['anchors'\]; it takes \['strides'\]"):
        make_decoder('yolox', FRAME, {'anchors': 3})

"""The detector, with a network made here that finds cells of pure red, green and blue.

Its output is computed from the pixels, so that a wrong colour order, layout, scale or offset
anywhere on the way moves or changes what is found.
"""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
from onnx import helper
from onnx import TensorProto

from muon_ad.runtime.boxes import iou
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.detection import DetectorError
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage

WIDTH, HEIGHT, STRIDE = 64, 48, 8
COLOURS = {'red': (255, 0, 0), 'green': (0, 255, 0), 'blue': (0, 0, 255)}


def colour_network(path: Path, layout: str, dtype: str, mean: list, std: list) -> None:
    """Write a YOLOX-format network: objectness is the mean of a cell's strongest channel."""
    columns, rows = WIDTH // STRIDE, HEIGHT // STRIDE
    box = np.zeros((1, 4, rows, columns), np.float32)
    box[:, :2] = 0.5
    constants = {
        'mean': np.float32(mean).reshape(1, 3, 1, 1), 'std': np.float32(std).reshape(1, 3, 1, 1),
        'white': np.float32(255), 'box': box, 'shape': np.array([1, 8, rows * columns]),
    }
    first = 'image' if layout == 'nchw' else 'planes'
    nodes = [] if layout == 'nchw' else [
        helper.make_node('Transpose', ['image'], ['planes'], perm=[0, 3, 1, 2])
    ]
    nodes += [
        helper.make_node('Cast', [first], ['float'], to=TensorProto.FLOAT),
        helper.make_node('Mul', ['float', 'std'], ['scaled']),
        helper.make_node('Add', ['scaled', 'mean'], ['pixels']),
        helper.make_node('AveragePool', ['pixels'], ['cells'], kernel_shape=[STRIDE] * 2,
                         strides=[STRIDE] * 2),
        helper.make_node('Div', ['cells', 'white'], ['labels']),
        helper.make_node('ReduceMax', ['labels'], ['objectness'], axes=[1]),
        helper.make_node('Concat', ['box', 'objectness', 'labels'], ['grid'], axis=1),
        helper.make_node('Reshape', ['grid', 'shape'], ['rows']),
        helper.make_node('Transpose', ['rows'], ['output'], perm=[0, 2, 1]),
    ]
    shape = [1, HEIGHT, WIDTH, 3] if layout == 'nhwc' else [1, 3, HEIGHT, WIDTH]
    kind = TensorProto.UINT8 if dtype == 'uint8' else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, 'colours',
        [helper.make_tensor_value_info('image', kind, shape)],
        [helper.make_tensor_value_info('output', TensorProto.FLOAT, [1, rows * columns, 8])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def colour_package(folder: Path, **spec) -> ModelPackage:
    """A package of that network, prepared as `spec` (fields of InputSpec) says."""
    spec = {'color': 'rgb', 'layout': 'nhwc', 'dtype': 'uint8', 'resize': 'stretch', **spec}
    colour_network(folder / 'net.onnx', spec['layout'], spec['dtype'],
                   spec.get('mean', [0, 0, 0]), spec.get('std', [1, 1, 1]))
    names = list(COLOURS) if spec['color'] == 'rgb' else list(COLOURS)[::-1]
    return write_package(folder, {
        'name': 'colours', 'task': 'detection', 'input': spec, 'classes': names,
        'decoder': {'name': 'yolox', 'strides': [STRIDE]},
    })


def write_package(folder: Path, data: dict) -> ModelPackage:
    digest = hashlib.sha256((folder / 'net.onnx').read_bytes()).hexdigest()
    variant = {'file': 'net.onnx', 'sha256': digest, 'width': WIDTH, 'height': HEIGHT}
    (folder / 'model.yaml').write_text(yaml.safe_dump({**data, 'variants': {'only': variant}}))
    return load_package(folder)


@pytest.fixture(scope='module')
def package(tmp_path_factory) -> ModelPackage:
    return colour_package(tmp_path_factory.mktemp('colours'), resize='letterbox', pad_value=0)


@pytest.fixture(scope='module')
def detector(package) -> Detector:
    return Detector(package)


def frame_with(colour: str, x: int, y: int, size: int, width: int, height: int) -> np.ndarray:
    frame = np.zeros((height, width, 3), np.uint8)
    frame[y:y + size, x:x + size] = COLOURS[colour]
    return frame


PREPARATIONS = [
    {'color': color, 'layout': layout, 'dtype': dtype, 'resize': resize, **values}
    for color in ('rgb', 'bgr')
    for layout in ('nhwc', 'nchw')
    for dtype, values in (
        ('uint8', {}),
        ('float32', {'mean': [100.0, 110.0, 120.0], 'std': [50.0, 60.0, 70.0]}),
    )
    for resize in ('stretch', 'letterbox')
]


@pytest.mark.parametrize('spec', PREPARATIONS, ids=lambda spec: '-'.join(list(spec.values())[:4]))
def test_every_preparation_finds_the_square_where_it_is(spec, tmp_path):
    detector = Detector(colour_package(tmp_path, **spec, pad_value=0))
    # Twice the network's size, so a cell of the network is 16 pixels of the frame.
    for colour in COLOURS:
        found = detector.detect(frame_with(colour, 48, 32, 16, 2 * WIDTH, 2 * HEIGHT))
        assert [detector.classes[index] for index in found.class_ids] == [colour]
        np.testing.assert_allclose(found.boxes, [[48, 32, 64, 48]], atol=0.01)
        assert found.scores[0] > 0.8


@pytest.mark.parametrize(('width', 'height'), [(128, 48), (64, 144), (256, 192), (32, 24)])
def test_letterbox_maps_back_to_frames_of_any_aspect(detector, width, height):
    scale = max(width / WIDTH, height / HEIGHT)
    size = round(STRIDE * scale)
    found = detector.detect(frame_with('green', size, size, size, width, height))
    assert iou(found.boxes[:1], np.float32([[size, size, 2 * size, 2 * size]]))[0, 0] > 0.95


def test_a_frame_of_another_size_leaves_nothing_behind_in_the_padding(detector):
    detector.detect(np.full((48, 64, 3), 255, np.uint8))
    assert len(detector.detect(np.zeros((48, 128, 3), np.uint8))) == 0


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 100))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_results_of_any_frame_keep_their_promises(detector, width, height, seed):
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    found = detector.detect(frame)
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.boxes.shape == (len(found), 4)
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [width, height, width, height]).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert (np.diff(found.scores) <= 0).all()
    assert len(found) <= detector.max_detections


def test_results_outlive_the_next_frame(detector):
    first = detector.detect(frame_with('red', 8, 8, 8, WIDTH, HEIGHT))
    boxes = first.boxes.copy()
    detector.detect(frame_with('blue', 40, 24, 8, WIDTH, HEIGHT))
    np.testing.assert_array_equal(first.boxes, boxes)


def test_frames_need_not_be_contiguous(detector):
    frame = frame_with('red', 8, 16, 8, WIDTH, HEIGHT)
    mirrored = detector.detect(frame[:, ::-1])
    np.testing.assert_allclose(mirrored.boxes, [[48, 16, 56, 24]], atol=0.01)


def test_only_the_classes_asked_for_are_reported(package):
    frame = frame_with('red', 8, 8, 8, WIDTH, HEIGHT)
    frame[24:32, 40:48] = COLOURS['blue']
    found = Detector(package, keep=['blue']).detect(frame)
    assert [package.classes[index] for index in found.class_ids] == ['blue']


def test_thresholds_and_number_may_change_between_frames(package):
    detector = Detector(package)
    frame = np.full((HEIGHT, WIDTH, 3), (200, 0, 0), np.uint8)
    cells = WIDTH // STRIDE * (HEIGHT // STRIDE)
    assert len(detector.detect(frame)) == cells
    detector.max_detections = 5
    assert len(detector.detect(frame)) == 5
    detector.score_threshold = 0.99
    assert len(detector.detect(frame)) == 0


@pytest.mark.parametrize(('frame', 'message'), [
    (np.zeros((0, 10, 3), np.uint8), r'shape \(0, 10, 3\); expected at least one pixel'),
    (np.zeros((10, 10), np.uint8), r'shape \(10, 10\); expected \[height, width, 3\]'),
    (np.zeros((10, 10, 4), np.uint8), r'shape \(10, 10, 4\)'),
    (np.zeros((10, 10, 3), np.float32), 'dtype float32; expected uint8'),
    (None, 'expected uint8'),
])
def test_other_frames_are_errors_and_the_detector_lives_on(detector, frame, message):
    with pytest.raises(DetectorError, match=message):
        detector.detect(frame)
    assert len(detector.detect(frame_with('red', 8, 8, 8, WIDTH, HEIGHT))) == 1


@pytest.mark.parametrize(('options', 'message'), [
    ({'score_threshold': 1.5}, 'score_threshold is 1.5; expected 0 to 1'),
    ({'iou_threshold': -0.1}, 'iou_threshold is -0.1'),
    ({'max_detections': 0}, 'max_detections is 0; expected at least 1'),
    ({'keep': ['person']}, r"\['person'\] not known; the model has \['red'"),
])
def test_options_out_of_range_are_errors(package, options, message):
    with pytest.raises(DetectorError, match=message):
        Detector(package, **options)


@pytest.mark.parametrize(('change', 'message'), [
    ({'decoder': {'name': 'yolo9'}}, "model.yaml: decoder.name is 'yolo9'"),
    ({'decoder': {'name': 'yolox'}}, r'model.yaml: decoder yolox expects.*\[1, 62, 8\]'),
    ({'decoder': {'name': 'yolox', 'anchors': 1}}, r"no option \['anchors'\]"),
    ({'classes': ['one']}, r'expects.*\[1, 48, 6\].*\(1, 48, 8\)'),
])
def test_a_network_that_does_not_match_its_package_fails_when_loaded(tmp_path, change, message):
    colour_network(tmp_path / 'net.onnx', 'nhwc', 'uint8', [0, 0, 0], [1, 1, 1])
    package = write_package(tmp_path, {
        'name': 'colours', 'task': 'detection', 'classes': list(COLOURS),
        'decoder': {'name': 'yolox', 'strides': [STRIDE]}, **change,
    })
    with pytest.raises(DetectorError, match=message):
        Detector(package)


def test_a_style_package_is_not_a_detector(negative_package):
    with pytest.raises(DetectorError, match='task is style; expected detection'):
        Detector(load_package(negative_package))

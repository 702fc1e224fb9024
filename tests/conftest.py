"""Shared by all tests: the data folder, a tiny model package, a ROS domain of our own."""

import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import HealthCheck
from hypothesis import settings
from onnx import helper
from onnx import TensorProto
from support import file_entry

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / 'shared' / 'data'

pytest_plugins = ['muon_ad.testing']

for package in ('muon_ad', 'muon_ad_nodes'):
    sys.path.insert(0, str(ROOT / 'ros_ws' / 'src' / package))

# Set before rclpy is imported: test runs on one machine must not hear each other. Ports of domains
# above 101 are among those that the system gives to anyone.
os.environ['ROS_DOMAIN_ID'] = str(random.randint(1, 101))

# What a shell without job control starts in the background ignores it, and so do its children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# HYPOTHESIS_PROFILE=long takes minutes a test, for a search by hand (tests/fuzz). A slow machine
# is no error, and a folder of the test's own may serve all its examples.
LENIENT = {
    'deadline': None,
    'suppress_health_check': [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
settings.register_profile('short', max_examples=100, **LENIENT)
settings.register_profile('long', max_examples=20_000, **LENIENT)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'short'))


def pytest_runtest_setup() -> None:
    """One thread for torch: a second one gains nothing with networks as small as those of tests,
    and on a busy machine each of its many operations waits for that thread to get a core.
    """
    if torch := sys.modules.get('torch'):
        torch.set_num_threads(1)


@pytest.fixture(scope='session')
def data() -> Path:
    """The folder of test data, or a skip where it is absent."""
    if not DATA.is_dir():
        pytest.skip('../shared/data is not here (real photographs, video and weights)')
    return DATA


@pytest.fixture(scope='session')
def negative_package(tmp_path_factory) -> Path:
    """A style package whose network negates the picture and adds its one style number."""
    folder = tmp_path_factory.mktemp('negative')
    _save_network(
        folder / 'transfer.onnx',
        [
            helper.make_node('Cast', ['image'], ['float'], to=TensorProto.FLOAT),
            helper.make_node('Sub', ['white', 'float'], ['negative']),
            helper.make_node('Add', ['negative', 'style'], ['sum']),
            helper.make_node('Clip', ['sum', 'black', 'white'], ['clipped']),
            helper.make_node('Cast', ['clipped'], ['stylised'], to=TensorProto.UINT8),
        ],
        {'image': (TensorProto.UINT8, [1, 'h', 'w', 3]), 'style': (TensorProto.FLOAT, [1, 1])},
        {'stylised': (TensorProto.UINT8, [1, 'h', 'w', 3])},
    )
    _save_network(
        folder / 'encoder.onnx',
        [
            helper.make_node('Cast', ['image'], ['float'], to=TensorProto.FLOAT),
            helper.make_node('ReduceMean', ['float'], ['mean'], keepdims=0),
            helper.make_node('Reshape', ['mean', 'shape'], ['style']),
        ],
        {'image': (TensorProto.UINT8, [1, 256, 256, 3])},
        {'style': (TensorProto.FLOAT, [1, 1])},
    )
    import cv2

    for name, grey in (('dark', 0), ('light', 40)):
        cv2.imwrite(str(folder / f'{name}.png'), np.full((256, 256, 3), grey, np.uint8))
    variant = {**file_entry(folder / 'transfer.onnx'), 'width': 64, 'height': 48}
    package = {
        'name': 'negative',
        'task': 'style',
        'variants': {'small': variant, 'large': {**variant, 'width': 128, 'height': 96}},
        'style': {
            'encoder': file_entry(folder / 'encoder.onnx'),
            'images': {name: file_entry(folder / f'{name}.png') for name in ('dark', 'light')},
        },
    }
    (folder / 'model.yaml').write_text(yaml.safe_dump(package, sort_keys=False))
    return folder


@pytest.fixture(scope='session')
def one_box_package(tmp_path_factory) -> Path:
    """A detection package that finds one thing in every frame: a `person` of score 0.9.

    Input 64x48; the box spans x 16..48 and y 12..36 of it, a quarter of the frame's area.
    """
    folder = tmp_path_factory.mktemp('one_box')
    stride, columns, rows = 8, 8, 6
    raw = np.zeros((1, columns * rows, 7), np.float32)
    cell = 3 * columns + 4
    raw[0, cell] = [0, 0, np.log(32 / stride), np.log(24 / stride), 0.9, 1.0, 0.0]
    _save_network(
        folder / 'detector.onnx',
        [
            helper.make_node('Cast', ['image'], ['float'], to=TensorProto.FLOAT),
            helper.make_node('ReduceMax', ['float'], ['peak'], keepdims=0),
            helper.make_node('Mul', ['peak', 'black'], ['zero']),
            helper.make_node('Add', ['zero', 'raw'], ['predictions']),
        ],
        {'image': (TensorProto.UINT8, [1, 48, 64, 3])},
        {'predictions': (TensorProto.FLOAT, list(raw.shape))},
        raw=raw,
    )
    package = {
        'name': 'one_box',
        'task': 'detection',
        'input': {'resize': 'stretch'},
        'decoder': {'name': 'yolox', 'strides': [stride]},
        'classes': ['person', 'chair'],
        'variants': {
            'only': {**file_entry(folder / 'detector.onnx'), 'width': 64, 'height': 48}
        },
    }
    (folder / 'model.yaml').write_text(yaml.safe_dump(package, sort_keys=False))
    return folder


@pytest.fixture(scope='session')
def backbone_folder(tmp_path_factory):
    """Call with a name of tiny_backbones.build_*: a tiny random diffusers folder."""
    import tiny_backbones

    folder = tmp_path_factory.mktemp('backbones')

    def build(name: str) -> Path:
        if not (folder / name).is_dir():
            getattr(tiny_backbones, f'build_{name}')(folder / name)
        return folder / name

    return build


def _save_network(
    path: Path, nodes: list, inputs: dict, outputs: dict, **more: np.ndarray
) -> None:
    constants = {
        **more,
        'white': np.float32(255),
        'black': np.float32(0),
        'shape': np.array([1, 1], np.int64),
    }
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [
            onnx.numpy_helper.from_array(value, name)
            for name, value in constants.items()
            if name in used
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)

"""Shared by all tests: data folder, tiny model packages, a ROS domain of our own, waiting."""

import hashlib
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import helper
from onnx import TensorProto

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / 'shared' / 'data'

for package in ('muon_ad', 'muon_ad_nodes'):
    sys.path.insert(0, str(ROOT / 'ros_ws' / 'src' / package))

# Set before rclpy is imported: test runs on one machine must not hear each other.
os.environ['ROS_DOMAIN_ID'] = str(random.randint(100, 220))
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition; fail naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f'waited {seconds} s in vain for {what}')
        time.sleep(0.01)


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


def file_entry(path: Path) -> dict[str, str]:
    """The mapping that names a file in model.yaml."""
    return {'file': path.name, 'sha256': hashlib.sha256(path.read_bytes()).hexdigest()}


def _save_network(path: Path, nodes: list, inputs: dict, outputs: dict) -> None:
    constants = {
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

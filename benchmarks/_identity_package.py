"""A style package whose network hands images on as they are: what is left is the way there."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import onnx
import yaml
from onnx import helper
from onnx import TensorProto

STYLE_SIDE = 256
_IMAGE = TensorProto.UINT8


def write_identity_package(folder: Path, size: tuple[int, int]) -> Path:
    """Write the package for frames of `size` (width, height) into a folder; return that."""
    _save(
        folder / 'transfer.onnx', [helper.make_node('Identity', ['image'], ['stylised'])],
        {'image': (_IMAGE, [1, 'h', 'w', 3]), 'style': (TensorProto.FLOAT, [1, 1])},
        {'stylised': (_IMAGE, [1, 'h', 'w', 3])},
    )
    _save(
        folder / 'encoder.onnx',
        [
            helper.make_node('Cast', ['image'], ['float'], to=TensorProto.FLOAT),
            helper.make_node('ReduceMean', ['float'], ['mean'], axes=[1, 2, 3], keepdims=0),
            helper.make_node('Unsqueeze', ['mean', 'axis'], ['style']),
        ],
        {'image': (_IMAGE, [1, STYLE_SIDE, STYLE_SIDE, 3])},
        {'style': (TensorProto.FLOAT, [1, 1])},
        axis=np.array([1], np.int64),
    )
    cv2.imwrite(str(folder / 'plain.png'), np.zeros((STYLE_SIDE, STYLE_SIDE, 3), np.uint8))
    package = {
        'name': 'identity',
        'task': 'style',
        'variants': {
            'only': {**_entry(folder / 'transfer.onnx'), 'width': size[0], 'height': size[1]}
        },
        'style': {
            'encoder': _entry(folder / 'encoder.onnx'),
            'images': {'plain': _entry(folder / 'plain.png')},
        },
    }
    (folder / 'model.yaml').write_text(yaml.safe_dump(package, sort_keys=False))
    return folder


def _save(
    path: Path, nodes: list, inputs: dict, outputs: dict, **constants: np.ndarray
) -> None:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _entry(path: Path) -> dict[str, str]:
    return {'file': path.name, 'sha256': hashlib.sha256(path.read_bytes()).hexdigest()}

"""An ONNX file as a list of layers with shapes, as a builder for one frame size would see it.

Sizes left open are fixed first, and ONNX Runtime folds what is then constant, as TensorRT does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper
from onnx import numpy_helper
from onnx import shape_inference
from onnx import TensorProto

# These move layers about for the CPU's sake.
_NOT_WANTED = ['TransposeOptimizer', 'QDQPropagationTransformer']
_ONE_EACH = ('Add', 'Sub', 'Mul', 'Div', 'Relu', 'LeakyRelu', 'PRelu', 'Clip', 'Sigmoid', 'Tanh',
             'HardSigmoid', 'HardSwish', 'Softmax', 'BatchNormalization', 'Max', 'Min', 'Sqrt',
             'Pow', 'Exp')


class GraphError(ValueError):
    """A file is not an ONNX model, or its sizes cannot be fixed."""


@dataclass(frozen=True)
class Value:
    """A tensor between layers. `shape` is None where it cannot be told before running.

    `constant` holds the elements of a weight or other constant.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    constant: np.ndarray | None = None


@dataclass(frozen=True)
class Layer:
    """One node: its operator and attributes, what it reads and what it writes."""

    name: str
    operator: str
    attributes: Mapping[str, object]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @property
    def data(self) -> list[Value]:
        """The inputs that other layers, or the caller, compute."""
        return [value for value in self.inputs if value.constant is None]

    def operations(self) -> int:
        """Return floating-point operations of one run, a multiply-add counted as two.

        Counted are convolutions, matrix products, pooling and what works element by element; the
        rest moves data. 0 where shapes are not known.
        """
        output = self.outputs[0].shape
        if output is None or any(value.shape is None for value in self.inputs[:2]):
            return 0
        shapes = [value.shape for value in self.inputs]
        if self.operator == 'Conv':
            return 2 * prod(output) * prod(shapes[1][1:])
        if self.operator == 'ConvTranspose':
            return 2 * prod(shapes[0]) * prod(shapes[1][1:])
        if self.operator in ('MatMul', 'Gemm'):
            across = self.operator == 'Gemm' and self.attributes.get('transA', 0)
            return 2 * prod(output) * shapes[0][0 if across else -1]
        if self.operator in ('MaxPool', 'AveragePool'):
            return prod(output) * prod(self.attributes['kernel_shape'])
        if self.operator in ('ReduceMean', 'GlobalAveragePool', 'InstanceNormalization'):
            return prod(shapes[0])
        return prod(output) if self.operator in _ONE_EACH else 0


def read_graph(path: Path, size: tuple[int, int] | None = None) -> list[Layer]:
    """Return the layers of an ONNX file in order of execution.

    `size` is width and height of the frames, for a file that leaves them open. Raises GraphError
    where the file is not a model, or a size is open and not given.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # noqa: BLE001 - protobuf raises its own kinds, and OSError
        raise GraphError(f'{path}: cannot be read as ONNX: {error}') from error
    with TemporaryDirectory() as folder:
        folded = Path(folder) / 'folded.onnx'
        _fold(path, folded, open_sizes(model, path, size))
        model = shape_inference.infer_shapes(onnx.load(folded))
    return _layers(model.graph)


def open_sizes(
    model: onnx.ModelProto, path: Path, size: tuple[int, int] | None,
) -> dict[str, int]:
    """Return a number for each size of the inputs that has only a name. Raises GraphError."""
    sizes: dict[str, int] = {}
    weights = {value.name for value in model.graph.initializer}
    for value in model.graph.input:
        if value.name in weights:
            continue
        dimensions = value.type.tensor_type.shape.dim
        names = [d.dim_param or '?' * (not d.HasField('dim_value')) for d in dimensions]
        if not any(names):
            continue
        if size is None or len(names) != 4 or '?' in names or names[0]:
            raise GraphError(
                f'{path}: input {value.name} leaves sizes open ({names}); expected fixed ones, or '
                'named height and width of a frame and --size WIDTHxHEIGHT'
            )
        frame = [name for name in names if name]
        if len(frame) != 2:
            raise GraphError(f'{path}: input {value.name} leaves {frame} open; expected height '
                             'and width alone')
        sizes |= dict(zip(frame, size[::-1], strict=True))
    return sizes


def _fold(path: Path, folded: Path, sizes: Mapping[str, int]) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    # Not the warning that a saved model suits this machine alone: with basic changes it does not.
    options.log_severity_level = 3
    for name, number in sizes.items():
        options.add_free_dimension_override_by_name(name, number)
    try:
        ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'],
                             disabled_optimizers=_NOT_WANTED)
    except Exception as error:  # noqa: BLE001 - ORT raises bare RuntimeError subclasses
        raise GraphError(f'{path}: ONNX Runtime cannot load it: {error}') from error


def _layers(graph: onnx.GraphProto) -> list[Layer]:
    values = {entry.name: _value(entry.name, entry.type.tensor_type)
              for entry in (*graph.input, *graph.value_info, *graph.output)}
    for weight in graph.initializer:
        array = numpy_helper.to_array(weight)
        values[weight.name] = Value(weight.name, array.shape, str(array.dtype), array)
    layers = []
    for index, node in enumerate(graph.node):
        inputs = [values.get(name, Value(name, None, 'unknown')) for name in node.input if name]
        outputs = [values.get(name, Value(name, None, 'unknown')) for name in node.output if name]
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == 'Constant' and 'value' in attributes:
            array = numpy_helper.to_array(attributes['value'])
            values[node.output[0]] = Value(node.output[0], array.shape, str(array.dtype), array)
            continue
        layers.append(Layer(node.name or f'{node.op_type}_{index}', node.op_type, attributes,
                            tuple(inputs), tuple(outputs)))
    return layers


def _value(name: str, kind: onnx.TypeProto.Tensor) -> Value:
    known = kind.HasField('shape') and all(d.HasField('dim_value') for d in kind.shape.dim)
    shape = tuple(d.dim_value for d in kind.shape.dim) if known else None
    if kind.elem_type == TensorProto.UNDEFINED:
        return Value(name, shape, 'unknown')
    return Value(name, shape, str(helper.tensor_dtype_to_np_dtype(kind.elem_type)))

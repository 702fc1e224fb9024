"""Pixels are 8-bit values already: no float picture is needed between them and the layers.

At the input, `Cast -> a * x + b` and quantisation again become the bytes themselves with scale a
and zero point -b / a. At the output, `Cast(a * x + 0.5)` to uint8 is what QuantizeLinear with the
scale 1 / a does.
"""

import copy
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
from onnx import TensorProto

from muon_ad.precision.graph import Graph
from muon_ad.precision.graph import MOVERS
from muon_ad.precision.graph import replace
from muon_ad.precision.rules import layers

AFFINE = ('Mul', 'Div', 'Add', 'Sub')
# Beyond it a sigmoid is within half a grey level of black or white.
SIGMOID_END = float(np.log(2 * 255 - 1))


@dataclass(frozen=True)
class Pixels:
    """A float tensor that holds pixels: value = scale * (pixel - zero).

    `cast` is the name of the tensor before (input) or after (output) the conversion, uint8.
    """

    tensor: str
    cast: str
    scale: float
    zero: float


def pixel_input(graph: Graph) -> Pixels | None:
    """Return the tensor that a first layer reads pixels from; None where there is none."""
    for layer in layers(graph):
        tensor, movers = graph.moved_from(layer.input[0])
        found = _made_of_bytes(graph, tensor)
        if found is not None and _read_by(graph, tensor, {*(n.name for n in movers), layer.name}):
            return found
    return None


def _made_of_bytes(graph: Graph, tensor: str) -> Pixels | None:
    """Return the pixels that a tensor is an affine function of."""
    name, factor, offset = tensor, 1.0, 0.0
    while (node := graph.maker.get(name)) is not None:
        if name != tensor and graph.only_user(name) is None:
            return None     # another reader needs the floats
        if _casts(node, TensorProto.FLOAT) and _is_uint8(graph, node.input[0]):
            sensible = factor > 0 and 0 <= round(-offset / factor) <= 255
            return Pixels(tensor, node.input[0], factor, -offset / factor) if sensible else None
        if node.op_type in AFFINE:
            number = _scalar(graph, node.input[1])
            if number is None:
                return None
            factor, offset = _composed(node.op_type, number, factor, offset)
        elif node.op_type not in MOVERS or node.op_type == 'Concat':
            return None
        name = node.input[0]
    return None


def _read_by(graph: Graph, tensor: str, names: set[str]) -> bool:
    """Whether all readers of a tensor are among the nodes of these names."""
    return {user.name for user in graph.users.get(tensor, ())} <= names


def pixel_output(graph: Graph) -> Pixels | None:
    """Return the tensor that pixels are made of by `Cast([scale *] x + 0.5)`; None without one."""
    for cast in graph.nodes:
        add = graph.maker.get(cast.input[0]) if _casts(cast, TensorProto.UINT8) else None
        if add is None or add.op_type != 'Add' or _scalar(graph, add.input[1]) != 0.5:
            continue
        mul = graph.maker.get(add.input[0])
        if mul is None or mul.op_type != 'Mul':
            return Pixels(add.input[0], cast.output[0], 1.0, 0.0)
        factor = _scalar(graph, mul.input[1])
        if factor:
            return Pixels(mul.input[0], cast.output[0], 1 / factor, 0.0)
    return None


def sigmoid_inputs(graph: Graph, pixels: Pixels | None) -> list[str]:
    """Return the tensors that hold what a picture is the sigmoid of, from the layer on."""
    name, found, passed = pixels.tensor if pixels else '', [], False
    while (node := graph.maker.get(name)) is not None:
        passed = passed or node.op_type == 'Sigmoid'
        if node.op_type not in (*MOVERS, 'Sigmoid'):
            break
        name = node.input[0]
        if passed:
            found.append(name)
    return found


def bytes_in(model: onnx.ModelProto, pixels: Pixels) -> None:
    """Let the layers of a quantised model read the frame's bytes, in place."""
    graph = Graph(model)
    quantise = graph.users[pixels.tensor][0]
    chain, name = [], pixels.tensor
    while name != pixels.cast:
        chain.append(graph.maker[name])
        name = chain[-1].input[0]
    for node in reversed(chain):        # from the bytes on, past what computes with them
        if node.op_type not in MOVERS:
            graph.redirect(node.output[0], node.input[0])
    last = chain[0]
    graph.redirect(quantise.output[0],
              last.output[0] if last.op_type in MOVERS else last.input[0])
    gone = [quantise, *(node for node in chain if node.op_type not in MOVERS)]
    # What was inferred of the types between has changed.
    del model.graph.value_info[:]
    replace(model, gone)


def bytes_out(model: onnx.ModelProto, pixels: Pixels) -> None:
    """Make the pixels by a QuantizeLinear, in place: the picture is rounded and bounded by it."""
    graph = Graph(model)
    cast = graph.maker[pixels.cast]
    add = graph.maker[cast.input[0]]
    before = graph.maker.get(add.input[0])
    affine = before if before is not None and before.op_type == 'Mul' else add
    source = graph.maker.get(affine.input[0])
    if source is not None and source.op_type == 'DequantizeLinear':
        # It is quantised already, with the scale of pixels.
        made = graph.maker[source.input[0]]
        node = copy.deepcopy(made)
        node.output[0] = pixels.cast
        graph.redirect(source.input[0], pixels.cast)
        replace(model, [cast, made], [node])
        return
    scale, zero = f'{pixels.cast}_scale', f'{pixels.cast}_zero_point'
    model.graph.initializer.extend([
        numpy_helper.from_array(np.float32(pixels.scale), scale),
        numpy_helper.from_array(np.uint8(0), zero),
    ])
    node = helper.make_node('QuantizeLinear', [pixels.tensor, scale, zero], [pixels.cast],
                            name=f'{cast.name}_quantised')
    replace(model, [cast], [node])


def _casts(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == 'Cast' and node.attribute[0].i == kind


def _is_uint8(graph: Graph, name: str) -> bool:
    """Whether a tensor is a graph input of uint8, or such an input moved about."""
    while (node := graph.maker.get(name)) is not None and node.op_type in MOVERS:
        name = node.input[0]
    return any(value.name == name and value.type.tensor_type.elem_type == TensorProto.UINT8
               for value in graph.model.graph.input)


def _scalar(graph: Graph, name: str) -> float | None:
    if name not in graph.constants or graph.value(name).size != 1:
        return None
    return float(graph.value(name).item())


def _composed(kind: str, number: float, factor: float, offset: float) -> tuple[float, float]:
    """Return factor and offset as a function of the input of an affine node, given its output's.
    """
    if kind == 'Mul':
        return factor * number, offset
    if kind == 'Div':
        return factor / number, offset
    return factor, offset + factor * (number if kind == 'Add' else -number)

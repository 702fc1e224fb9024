"""Lets a quantised convolution apply the style by itself, for ONNX Runtime on a CPU.

A scale per channel after a convolution is a factor on its weights' scales, and a shift is part of
its bias. QLinearConv takes both as tensors, so `Conv -> Mul(scale) -> Add(shift) -> Relu` becomes
one integer operator that costs no more than the convolution, and rounds once instead of thrice.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
from onnx import TensorProto

from muon_ad.precision.graph import Graph
from muon_ad.precision.graph import replace

# A scale nearer to zero than this is taken for it: the shift is divided by the scale, and what
# the difference makes is far below a step of 8 bits.
LEAST_SCALE = 1e-3
# Bounds of the bias as a float that the cast to int32 and the sums in it bear.
MOST_BIAS = float(2 ** 30)


@dataclass(frozen=True)
class _Chain:
    """The nodes from a quantised convolution to the quantised result of its modulation."""

    conv: onnx.NodeProto
    mul: onnx.NodeProto
    add: onnx.NodeProto
    quantise: onnx.NodeProto
    inner: tuple[onnx.NodeProto, ...]
    scale: str
    shift: str


def fold_modulation(model: onnx.ModelProto) -> int:
    """Fold every modulation that follows a quantised convolution, in place; return how many."""
    graph = Graph(model)
    chains = [chain for node in graph.nodes
              if node.op_type == 'Conv' and (chain := _chain(graph, node)) is not None]
    if not chains:
        return 0
    _share_constants(model)
    new = [node for chain in chains for node in _Folded(graph, chain).nodes()]
    replace(model, [node for chain in chains for node in (
        chain.conv, *chain.inner, chain.mul, chain.add, chain.quantise)], new)
    return len(chains)


def _chain(graph: Graph, conv: onnx.NodeProto) -> _Chain | None:
    """Match QDQ convolution -> [Q -> DQ] -> Mul -> Add -> [Relu] -> Q from its convolution on."""
    if any(_source(graph, name) is None for name in conv.input[:2]):
        return None
    inner: list[onnx.NodeProto] = []
    node = graph.only_user(conv.output[0])
    while node is not None and node.op_type in ('QuantizeLinear', 'DequantizeLinear'):
        inner.append(node)
        node = graph.only_user(node.output[0])
    mul, add = node, node and graph.only_user(node.output[0])
    if not (mul is not None and mul.op_type == 'Mul' and add is not None and add.op_type == 'Add'):
        return None
    before = inner[-1].output[0] if inner else conv.output[0]
    scale, shift = _other(mul, before), _other(add, mul.output[0])
    last = graph.only_user(add.output[0])
    relu = last is not None and last.op_type == 'Relu'
    if relu:
        inner.append(last)
        last = graph.only_user(last.output[0])
    if last is None or last.op_type != 'QuantizeLinear':
        return None
    if relu and graph.value(last.input[2]).item() != 0:
        return None     # only where zero is the least value does the rounding bound as ReLU does
    if scale in graph.constants or shift in graph.constants:
        return None
    return _Chain(conv, mul, add, last, tuple(inner), scale, shift)


def _source(graph: Graph, name: str) -> onnx.NodeProto | None:
    node = graph.maker.get(name)
    return node if node is not None and node.op_type == 'DequantizeLinear' else None


def _other(node: onnx.NodeProto, name: str) -> str:
    return node.input[1] if node.input[0] == name else node.input[0]


def _share_constants(model: onnx.ModelProto) -> None:
    model.graph.initializer.extend([
        numpy_helper.from_array(np.array([-1], np.int64), 'modulation_flat'),
        numpy_helper.from_array(np.float32(LEAST_SCALE), 'modulation_least'),
        numpy_helper.from_array(np.float32(-MOST_BIAS), 'modulation_bias_least'),
        numpy_helper.from_array(np.float32(MOST_BIAS), 'modulation_bias_most'),
    ])


class _Folded:
    """Makes the nodes that stand for one chain, and adds the constants they need to the model."""

    def __init__(self, graph: Graph, chain: _Chain) -> None:
        self._graph = graph
        self._chain = chain
        self._nodes: list[onnx.NodeProto] = []

    def nodes(self) -> list[onnx.NodeProto]:
        """Return QLinearConv and the arithmetic on vectors that makes its scales and its bias."""
        chain = self._chain
        x, w = (_source(self._graph, name) for name in chain.conv.input[:2])
        scale = self._bounded(self._add('Reshape', chain.scale, 'modulation_flat'))
        shift = self._add('Reshape', chain.shift, 'modulation_flat')
        weight_scale = self._add('Mul', w.input[1], scale)
        step = self._add('Mul', weight_scale, x.input[1])
        if len(chain.conv.input) > 2:
            shift = self._add('Add', self._add('Mul', self._bias(), scale), shift)
        bias = self._add('Round', self._add('Div', shift, step))
        bias = self._add('Clip', bias, 'modulation_bias_least', 'modulation_bias_most')
        bias = self._add('Cast', bias, to=TensorProto.INT32)
        self._nodes.append(helper.make_node(
            'QLinearConv',
            [*x.input[:3], w.input[0], weight_scale, w.input[2], *chain.quantise.input[1:3], bias],
            list(chain.quantise.output), name=f'{chain.conv.name}_modulated',
        ))
        self._nodes[-1].attribute.extend(chain.conv.attribute)
        return self._nodes

    def _bounded(self, scale: str) -> str:
        small = self._add('Less', self._add('Abs', scale), 'modulation_least')
        return self._add('Where', small, 'modulation_least', scale)

    def _bias(self) -> str:
        """Return the convolution's own bias as a constant, in float."""
        name = self._chain.conv.input[2]
        source = _source(self._graph, name)
        if source is None:
            return name
        number, scale = (self._graph.value(each) for each in source.input[:2])
        value = (number * scale).astype(np.float32)
        self._graph.model.graph.initializer.append(numpy_helper.from_array(value, f'{name}_float'))
        return f'{name}_float'

    def _add(self, kind: str, *inputs: str, **attributes: int) -> str:
        name = f'{self._chain.conv.name}_{kind.lower()}_{len(self._nodes)}'
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

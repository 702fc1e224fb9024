"""Moves of 8-bit numbers as such: no float tensor is made for a transpose or a border.

ONNX Runtime does so by itself for some operators and not for others; written out, it always does.
"""

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper

from muon_ad.precision.graph import data_inputs
from muon_ad.precision.graph import Graph
from muon_ad.precision.graph import MOVERS
from muon_ad.precision.graph import replace


def move_bytes(model: onnx.ModelProto) -> None:
    """Take away DequantizeLinear before and QuantizeLinear after what only moves, in place.

    Only where all of them have the same scale and zero point: then nothing is rounded.
    """
    graph = Graph(model)
    gone = []
    for node in graph.nodes:
        if node.op_type not in MOVERS:
            continue
        before = [graph.maker.get(name) for name in data_inputs(node)]
        after = graph.users.get(node.output[0], [])
        if node.output[0] in graph.results or not _same_step(graph, before, after):
            continue
        for index, source in enumerate(before):
            node.input[index] = source.input[0]
        for quantise in after:
            graph.redirect(quantise.output[0], node.output[0])
        gone += after
    del model.graph.value_info[:]       # the types between have changed
    replace(model, gone)


def _same_step(
    graph: Graph, before: list[onnx.NodeProto | None], after: list[onnx.NodeProto]
) -> bool:
    if not after or any(node is None or node.op_type != 'DequantizeLinear' for node in before):
        return False
    if any(node.op_type != 'QuantizeLinear' for node in after):
        return False
    steps = {tuple(graph.value(name).item() for name in node.input[1:3])
             for node in [*before, *after]}
    return len(steps) == 1


def pad_borders(model: onnx.ModelProto) -> None:
    """Repeat borders by one Pad instead of slices and concatenations, in place.

    A DLA has no Pad, so networks are exported without; on a CPU it is a third faster.
    """
    graph = Graph(model)
    pads = {outer.output[0]: inner.input[1] for outer in graph.nodes
            if (inner := _bordered(graph, outer, 3)) is not None
            and (inner := _bordered(graph, inner, 2)) is not None}
    if not pads:
        return
    model.graph.initializer.append(
        numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), 'border_of_one'))
    new = [helper.make_node('Pad', [source, 'border_of_one'], [output], name=f'{output}_border',
                            mode='edge') for output, source in pads.items()]
    replace(model, [graph.maker[output] for output in pads], new)


def _bordered(graph: Graph, node: onnx.NodeProto, axis: int) -> onnx.NodeProto | None:
    """Return what makes the middle of a concatenation of first slice, tensor and last slice.

    For the inner of both axes, whose middle may be an input, the concatenation itself.
    """
    if node.op_type != 'Concat' or len(node.input) != 3:
        return None
    if node.attribute[0].i not in (axis, axis - 4):
        return None
    middle = node.input[1]
    for name, first in ((node.input[0], 0), (node.input[2], -1)):
        end = graph.maker.get(name)
        if end is None or end.op_type != 'Slice' or end.input[0] != middle:
            return None
        places = [graph.value(each).tolist() for each in end.input[1:4]
                  if each in graph.constants]
        if len(places) != 3 or places[0] != [first] or places[2] not in ([axis], [axis - 4]):
            return None
        if first == 0 and places[1] != [1]:
            return None
    return graph.maker.get(middle) if axis == 3 else node

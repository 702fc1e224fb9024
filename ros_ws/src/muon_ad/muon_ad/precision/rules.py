"""Which parts of a network become INT8, which stay as they are, and why: all rules in one place.

A layer (convolution or product with constant weights) is quantised unless a rule or the caller
keeps it. What lies between quantised layers and only moves, bounds, adds or pools numbers goes
along, so that no float tensor is made there. Everything else stays in higher precision.
"""

from collections.abc import Collection
from dataclasses import dataclass

import onnx

from muon_ad.precision.error import PrecisionError
from muon_ad.precision.graph import data_inputs
from muon_ad.precision.graph import Graph
from muon_ad.precision.graph import MOVERS

LAYERS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
# Exact or nearly so in 8 bits.
FOLLOWERS = (
    *MOVERS, 'Relu', 'Clip', 'Sigmoid', 'Add', 'MaxPool', 'AveragePool', 'Resize', 'Split',
)
NORMS = (
    'InstanceNormalization', 'LayerNormalization', 'GroupNormalization', 'BatchNormalization',
    'SimplifiedLayerNormalization', 'LpNormalization', 'MeanVarianceNormalization', 'ReduceMean',
)
ATTENTION = ('Softmax', 'LogSoftmax')
# The results of these need a float's range or resolution: FP16 leaves them in FP32, too.
SENSITIVE = (*NORMS, *ATTENTION)

SOFTMAX = 'exponentials: a step of 8 bits before a softmax is a factor after it'
PRODUCT = 'product of two activations in an attention: both ranges depend on the picture'
NORM = 'normalisation: squares and quotients of sums need more than 8 bits'
MODULATION = 'scale and shift by the style: in float, or part of the convolution before it'
HEAD = ('a last layer whose result leaves the network as numbers: boxes are exponentials of it, '
        'and it is small')
ASKED = 'kept as asked with --keep'
SENSITIVITY = 'kept since its error alone was among the largest'


@dataclass(frozen=True)
class Plan:
    """Names of the nodes to quantise, those of them that are layers, and those kept, with why."""

    nodes: tuple[str, ...]
    layers: tuple[str, ...]
    kept: dict[str, str]


def layers(graph: Graph) -> list[onnx.NodeProto]:
    """Return the layers: nodes with constant weights that hold nearly all arithmetic."""
    return [node for node in graph.nodes
            if node.op_type in LAYERS and node.input[1] in graph.constants]


def make_plan(
    graph: Graph, pixels: str | None, keep: Collection[str] = (), why: str = ASKED,
    only: str | None = None,
) -> Plan:
    """Decide what is quantised.

    `pixels` is the tensor that becomes the uint8 picture, if there is one. `keep` are names of
    layers to leave alone for the reason `why`; with `only`, all layers but this one are left
    alone. Raises PrecisionError for a name that is no layer, or where nothing is left.
    """
    found = layers(graph)
    names = [node.name for node in found]
    unknown = sorted({*keep, *([only] if only else [])} - set(names))
    if unknown:
        raise PrecisionError(f'keep: no layer {unknown}; expected some of {names}')
    kept = by_rule(graph, pixels)
    kept |= {name: why for name in keep if name not in kept}
    chosen = [node for node in found if node.name not in kept and only in (None, node.name)]
    if not chosen:
        raise PrecisionError(f'no layer is left to quantise; kept are {sorted(kept)} of {names}')
    followers = _followers(graph, chosen, pixels)
    names = tuple(node.name for node in chosen)
    nodes = [node.name for node in graph.nodes if node.name in followers or node.name in names]
    return Plan(tuple(nodes), names, kept)


def by_rule(graph: Graph, pixels: str | None) -> dict[str, str]:
    """Return the names of nodes that a rule keeps in higher precision, each with the reason."""
    kept = {}
    for node in graph.nodes:
        if node.op_type in ATTENTION:
            kept[node.name] = SOFTMAX
        elif node.op_type in NORMS:
            kept[node.name] = NORM
        elif node.op_type == 'MatMul' and len(graph.activations(node)) == 2:
            kept[node.name] = PRODUCT
        elif _modulates(graph, node):
            kept[node.name] = MODULATION
    return kept | {node.name: HEAD for node in layers(graph)
                   if not _feeds_a_layer(graph, node, pixels)}


def _modulates(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node is the Mul or Add of the style to a convolution's result."""
    if node.op_type not in ('Mul', 'Add') or len(graph.activations(node)) != 2:
        return False
    return any(from_vector(graph, name) for name in node.input)


def from_vector(graph: Graph, name: str) -> bool:
    """Whether a tensor is picked from a graph input of two dimensions, as a style vector is."""
    movers = ('Gather', 'Unsqueeze', 'Slice', 'Split', 'Reshape', 'Squeeze')
    while (node := graph.maker.get(name)) is not None and node.op_type in movers:
        name = node.input[0]
    return any(
        value.name == name and len(value.type.tensor_type.shape.dim) == 2
        for value in graph.model.graph.input
    )


def _feeds_a_layer(graph: Graph, node: onnx.NodeProto, pixels: str | None) -> bool:
    """Whether other layers, or the picture, are made from a node's result."""
    seen: set[str] = set()
    waiting = list(node.output)
    while waiting:
        name = waiting.pop()
        if name == pixels:
            return True
        for user in graph.users.get(name, ()):
            if user.op_type in LAYERS:
                return True
            if user.name not in seen:
                seen.add(user.name)
                waiting += user.output
    return False


def _followers(
    graph: Graph, chosen: list[onnx.NodeProto], pixels: str | None
) -> set[str]:
    """Return the names of nodes before and between quantised layers that go along in 8 bits."""
    sources = [graph.moved_from(node.input[0]) for node in chosen]
    wanted = {source for source, _ in sources} | ({pixels} if pixels else set())
    eight = {node.output[0] for node in chosen} | {source for source, _ in sources}
    needed = {node.name for _, movers in sources for node in movers}
    reached = []
    for node in graph.nodes:
        if node.op_type in FOLLOWERS and set(data_inputs(node)) <= eight:
            reached.append(node)
            eight.update(node.output)
    for node in reversed(reached):
        if wanted & set(node.output):
            needed.add(node.name)
            wanted.update(data_inputs(node))
    return needed

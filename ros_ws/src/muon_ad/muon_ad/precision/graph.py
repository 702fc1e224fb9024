"""An ONNX graph by its tensors: who makes each, who reads it, and which are constants."""

import copy
import tempfile
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import quant_pre_process

from muon_ad.precision.error import PrecisionError

# Operators that move numbers about and change none.
MOVERS = ('Transpose', 'Reshape', 'Slice', 'Concat', 'Unsqueeze', 'Squeeze', 'Flatten',
          'DepthToSpace', 'SpaceToDepth')


class Graph:
    """An index over a model's graph. It is not kept up to date: make a new one after a change."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.maker = {output: node for node in self.nodes for output in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.results = {output.name for output in model.graph.output}

    def activations(self, node: onnx.NodeProto) -> list[str]:
        """Return the inputs of a node that are not constant."""
        return [name for name in node.input if name and name not in self.constants]

    def moved_from(self, name: str) -> tuple[str, list[onnx.NodeProto]]:
        """Return the tensor whose numbers, moved about, a tensor holds, and the nodes that do so.

        What is put together from several tensors is moved from none of them.
        """
        node = self.maker.get(name)
        if node is None or node.op_type not in MOVERS:
            return name, []
        parts = [self.moved_from(each) for each in data_inputs(node)]
        sources = {source for source, _ in parts}
        if len(sources) > 1:
            return name, []
        nodes = {each.name: each for _, above in parts for each in above}
        return sources.pop(), [*nodes.values(), node]

    def redirect(self, name: str, to: str) -> None:
        """Let all that read one tensor read another."""
        for user in self.users.get(name, ()):
            for index, each in enumerate(user.input):
                if each == name:
                    user.input[index] = to

    def value(self, name: str) -> np.ndarray:
        """Return a constant. Raises KeyError where the tensor is none."""
        return numpy_helper.to_array(self.constants[name])

    def only_user(self, name: str) -> onnx.NodeProto | None:
        """Return the one node that reads a tensor; None for another number, or a graph output."""
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and name not in self.results else None


def data_inputs(node: onnx.NodeProto) -> list[str]:
    """Return the inputs that hold the numbers; the others say where to, or by how much."""
    return list(node.input) if node.op_type in ('Add', 'Concat') else list(node.input[:1])


def prepared(path: Path) -> onnx.ModelProto:
    """Return the network in a file with constants folded, shapes inferred and all nodes named.

    Raises PrecisionError where the file is missing or is not an ONNX network.
    """
    if not path.is_file():
        raise PrecisionError(f'{path}: no such file; expected an ONNX network')
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, 'prepared.onnx')
        try:
            # Symbolic inference needs another library, and gains nothing without transformers.
            quant_pre_process(str(path), str(out), skip_symbolic_shape=True)
            model = onnx.load(out)
        except Exception as error:  # noqa: BLE001 - protobuf and ONNX Runtime raise nearly anything
            reason = str(error).splitlines()[0][:200]
            raise PrecisionError(f'{path}: is not an ONNX network that runs: {reason}') from error
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f'{node.op_type}_{index}'
    if any(node.op_type == 'QuantizeLinear' for node in model.graph.node):
        raise PrecisionError(f'{path}: is quantised already; expected the fp32 network')
    return model


def replace(
    model: onnx.ModelProto, gone: Iterable[onnx.NodeProto], new: Iterable[onnx.NodeProto] = ()
) -> None:
    """Exchange nodes of a model; what nobody reads after that goes too, and the order is mended.

    A new node may make a tensor that one of those gone made.
    """
    results = {output.name for output in model.graph.output}
    made = {node.output[0] for node in gone}        # a tensor has one maker, so it names it
    kept = [node for node in model.graph.node if node.output[0] not in made] + list(new)
    while True:
        read = results.union(*(_reads(node) for node in kept))
        used = [node for node in kept if read & set(node.output)]
        if len(used) == len(kept):
            break
        kept = used
    constants = [copy.deepcopy(each) for each in model.graph.initializer if each.name in read]
    ordered = [copy.deepcopy(node) for node in _ordered(kept)]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(ordered)
    model.graph.initializer.extend(constants)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that a node reads, also inside its branches or body."""
    inner = (each for part in node.attribute if part.HasField('g') for each in part.g.node)
    return set(node.input).union(*map(_reads, inner))


def _ordered(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return the nodes in an order in which each comes after those that it reads."""
    made = {output: index for index, node in enumerate(nodes) for output in node.output}
    before = {index: {made[name] for name in _reads(node) & made.keys()}
              for index, node in enumerate(nodes)}
    return [nodes[index] for index in TopologicalSorter(before).static_order()]

"""The quantisation error of each layer: signal over noise of its output, float against INT8."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization.quant_utils import DEQUANT_OUTPUT_SUFFIX
from tqdm import tqdm

from muon_ad.precision.calibration import Feeds
from muon_ad.precision.graph import Graph
from muon_ad.precision.rules import layers

MOST_DB = 120.0     # what float32 itself is good for; also of equal outputs


@dataclass(frozen=True)
class LayerError:
    """A layer's kind, number of weights and signal-to-noise ratio in dB."""

    name: str
    kind: str
    weights: int
    snr_db: float


def layer_errors(
    model: onnx.ModelProto, quantised: onnx.ModelProto, feeds: Sequence[Feeds]
) -> list[LayerError]:
    """Return the error of each layer's output, in the network's order.

    The ratio is that of the mean squares of the output and of its difference, both networks
    running from the input on, so errors of earlier layers are part of it. `quantised` is in QDQ
    form with the tensor names of `model`.
    """
    graph, other = Graph(model), Graph(quantised)
    found = layers(graph)
    tensors = {node.name: _output(graph, other, node) for node in found}
    plain = _session(model, [name for name, _ in tensors.values()])
    eight = _session(quantised, [name for _, name in tensors.values()])
    signal, noise = dict.fromkeys(tensors, 0.0), dict.fromkeys(tensors, 0.0)
    for each in tqdm(feeds, desc='error of each layer', unit='frame'):
        wanted = plain.run([name for name, _ in tensors.values()], each)
        got = eight.run([name for _, name in tensors.values()], each)
        for name, a, b in zip(tensors, wanted, got, strict=True):
            signal[name] += float(np.square(a, dtype=np.float64).sum())
            noise[name] += float(np.square(a.astype(np.float64) - b).sum())
    return [
        LayerError(
            node.name, node.op_type, int(graph.value(node.input[1]).size),
            _decibels(signal[node.name], noise[node.name]),
        ) for node in found
    ]


def _decibels(signal: float, noise: float) -> float:
    if noise <= signal * 10 ** (-MOST_DB / 10):
        return MOST_DB
    return 10 * float(np.log10(max(signal, 1e-30) / noise))


def _output(graph: Graph, other: Graph, node: onnx.NodeProto) -> tuple[str, str]:
    """Return a layer's output in both networks; where ReLU is part of the rounding, that of ReLU.
    """
    name = node.output[0]
    while name not in other.maker:      # the quantiser took the activation away, and its input
        name = graph.users[name][0].output[0]
    rounded = name + DEQUANT_OUTPUT_SUFFIX
    return name, rounded if rounded in other.maker else name


def _session(model: onnx.ModelProto, tensors: Sequence[str]) -> ort.InferenceSession:
    """Load a copy of a model that also returns inner tensors, unoptimised so that they exist."""
    shown = copy.deepcopy(model)
    known = {output.name for output in shown.graph.output}
    shown.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in dict.fromkeys(tensors) if name not in known
    )
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        shown.SerializeToString(), options, providers=['CPUExecutionProvider']
    )

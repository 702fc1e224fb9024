"""Static INT8 in ONNX's QDQ form: QuantizeLinear, DequantizeLinear around what a plan names."""

import copy

import numpy as np
import onnx
from onnxruntime.quantization import QDQQuantizer
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.calibrate import TensorsData

from muon_ad.precision.graph import Graph
from muon_ad.precision.graph import MOVERS
from muon_ad.precision.graph import replace
from muon_ad.precision.modulation import fold_modulation
from muon_ad.precision.moving import move_bytes
from muon_ad.precision.moving import pad_borders
from muon_ad.precision.pixels import bytes_in
from muon_ad.precision.pixels import bytes_out
from muon_ad.precision.pixels import Pixels
from muon_ad.precision.pixels import SIGMOID_END
from muon_ad.precision.pixels import sigmoid_inputs
from muon_ad.precision.rules import FOLLOWERS
from muon_ad.precision.rules import LAYERS
from muon_ad.precision.rules import Plan

# cpu: activations in uint8 with a zero point, weights in 7 of 8 bits. Without the VNNI extension,
# x86 adds pairs of products in 16 bits, which weights of 8 bits overflow (vpmaddubsw saturates);
# with 7 bits a file gives the same result on every processor, at the same speed.
# tensorrt: what TensorRT takes, int8 symmetric about zero, with float weights behind their own
# pair of QuantizeLinear and DequantizeLinear, and float biases.
TARGETS = ('cpu', 'tensorrt')


def quantise(
    model: onnx.ModelProto, ranges: TensorsData, plan: Plan, target: str = 'cpu',
    pixels_in: Pixels | None = None, pixels_out: Pixels | None = None,
) -> onnx.ModelProto:
    """Return a quantised copy of a prepared model: weights per channel, activations per tensor."""
    for_cpu = target == 'cpu'
    graph = Graph(model)
    # The nodes are named, so each of them is meant, whatever is before it.
    options: dict[str, object] = {'ForceQuantizeNoInputCheck': True}
    if for_cpu:
        ranges = _bounded(ranges, sigmoid_inputs(graph, pixels_out))
        options['TensorQuantOverrides'] = _overrides(graph, plan, pixels_in, pixels_out)
    else:
        options |= {'ActivationSymmetric': True, 'WeightSymmetric': True, 'QuantizeBias': False,
                    'AddQDQPairToWeight': True}
    ranges = _same_when_moved(ranges, graph, plan)
    quantizer = QDQQuantizer(
        copy.deepcopy(model), True, for_cpu, QuantType.QInt8,
        QuantType.QUInt8 if for_cpu else QuantType.QInt8,
        ranges, list(plan.nodes), [], list(LAYERS + FOLLOWERS), options,
    )
    quantizer.quantize_model()
    return quantizer.model.model


def finish(
    model: onnx.ModelProto, pixels_in: Pixels | None, pixels_out: Pixels | None
) -> onnx.ModelProto:
    """Return a quantised model as a CPU runs it best: no float pictures, styles in integers."""
    result = copy.deepcopy(model)
    fold_modulation(result)
    move_bytes(result)
    pad_borders(result)
    if pixels_in is not None and _quantises(result, pixels_in.tensor):
        bytes_in(result, pixels_in)
    if pixels_out is not None:
        bytes_out(result, pixels_out)
    _shapes_of_bytes(result)
    replace(result, ())     # the quantiser appends nodes in any order
    onnx.checker.check_model(result)
    return result


def _shapes_of_bytes(model: onnx.ModelProto) -> None:
    """Let a shape be that of the 8-bit tensor: no float one is made for it, in place."""
    graph = Graph(model)
    for node in graph.nodes:
        source = graph.maker.get(node.input[0]) if node.op_type == 'Shape' else None
        if source is not None and source.op_type == 'DequantizeLinear':
            node.input[0] = source.input[0]


def _quantises(model: onnx.ModelProto, tensor: str) -> bool:
    """Whether a tensor has no other reader than its QuantizeLinear."""
    user = Graph(model).only_user(tensor)
    return user is not None and user.op_type == 'QuantizeLinear'


def _overrides(
    graph: Graph, plan: Plan, pixels_in: Pixels | None, pixels_out: Pixels | None
) -> dict[str, list[dict]]:
    """Return the scales that are known without calibration: those of pixels."""
    known = {}
    for pixels in filter(None, (pixels_in, pixels_out)):
        known[pixels.tensor] = [{
            'scale': np.array(pixels.scale, np.float32),
            'zero_point': np.array(round(pixels.zero), np.uint8),
            'quant_type': QuantType.QUInt8,
        }]
    return known | {name: known[source] for name, source in _moved(graph, plan).items()
                    if source in known}


def _moved(graph: Graph, plan: Plan) -> dict[str, str]:
    """Return for each tensor that is moved about in 8 bits the one it is moved from."""
    return {node.output[0]: graph.moved_from(node.output[0])[0] for node in graph.nodes
            if node.name in plan.nodes and node.op_type in MOVERS}


def _same_when_moved(ranges: TensorsData, graph: Graph, plan: Plan) -> TensorsData:
    """Return the ranges with equal ones for equal numbers, so that moving needs no rounding."""
    result = copy.copy(ranges)
    result.data = dict(ranges.data)
    for name, source in _moved(graph, plan).items():
        if source in result.data:
            result.data[name] = result.data[source]
    return result


def _bounded(ranges: TensorsData, tensors: list[str]) -> TensorsData:
    """Return the ranges with those before a picture's sigmoid no wider than it can tell apart."""
    result = copy.copy(ranges)
    result.data = dict(ranges.data)
    for name in tensors:
        if name in result.data:
            lowest, highest = result.data[name].range_value
            result.data[name] = TensorData(
                lowest=np.maximum(lowest, np.float32(-SIGMOID_END)),
                highest=np.minimum(highest, np.float32(SIGMOID_END)),
            )
    return result

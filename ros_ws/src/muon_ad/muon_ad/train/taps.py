"""Looking inside a teacher: the features that its head works on, as outputs of the graph."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import onnx


class TapError(ValueError):
    """A network has no such features."""


def add_feature_outputs(
    path: Path, out: Path, size: tuple[int, int], strides: Sequence[int]
) -> list[int]:
    """Copy the ONNX file `path` to `out`, with the features before the head as further outputs.

    They are, for each stride, the last tensor of that grid that two convolutions wider than 1x1
    read: the branches for class and box of a decoupled head, as in YOLOX. Each output is
    [1, channels, height / stride, width / stride]; returns their channels. Raises TapError where
    there is none for a stride.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    infos = {info.name: info for info in model.graph.value_info}
    readers: dict[str, int] = defaultdict(int)
    for node in model.graph.node:
        if node.op_type == 'Conv' and _kernel(node) > 1:
            readers[node.input[0]] += 1
    channels = []
    for stride in strides:
        grid = [size[1] // stride, size[0] // stride]
        shared = [name for node in model.graph.node for name in node.output
                  if readers[name] >= 2 and name in infos and _shape(infos[name])[2:] == grid]
        if not shared:
            raise TapError(f'{path}: no features before two branches at stride {stride}; train '
                           'with --mimic 0 to learn from the output of this teacher alone')
        model.graph.output.append(infos[shared[-1]])
        channels.append(_shape(infos[shared[-1]])[1])
    onnx.save(model, out)
    return channels


def _kernel(node: onnx.NodeProto) -> int:
    return max((max(attribute.ints) for attribute in node.attribute
                if attribute.name == 'kernel_shape'), default=1)


def _shape(info: onnx.ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in info.type.tensor_type.shape.dim]

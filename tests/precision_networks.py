"""Tiny ONNX networks for the tests of muon_ad.precision, of the forms that the shipped ones have.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
from onnx import TensorProto

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
CHANNELS = 16


class Builder:
    """Collects nodes and constants; weights are random but the same each time."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.constants: list = []
        self.random = np.random.default_rng(0)

    def constant(self, name: str, value: object) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def bordered(self, x: str, name: str) -> str:
        """The tensor with its border repeated, by slices and concatenations."""
        for axis in (2, 3):
            ends = [self.node('Slice', [x, *(
                self.constant(f'{name}.{part}{axis}{at}', np.array([value], np.int64))
                for part, value in (('from', at), ('to', at + 1 or 2 ** 62), ('axis', axis))
            )], f'{name}.end{axis}{at}') for at in (0, -1)]
            x = self.node('Concat', [ends[0], x, ends[1]], f'{name}.wide{axis}', axis=axis)
        return x

    def conv(
        self, x: str, name: str, inputs: int, outputs: int, spread: float = 1.0,
        border: bool = False,
    ) -> str:
        """A 3x3 convolution; the scales of its output channels spread by a factor."""
        if border:
            x = self.bordered(x, name)
        weight = self.random.normal(0, 1 / (3 * inputs ** 0.5), (outputs, inputs, 3, 3))
        weight *= np.geomspace(1, spread, outputs)[:, None, None, None]
        bias = self.random.normal(0, 0.1, outputs)
        return self.node('Conv', [
            x, self.constant(f'{name}.w', weight.astype(np.float32)),
            self.constant(f'{name}.b', bias.astype(np.float32)),
        ], name, pads=[0 if border else 1] * 4)

    def pixels(self, image: str = 'image') -> str:
        """The frame as float [1, 3, H, W] of which 128 is zero."""
        moved = self.node('Transpose', [image], 'moved', perm=[0, 3, 1, 2])
        number = self.node('Cast', [moved], 'number', to=FLOAT)
        centred = self.node('Sub', [number, self.constant('grey', np.float32(128))], 'centred')
        return self.node('Mul', [centred, self.constant('unit', np.float32(1 / 128))], 'scaled')

    def picture(self, x: str) -> str:
        """Pixels, uint8 [1, H, W, 3], of the sigmoid of [1, 3, H, W]."""
        bright = self.node('Sigmoid', [x], 'bright')
        wide = self.node('Mul', [bright, self.constant('white', np.float32(255))], 'wide')
        up = self.node('Add', [wide, self.constant('half', np.float32(0.5))], 'up')
        pixel = self.node('Cast', [up], 'pixel', to=UINT8)
        return self.node('Transpose', [pixel], 'stylised', perm=[0, 2, 3, 1])

    def save(self, path: Path, inputs: dict, outputs: dict) -> Path:
        graph = helper.make_graph(
            self.nodes, path.stem,
            [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
            [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


def style_network(path: Path, spread: float = 1.0, border: bool = False) -> Path:
    """Stem and inner layer steered by a style, a residual block, and a picture."""
    b = Builder()
    x = _steered(b, b.conv(b.pixels(), 'stem', 3, CHANNELS, border=border), 0)
    y = _steered(b, b.conv(x, 'inner', CHANNELS, CHANNELS, spread, border), 1)
    y = b.node('Add', [x, b.conv(y, 'outer', CHANNELS, CHANNELS)], 'sum')
    b.picture(b.conv(y, 'last', CHANNELS, 3))
    return b.save(path, {'image': (UINT8, [1, 'h', 'w', 3]), 'style': (FLOAT, [1, 4 * CHANNELS])},
                  {'stylised': (UINT8, [1, 'h', 'w', 3])})


def _steered(b: Builder, x: str, layer: int) -> str:
    """ReLU of a tensor scaled and shifted per channel by the style vector."""
    picked = []
    for part, first in (('scale', 2 * layer), ('shift', 2 * layer + 1)):
        places = np.arange(first * CHANNELS, (first + 1) * CHANNELS)
        got = b.node('Gather', ['style', b.constant(f'{part}{layer}.places', places)],
                     f'{part}{layer}.vector', axis=1)
        axes = b.constant(f'{part}{layer}.axes', np.array([2, 3]))
        picked.append(b.node('Unsqueeze', [got, axes], f'{part}{layer}'))
    scaled = b.node('Mul', [x, picked[0]], f'scaled{layer}')
    return b.node('Relu', [b.node('Add', [scaled, picked[1]], f'shifted{layer}')], f'relu{layer}')


def plain_network(path: Path, damaged: str = '') -> Path:
    """Four convolutions with ReLU, of which the last leaves the network.

    In the layer `damaged`, the weights of one input channel are a hundred times the others', which
    the scale of an output channel cannot bear; its input is as much smaller, so that in float
    nothing is changed.
    """
    b = Builder()
    x = b.pixels()
    names = ('first', 'second', 'third', 'fourth')
    for index, name in enumerate(names):
        x = b.conv(x, name, 3 if index == 0 else CHANNELS, CHANNELS)
        if name != names[-1]:
            x = b.node('Relu', [x], f'{name}.relu')
    if damaged:
        _damage(b, names[names.index(damaged) - 1], damaged)
    return b.save(path, {'image': (UINT8, [1, 24, 32, 3])},
                  {'fourth': (FLOAT, [1, CHANNELS, 24, 32])})


def _damage(b: Builder, before: str, layer: str) -> None:
    values = {each.name: each for each in b.constants}
    for name, axis, factor in ((f'{before}.w', 0, 0.01), (f'{before}.b', 0, 0.01),
                               (f'{layer}.w', 1, 100.0)):
        value = numpy_helper.to_array(values[name]).copy()
        value[(slice(None),) * axis + (0,)] *= factor
        values[name].CopyFrom(numpy_helper.from_array(value, name))


def attention_network(path: Path) -> Path:
    """Convolution, attention of every place to every other, normalisation, two convolutions."""
    b = Builder()
    x = b.conv(b.pixels(), 'stem', 3, CHANNELS)
    flat = b.node('Reshape', [x, b.constant('flat.shape', np.array([1, CHANNELS, -1]))], 'flat')
    rows = b.node('Transpose', [flat], 'rows', perm=[0, 2, 1])
    alike = b.node('MatMul', [rows, flat], 'alike')
    weights = b.node('Softmax', [alike], 'weights', axis=-1)
    found = b.node('MatMul', [weights, rows], 'found')
    turned = b.node('Transpose', [found], 'turned', perm=[0, 2, 1])
    plane = b.node('Reshape', [turned, b.constant('shape', np.array([1, CHANNELS, 24, 32]))],
                   'plane')
    norm = b.node('InstanceNormalization', [
        plane, b.constant('gain', np.ones(CHANNELS, np.float32)),
        b.constant('offset', np.zeros(CHANNELS, np.float32))], 'norm')
    y = b.conv(norm, 'merge', CHANNELS, CHANNELS)
    b.conv(y, 'head', CHANNELS, 4)
    return b.save(path, {'image': (UINT8, [1, 24, 32, 3])}, {'head': (FLOAT, [1, 4, 24, 32])})


def random_feeds(count: int, style: bool = False, size: tuple[int, int] = (32, 24)) -> list[dict]:
    """Smooth random frames, with random styles where the network takes one."""
    import cv2

    random = np.random.default_rng(1)
    made = []
    for _ in range(count):
        coarse = random.integers(0, 256, (4, 5, 3), np.uint8)
        feed = {'image': cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)[None]}
        if style:
            vector = random.normal(0, 0.5, (1, 4, CHANNELS))
            vector[:, ::2] += 1     # scales
            feed['style'] = vector.reshape(1, -1).astype(np.float32)
        made.append(feed)
    return made

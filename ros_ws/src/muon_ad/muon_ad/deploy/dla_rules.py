"""Which layers a DLA of the Orin runs through TensorRT, and why not the others.

The rules are NVIDIA's, as of TensorRT 10 (JetPack 6):
- "DLA Supported Layers and Restrictions" of the TensorRT documentation
  (docs.nvidia.com/deeplearning/tensorrt, inference library);
- "Supported ONNX Operators on Orin DLA" (NVIDIA/Deep-Learning-Accelerator-SW on GitHub,
  operators/README.md).

Two things need the compiler and are not judged: whether one kernel's weights fit the convolution
buffer (16 banks), and whether the scales of INT8 tensors that are joined agree.
"""

from collections.abc import Callable
from math import isclose

from muon_ad.deploy.graph import Layer
from muon_ad.deploy.graph import Value

PRECISIONS = ('fp16', 'int8')
LOADABLES = 16          # that a core holds at a time
LARGEST = 8192          # size of each dimension but the batch
LARGEST_BATCH = 4096

# What the builder makes nothing of. Scales of Q/DQ pairs become the DLA's calibration: it takes no
# explicit quantisation, and NVIDIA's qdq-translator removes the pairs.
FOLDED = ('Identity', 'Dropout', 'QuantizeLinear', 'DequantizeLinear')

# Operators that no layer of the DLA carries out, whatever their attributes.
_NEVER = {
    'InstanceNormalization': 'no instance normalisation: its statistics are those of the frame',
    'LayerNormalization': 'no layer normalisation',
    'GroupNormalization': 'no group normalisation',
    'HardSwish': 'no such activation',
    'HardSigmoid': 'no such activation',
    'Elu': 'no such activation',
    'Gelu': 'no such activation',
    'Softplus': 'no such activation',
    'Erf': 'no such activation',
    'Exp': 'no unary operation but Abs, Sin, Cos and Atan',
    'Log': 'no unary operation but Abs, Sin, Cos and Atan',
    'Sqrt': 'no unary operation but Abs, Sin, Cos and Atan',
    'Neg': 'no unary operation but Abs, Sin, Cos and Atan; multiply by -1 instead',
    'Reciprocal': 'no unary operation but Abs, Sin, Cos and Atan',
    'GlobalAveragePool': 'no average over the whole frame: windows up to 8 x 8',
    'GlobalMaxPool': 'no maximum over the whole frame as pooling',
    'ReduceMean': 'no reduction but the maximum',
    'ReduceSum': 'no reduction but the maximum',
    'ReduceMin': 'no reduction but the maximum',
    'Pad': 'no padding layer; only zeros inside a convolution or pooling',
    'DepthToSpace': 'no reordering over 6 dimensions; a transposed convolution with constant '
                    'weights does the same',
    'SpaceToDepth': 'no reordering over 6 dimensions; a strided convolution with constant weights '
                    'does the same',
    'Cast': 'no layer changes the data type; DLA tensors are FP16 or INT8',
}


def why_not(layer: Layer, precision: str) -> str:
    """Return why the DLA does not run the layer; empty where it does.

    `precision` is fp16 or int8, the only ones that it has.
    """
    if layer.operator in _NEVER:
        return _NEVER[layer.operator]
    rule = _RULES.get(layer.operator)
    if rule is None:
        return 'not among the operators that NVIDIA lists'
    return _general(layer) or rule(layer, precision)


def _general(layer: Layer) -> str:
    for value in (*layer.data, *layer.outputs):
        shape = value.shape
        if shape is None:
            return f'the shape of {value.name} is not known before running'
        if len(shape) != 4:
            return f'{len(shape)} dimensions; expected batch, channels, height and width'
        if shape[0] > LARGEST_BATCH or not all(1 <= side <= LARGEST for side in shape[1:]):
            return f'{list(shape)}: sides of 1 to {LARGEST} and a batch up to {LARGEST_BATCH}'
        if not value.dtype.startswith('float'):
            return f'{value.dtype} tensors; the DLA has FP16 and INT8'
    return ''


def _within(name: str, numbers: object, lowest: int, highest: int) -> str:
    numbers = list(numbers)
    good = all(lowest <= number <= highest for number in numbers)
    return '' if good else f'{name} {numbers}; expected {lowest} to {highest}'


def _first(*reasons: str) -> str:
    return next(filter(None, reasons), '')


def _convolution(layer: Layer, precision: str) -> str:
    weight = layer.inputs[1]
    if weight.constant is None:
        return 'weights that are computed; expected constant ones'
    kernel = weight.shape[2:]
    pads = layer.attributes.get('pads', [0] * 4)
    if len(kernel) != 2:
        return f'{len(kernel)} spatial dimensions; expected 2'
    if any(pad >= side for pad, side in zip(pads, (*kernel, *kernel), strict=True)):
        return f'padding {list(pads)}; expected less than the kernel {list(kernel)}'
    return _first(
        _within('kernel', kernel, 1, 32),
        _within('padding', pads, 0, 31),
        _within('stride', layer.attributes.get('strides', [1]), 1, 8),
        _within('dilation', layer.attributes.get('dilations', [1]), 1, 32),
        _within('groups', [layer.attributes.get('group', 1)], 1, LARGEST),
    )


def _deconvolution(layer: Layer, precision: str) -> str:
    kernel = list(layer.inputs[1].shape[2:])
    strides = list(layer.attributes.get('strides', [1, 1]))
    if any(layer.attributes.get('pads', [0])) or any(layer.attributes.get('output_padding', [0])):
        return 'a transposed convolution with padding; expected none'
    if kernel[0] == kernel[1] and kernel[0] >= 23 and max(strides) >= 23:
        return f'kernel {kernel} with stride {strides}: TensorRT keeps those off the DLA'
    long = sorted(kernel)[0] == 1 and sorted(kernel)[1] in (64, 96, 128)
    return _first(
        _within('groups', [layer.attributes.get('group', 1)], 1, 1),
        _within('dilation', layer.attributes.get('dilations', [1]), 1, 1),
        '' if long else _within('kernel', kernel, 1, 32),
        _within('stride', strides, 1, 32),
    )


def _product(layer: Layer, precision: str) -> str:
    if layer.inputs[1].constant is None:
        return 'a product of two computed tensors; expected constant weights'
    return ''


def _pooling(layer: Layer, precision: str) -> str:
    pads = layer.attributes.get('pads', [0])
    average = layer.operator == 'AveragePool'
    if average and any(pads) and not layer.attributes.get('count_include_pad', 0):
        return 'an average that leaves out the padding; expected count_include_pad'
    return _first(
        _within('window', layer.attributes['kernel_shape'], 1, 8),
        _within('padding', pads, 0, 7),
        _within('stride', layer.attributes.get('strides', [1]), 1, 16),
        _within('dilation', layer.attributes.get('dilations', [1]), 1, 1),
        'rounds sizes up; expected ceil_mode 0' if layer.attributes.get('ceil_mode', 0) else '',
    )


def _runs(layer: Layer, precision: str) -> str:
    return ''


def _leaky(layer: Layer, precision: str) -> str:
    slope = layer.attributes.get('alpha', 0.01)
    return '' if slope >= 0 else f'slope {slope:g}; expected none below 0'


def _parametric(layer: Layer, precision: str) -> str:
    slope = layer.inputs[1]
    fits = slope.constant is not None and len(slope.shape) == len(layer.inputs[0].shape)
    return '' if fits else 'slopes; expected constant ones of 4 dimensions'


def _clip(layer: Layer, precision: str) -> str:
    bounds = [value.constant for value in layer.inputs[1:]]
    if len(bounds) != 2 or any(bound is None for bound in bounds):
        return 'a clip with open or computed bounds; expected 0 to a constant'
    low, high = (float(bound) for bound in bounds)
    fits = low == 0 and 1 <= high <= 127
    return '' if fits else f'a clip to {low:g}..{high:g}; expected 0 to a number of 1 to 127'


def _elementwise(layer: Layer, precision: str) -> str:
    """Judge by the broadcast: equal shapes, N, C, 1, 1 or N, 1, 1, 1; constants scale or shift."""
    shapes = [value.shape for value in layer.data]
    full = layer.outputs[0].shape
    if any(shape not in (full, (*full[:2], 1, 1), (full[0], 1, 1, 1)) for shape in shapes):
        return f'broadcast of {shapes}; expected equal shapes, or height and width of 1'
    for value in layer.inputs:
        if value.constant is not None and not _scales(value, full):
            return f'a constant of shape {list(value.shape)}; expected a number for each channel'
    return ''


def _scales(value: Value, full: tuple[int, ...]) -> bool:
    """Whether a constant is that of a Scale layer: uniform, per channel or per element."""
    shape = (1,) * (4 - len(value.shape)) + value.shape
    return shape in ((1, 1, 1, 1), (1, full[1], 1, 1), (1, *full[1:]), full)


def _concatenation(layer: Layer, precision: str) -> str:
    axis = layer.attributes['axis'] % 4
    if axis != 1:
        return f'concatenation along axis {axis}; expected that of the channels'
    return 'a single input; expected two or more' if len(layer.inputs) < 2 else ''


def _resize(layer: Layer, precision: str) -> str:
    before, after = layer.inputs[0].shape, layer.outputs[0].shape
    scales = [large / small for large, small in zip(after, before, strict=True)]
    mode = layer.attributes.get('mode', b'nearest').decode()
    most = {'nearest': 32, 'linear': 4}.get(mode)
    if most is None:
        return f'interpolation {mode}; expected nearest or linear'
    whole = all(isclose(scale, round(scale)) and 1 <= scale <= most for scale in scales[2:])
    if scales[:2] != [1, 1] or not whole:
        return f'scales {scales}; expected 1, 1 and whole numbers of 1 to {most} ({mode})'
    return ''


def _softmax(layer: Layer, precision: str) -> str:
    axis = layer.attributes.get('axis', -1) % 4
    shape = layer.inputs[0].shape
    if axis == 0:
        return 'softmax over the batch; expected over channels, height or width'
    others = [side for index, side in enumerate(shape) if index not in (0, axis)]
    if shape[axis] > 1024 and max(others) > 1:
        return f'softmax over {shape[axis]}; expected up to 1024'
    return ''


def _shuffle(layer: Layer, precision: str) -> str:
    if layer.operator == 'Transpose' and layer.attributes.get('perm', [3])[0] != 0:
        return 'a transposition of the batch; expected it to stay in front'
    before, after = layer.inputs[0].shape, layer.outputs[0].shape
    return '' if before[0] == after[0] else f'batch {before[0]} becomes {after[0]}'


def _slice(layer: Layer, precision: str) -> str:
    if precision != 'fp16':
        return 'slices exist in FP16 only'
    if layer.operator == 'Split':
        return ''
    if any(value.constant is None for value in layer.inputs[1:]):
        return 'a slice with computed bounds; expected constant ones'
    return ''


def _greatest(layer: Layer, precision: str) -> str:
    if len(layer.outputs[0].shape) != 4:
        return 'a reduction that drops dimensions; expected keepdims'
    return ''


_RULES: dict[str, Callable[[Layer, str], str]] = {
    'Conv': _convolution,
    'ConvTranspose': _deconvolution,
    'Gemm': _product,
    'MatMul': _product,
    'MaxPool': _pooling,
    'AveragePool': _pooling,
    'BatchNormalization': _runs,
    'Relu': _runs,
    'Sigmoid': _runs,
    'Tanh': _runs,
    'LeakyRelu': _leaky,
    'PRelu': _parametric,
    'Clip': _clip,
    **dict.fromkeys(('Add', 'Sub', 'Mul', 'Div', 'Pow', 'Max', 'Min', 'Sum'), _elementwise),
    'Concat': _concatenation,
    'Resize': _resize,
    'Upsample': _resize,
    'Softmax': _softmax,
    'Reshape': _shuffle,
    'Transpose': _shuffle,
    'Slice': _slice,
    'Split': _slice,
    'ReduceMax': _greatest,
    **dict.fromkeys(('Abs', 'Sin', 'Cos', 'Atan'), _runs),
}

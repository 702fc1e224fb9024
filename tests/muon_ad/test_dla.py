"""Placement on a DLA: the rules one by one, loadables and transitions, the shipped networks."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx import numpy_helper
from onnx import TensorProto

from muon_ad.cli import main
from muon_ad.deploy.dla import place
from muon_ad.deploy.dla_rules import why_not
from muon_ad.deploy.graph import GraphError
from muon_ad.deploy.graph import read_graph

MODELS = Path(__file__).resolve().parents[2] / 'models'


def graph(tmp_path, nodes, outputs, weights=None, shape=(1, 8, 32, 32), kind=TensorProto.FLOAT):
    """Read back a model of `nodes` on the input `x`."""
    made = helper.make_graph(
        nodes, 'test', [helper.make_tensor_value_info('x', kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    path = tmp_path / 'model.onnx'
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid('', 17)], ir_version=9),
              path)
    return read_graph(path)


def reason(tmp_path, operator, weights=None, shape=(1, 8, 32, 32), precision='fp16', **attributes):
    names = list(weights or {})
    node = helper.make_node(operator, ['x', *names], ['y'], name='it', **attributes)
    # ONNX Runtime may write an operator as several, as it does with HardSwish.
    layer = graph(tmp_path, [node], ['y'], weights, shape)[0]
    return why_not(layer, precision)


def kernel(*shape):
    return {'w': np.ones(shape, np.float32)}


@pytest.mark.parametrize('weights, attributes, expected', [
    (kernel(16, 8, 3, 3), {'pads': [1, 1, 1, 1]}, ''),
    (kernel(8, 1, 3, 3), {'group': 8}, ''),
    (kernel(16, 8, 3, 3), {'pads': [3, 3, 3, 3]}, 'padding [3, 3, 3, 3]; expected less than'),
    (kernel(16, 8, 3, 3), {'strides': [9, 9]}, 'stride [9, 9]; expected 1 to 8'),
    (kernel(16, 8, 33, 1), {'pads': [1, 0, 1, 0]}, 'kernel [33, 1]; expected 1 to 32'),
])
def test_convolutions(tmp_path, weights, attributes, expected):
    found = reason(tmp_path, 'Conv', weights, shape=(1, 8, 40, 40), **attributes)
    assert found.startswith(expected) and bool(found) == bool(expected)


@pytest.mark.parametrize('weights, attributes, expected', [
    (kernel(8, 4, 2, 2), {'strides': [2, 2]}, ''),
    (kernel(8, 4, 4, 4), {'strides': [2, 2], 'pads': [1] * 4}, 'a transposed convolution with'),
    (kernel(8, 1, 2, 2), {'strides': [2, 2], 'group': 8}, 'groups [8]; expected 1 to 1'),
    (kernel(8, 4, 24, 24), {'strides': [23, 23]}, 'kernel [24, 24] with stride'),
    (kernel(8, 4, 64, 1), {'strides': [1, 1]}, ''),
])
def test_transposed_convolutions(tmp_path, weights, attributes, expected):
    found = reason(tmp_path, 'ConvTranspose', weights, **attributes)
    assert found.startswith(expected) and bool(found) == bool(expected)


@pytest.mark.parametrize('operator, attributes, expected', [
    ('MaxPool', {'kernel_shape': [5, 5], 'pads': [2, 2, 2, 2]}, ''),
    ('MaxPool', {'kernel_shape': [9, 9]}, 'window [9, 9]'),
    ('MaxPool', {'kernel_shape': [2, 2], 'ceil_mode': 1}, 'rounds sizes up'),
    ('AveragePool', {'kernel_shape': [3, 3], 'pads': [1, 1, 1, 1]}, 'an average that leaves out'),
    ('AveragePool', {'kernel_shape': [3, 3], 'pads': [1, 1, 1, 1], 'count_include_pad': 1}, ''),
    ('GlobalAveragePool', {}, 'no average over the whole frame'),
    ('Relu', {}, ''),
    ('Tanh', {}, ''),
    ('LeakyRelu', {'alpha': 0.2}, ''),
    ('LeakyRelu', {'alpha': -0.2}, 'slope -0.2'),
    ('HardSwish', {}, 'no such activation'),
    ('HardSigmoid', {}, 'no such activation'),
    ('Softplus', {}, 'no such activation'),
    ('Abs', {}, ''),
    ('Sqrt', {}, 'no unary operation'),
    ('ReduceMean', {'axes': [2, 3]}, 'no reduction but the maximum'),
    ('ReduceMax', {'axes': [2, 3]}, ''),
    ('ReduceMax', {'axes': [2, 3], 'keepdims': 0}, '2 dimensions'),
    ('Softmax', {'axis': 1}, ''),
    ('Softmax', {'axis': 0}, 'softmax over the batch'),
    ('Transpose', {'perm': [0, 2, 3, 1]}, ''),
    ('Transpose', {'perm': [1, 0, 2, 3]}, 'a transposition of the batch'),
    ('DepthToSpace', {'blocksize': 2}, 'no reordering over 6 dimensions'),
])
def test_layers_without_weights(tmp_path, operator, attributes, expected):
    found = reason(tmp_path, operator, **attributes)
    assert found.startswith(expected) and bool(found) == bool(expected)


@pytest.mark.parametrize('operator, weights, expected', [
    ('Add', {'c': np.ones((1, 8, 1, 1), np.float32)}, ''),
    ('Mul', {'c': np.float32(3).reshape(())}, ''),
    ('Add', {'c': np.ones((1, 8, 32, 32), np.float32)}, ''),
    ('Add', {'c': np.ones((1, 1, 32, 32), np.float32)}, 'a constant of shape [1, 1, 32, 32]'),
    ('Clip', {'low': np.float32(0).reshape(()), 'high': np.float32(6).reshape(())}, ''),
    ('Clip', {'low': np.float32(-1).reshape(()), 'high': np.float32(6).reshape(())}, 'a clip to'),
    ('Pad', {'pads': np.array([0, 0, 1, 1, 0, 0, 1, 1])}, 'no padding layer'),
    ('Reshape', {'shape': np.array([1, 16, 16, 32])}, ''),
    ('Reshape', {'shape': np.array([1, -1])}, '2 dimensions'),
    ('Reshape', {'shape': np.array([2, 4, 32, 32])}, 'batch 1 becomes 2'),
    ('MatMul', {'w': np.ones((32, 4), np.float32)}, ''),
    ('InstanceNormalization', {'s': np.ones(8, np.float32), 'b': np.ones(8, np.float32)},
     'no instance normalisation'),
])
def test_layers_with_constants(tmp_path, operator, weights, expected):
    found = reason(tmp_path, operator, weights)
    assert found.startswith(expected) and bool(found) == bool(expected)


@pytest.mark.parametrize('mode, scales, expected', [
    (b'nearest', (1, 1, 2, 2), ''), (b'nearest', (1, 1, 8, 8), ''),
    (b'linear', (1, 1, 2, 2), ''), (b'linear', (1, 1, 8, 8), 'scales'),
    (b'nearest', (1, 1, 1.5, 1.5), 'scales'), (b'nearest', (1, 2, 2, 2), 'scales'),
    (b'cubic', (1, 1, 2, 2), 'interpolation cubic'),
])
def test_resizing(tmp_path, mode, scales, expected):
    node = helper.make_node('Resize', ['x', '', 'scales'], ['y'], mode=mode)
    layer, = graph(tmp_path, [node], ['y'], {'scales': np.float32(scales)})
    assert why_not(layer, 'int8').startswith(expected)
    assert bool(why_not(layer, 'int8')) == bool(expected)


def test_broadcasts_between_computed_tensors(tmp_path):
    nodes = [
        helper.make_node('ReduceMax', ['x'], ['peak'], axes=[2, 3]),
        helper.make_node('ReduceMax', ['x'], ['rows'], axes=[2]),
        helper.make_node('Mul', ['x', 'peak'], ['y'], name='good'),
        helper.make_node('Mul', ['x', 'rows'], ['z'], name='bad'),
    ]
    layers = {layer.name: layer for layer in graph(tmp_path, nodes, ['y', 'z'])}
    assert why_not(layers['good'], 'fp16') == ''
    why = why_not(layers['bad'], 'fp16')
    assert why.startswith('broadcast of [(1, 8, 32, 32), (1, 8, 1, 32)]')


def test_slices_exist_in_fp16_only_and_products_need_constants(tmp_path):
    cut = [helper.make_node('Slice', ['x', 'a', 'b', 'c'], ['y'])]
    weights = {'a': np.array([0]), 'b': np.array([4]), 'c': np.array([1])}
    layer, = graph(tmp_path, cut, ['y'], weights)
    assert why_not(layer, 'fp16') == '' and 'FP16 only' in why_not(layer, 'int8')
    layer, = graph(tmp_path, [helper.make_node('MatMul', ['x', 'x'], ['y'])], ['y'])
    assert why_not(layer, 'fp16').startswith('a product of two computed tensors')


def test_an_unlisted_operator_falls_back(tmp_path):
    assert 'not among' in reason(tmp_path, 'Selu')


def chain(*operators):
    """Nodes one after the other, from x to y."""
    names = ['x', *(f't{index}' for index in range(len(operators) - 1)), 'y']
    return [helper.make_node(operator, [names[index]], [names[index + 1]])
            for index, operator in enumerate(operators)]


@pytest.mark.parametrize('operators, loadables, transitions', [
    (('Relu', 'Tanh'), 1, 0),
    (('Relu', 'Softplus', 'Tanh'), 2, 2),
    (('Softplus', 'Relu', 'Softplus'), 1, 2),
    (('Softplus', 'Softplus'), 0, 0),
    (('Relu', 'Softplus') * 4, 4, 7),
])
def test_loadables_and_transitions_of_a_chain(tmp_path, operators, loadables, transitions):
    placement = place(graph(tmp_path, chain(*operators), ['y']), 'fp16')
    assert (placement.loadables, placement.transitions) == (loadables, transitions)


def test_a_skip_around_the_gpu_does_not_join_loadables(tmp_path):
    """x -> Relu -> Softplus -> Add, and Relu -> Add: the Add must wait for the GPU."""
    nodes = [
        helper.make_node('Relu', ['x'], ['a']),
        helper.make_node('Softplus', ['a'], ['b']),
        helper.make_node('Add', ['a', 'b'], ['y']),
    ]
    placement = place(graph(tmp_path, nodes, ['y']), 'fp16')
    assert [placed.loadable for placed in placement.layers] == [0, None, 1]
    assert placement.transitions == 3
    side_by_side = [helper.make_node('Relu', ['x'], ['y']), helper.make_node('Tanh', ['x'], ['z'])]
    assert place(graph(tmp_path, side_by_side, ['y', 'z']), 'fp16').loadables == 2


def test_quantised_pairs_are_folded_and_the_weight_is_still_constant(tmp_path):
    nodes = [
        helper.make_node('QuantizeLinear', ['x', 's', 'z'], ['q']),
        helper.make_node('DequantizeLinear', ['q', 's', 'z'], ['d']),
        helper.make_node('DequantizeLinear', ['w', 's', 'z'], ['dw']),
        helper.make_node('Conv', ['d', 'dw'], ['y']),
    ]
    weights = {'s': np.float32(0.1).reshape(()), 'z': np.int8(0).reshape(()),
               'w': np.ones((4, 8, 3, 3), np.int8)}
    placement = place(graph(tmp_path, nodes, ['y'], weights), 'int8')
    placed, = placement.layers
    assert (placed.layer.operator, placed.loadable, placed.reason) == ('Conv', 0, '')
    assert placement.share == 1.0


def test_operations_are_those_of_the_formulas(tmp_path):
    nodes = [helper.make_node('Conv', ['x', 'w'], ['a'], pads=[1, 1, 1, 1]),
             helper.make_node('Softplus', ['a'], ['b']),
             helper.make_node('ConvTranspose', ['b', 'u'], ['y'], strides=[2, 2])]
    weights = {'w': np.ones((16, 8, 3, 3), np.float32), 'u': np.ones((16, 4, 2, 2), np.float32)}
    layers = graph(tmp_path, nodes, ['y'], weights)
    by_hand = [2 * 32 * 32 * 16 * 8 * 9, 0, 2 * 32 * 32 * 16 * 4 * 4]
    assert [layer.operations() for layer in layers] == by_hand


def test_the_shipped_detector_is_one_loadable(capsys):
    folder = str(MODELS / 'detector_default')
    assert main(['export', 'dla', folder, '--json']) == 0
    said = json.loads(capsys.readouterr().out)
    assert said['loadables'] == 1 and said['share_of_operations'] > 0.99
    assert {'Cast', 'Transpose'} <= said['fall_back'].keys() and 'Conv' not in said['fall_back']
    assert len(said['placement']) == said['layers'] == said['on_dla'] + said['on_gpu']
    assert main(['export', 'dla', folder]) == 0
    assert 'loadables: 1 (a core holds 16)' in ' '.join(capsys.readouterr().out.split())


def test_more_loadables_than_a_core_holds_is_an_error(tmp_path, capsys):
    graph(tmp_path, chain(*('Relu', 'Softplus') * 17), ['y'])
    assert main(['export', 'dla', str(tmp_path / 'model.onnx'), '--json']) == 1
    assert json.loads(capsys.readouterr().out)['loadables'] == 17


def test_bad_files_and_open_sizes_are_one_line(tmp_path, negative_package, capsys):
    broken = tmp_path / 'broken.onnx'
    broken.write_bytes(b'not a network')
    assert main(['export', 'dla', str(broken)]) == 2
    assert 'broken.onnx: cannot be read as ONNX' in capsys.readouterr().err
    with pytest.raises(GraphError, match='input image leaves sizes open'):
        read_graph(negative_package / 'transfer.onnx')
    fixed = read_graph(negative_package / 'transfer.onnx', (64, 48))
    assert fixed[0].inputs[0].shape == (1, 48, 64, 3)

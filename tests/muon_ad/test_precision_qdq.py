"""INT8: what is quantised and what is kept, scales, the folded style, and the error that is left.
"""

import numpy as np
import onnx
import onnxruntime as ort
import precision_networks as networks
import pytest
from onnx import numpy_helper

from muon_ad.precision import rules
from muon_ad.precision.calibration import calibrate
from muon_ad.precision.error import PrecisionError
from muon_ad.precision.graph import Graph
from muon_ad.precision.graph import prepared
from muon_ad.precision.half import halve
from muon_ad.precision.layers import layer_errors
from muon_ad.precision.layers import MOST_DB
from muon_ad.precision.modulation import fold_modulation
from muon_ad.precision.pixels import pixel_input
from muon_ad.precision.pixels import pixel_output
from muon_ad.precision.qdq import finish
from muon_ad.precision.qdq import quantise
from muon_ad.precision.rules import make_plan
from muon_ad.runtime.engine import Engine


class Case:
    """A network with its ranges, ready to be quantised."""

    def __init__(self, path, style=False, count=4, method='minmax'):
        self.path, self.feeds = path, networks.random_feeds(count, style)
        self.model = prepared(path)
        self.graph = Graph(self.model)
        self.ranges = calibrate(self.model, self.feeds, method)
        self.pixels = pixel_input(self.graph), pixel_output(self.graph)
        self.picture = self.pixels[1].tensor if self.pixels[1] else None

    def plan(self, keep=()):
        return make_plan(self.graph, self.picture, keep)

    def quantised(self, keep=(), target='cpu'):
        return quantise(self.model, self.ranges, self.plan(keep), target, *self.pixels)

    def finished(self, keep=()):
        return finish(self.quantised(keep), *self.pixels)

    def results(self, model, feeds=None):
        session = ort.InferenceSession(
            model if isinstance(model, str) else model.SerializeToString(),
            providers=['CPUExecutionProvider'],
        )
        return [session.run(None, each)[0].astype(np.float64) for each in feeds or self.feeds]

    def expected(self, feeds=None):
        return self.results(str(self.path), feeds)


@pytest.fixture(scope='module')
def style(tmp_path_factory):
    path = networks.style_network(tmp_path_factory.mktemp('style') / 'style.onnx', spread=4)
    return Case(path, style=True)


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    return Case(networks.plain_network(tmp_path_factory.mktemp('plain') / 'plain.onnx'))


def kinds(model):
    return [node.op_type for node in model.graph.node]


def difference(got, want):
    return np.mean([np.abs(a - b).mean() for a, b in zip(got, want, strict=True)])


def quantised_layers(model):
    """Layers whose weights come from DequantizeLinear."""
    graph = Graph(model)
    return {node.name for node in graph.nodes if node.op_type == 'Conv'
            and getattr(graph.maker.get(node.input[1]), 'op_type', '') == 'DequantizeLinear'}


def test_layers_are_quantised_but_for_the_last_whose_result_is_numbers(plain):
    assert quantised_layers(plain.quantised()) == {'first', 'second', 'third'}
    assert plain.plan().kept == {'fourth': rules.HEAD}


def test_a_layer_asked_for_is_kept(plain):
    assert quantised_layers(plain.quantised(['second'])) == {'first', 'third'}
    assert plain.plan(['second']).kept['second'] == rules.ASKED


def test_the_layer_that_makes_pixels_is_quantised(style):
    assert quantised_layers(style.quantised()) == {'stem', 'inner', 'outer', 'last'}


def test_scales_are_per_output_channel(style):
    model = style.quantised()
    graph = Graph(model)
    conv = next(node for node in graph.nodes if node.name == 'inner')
    scale = graph.value(graph.maker[conv.input[1]].input[1])
    weight = style.graph.value('inner.w')
    # 7 bits: what pairs of products on CPUs without VNNI have room for.
    assert np.allclose(scale, np.abs(weight).max(axis=(1, 2, 3)) / 63.5, rtol=0.02)
    whole = graph.value(graph.maker[conv.input[1]].input[0])
    assert np.abs(whole.astype(int)).max() <= 64


def test_attention_and_norms_are_kept_with_their_reasons(tmp_path):
    case = Case(networks.attention_network(tmp_path / 'attention.onnx'))
    kept = case.plan().kept
    assert kept['weights'] == rules.SOFTMAX
    assert kept['alike'] == kept['found'] == rules.PRODUCT
    assert kept['norm'] == rules.NORM
    quantised = case.quantised()
    graph = Graph(quantised)
    for name in ('alike', 'found'):
        node = next(each for each in graph.nodes if each.name == name)
        assert all(graph.maker[each].op_type != 'DequantizeLinear'
                   or graph.maker[each].input[0] != 'flat' for each in node.input)
    assert {'stem', 'merge'} == quantised_layers(quantised)


def test_no_float_picture_is_left(style):
    model = style.finished()
    graph = Graph(model)
    assert 'Cast' not in [graph.maker[n.input[0]].op_type for n in graph.nodes
                          if n.op_type == 'Transpose' and n.input[0] in graph.maker]
    first = next(node for node in graph.nodes if node.name == 'stem_modulated')
    assert graph.maker[first.input[0]].name == 'moved'     # the bytes, turned to NCHW
    assert graph.value(first.input[2]) == 128
    assert graph.maker['stylised'].op_type == 'Transpose'
    assert graph.maker[graph.maker['stylised'].input[0]].op_type == 'QuantizeLinear'


def test_borders_are_laid_of_bytes(tmp_path):
    """What is only moved before a layer is moved in 8 bits."""
    case = Case(networks.style_network(tmp_path / 'border.onnx', border=True), style=True)
    model = case.finished()
    graph = Graph(model)
    pads = [node for node in graph.nodes if node.op_type == 'Pad']
    assert len(pads) == 2 and not {'Slice', 'Concat'} & set(kinds(model))
    stem, inner = (graph.maker[node.input[0]] for node in pads)
    assert stem.name == 'moved'     # the frame's bytes
    assert inner.op_type == 'QLinearConv'
    assert all(graph.only_user(node.output[0]).op_type == 'QLinearConv' for node in pads[:2])
    assert sum(node.op_type == 'QLinearConv' for node in graph.nodes) == 2
    assert difference(case.results(model), case.expected()) < 1.5


def test_the_style_is_folded_into_the_convolutions(style):
    model = style.quantised()
    before = style.results(model)
    assert fold_modulation(model) == 2
    assert kinds(model).count('QLinearConv') == 2
    after = style.results(model)
    # Rounded once instead of thrice: never further from the float network.
    want = style.expected()
    assert difference(after, want) <= difference(before, want) * 1.05


@pytest.mark.parametrize('scale', [1.0, -1.0, 1e-6, 0.0])
def test_folded_styles_of_all_signs(style, scale):
    feeds = [dict(feed) for feed in style.feeds]
    for feed in feeds:
        vector = feed['style'].copy().reshape(4, -1)
        vector[2] = scale       # of the inner layer
        feed['style'] = vector.reshape(1, -1)
    assert difference(style.results(style.finished(), feeds), style.expected(feeds)) < 2


def test_the_error_at_the_output_is_bounded(style, plain):
    assert difference(style.results(style.finished()), style.expected()) < 1.5
    want = plain.expected()
    assert difference(plain.results(plain.finished()), want) < 0.03 * np.std(want)


def test_more_layers_in_float_mean_a_smaller_error(style):
    want = style.expected()
    all_int8 = difference(style.results(style.finished()), want)
    without = difference(style.results(style.finished(['outer', 'last', 'inner'])), want)
    assert without < all_int8


def test_a_form_for_tensorrt_is_symmetric_and_plain(plain):
    model = plain.quantised(target='tensorrt')
    graph = Graph(model)
    zeros = [graph.value(node.input[2]) for node in graph.nodes
             if node.op_type == 'QuantizeLinear' and node.input[2] in graph.constants]
    assert zeros and all((each == 0).all() and each.dtype == np.int8 for each in zeros)
    assert quantised_layers(model) == {'first', 'second', 'third'}
    want = plain.expected()
    assert difference(plain.results(model), want) < 0.05 * np.std(want)


def test_error_of_each_layer(plain):
    found = {each.name: each.snr_db for each in
             layer_errors(plain.model, plain.quantised(), plain.feeds)}
    assert list(found) == ['first', 'second', 'third', 'fourth']
    assert all(20 < value < 60 for value in found.values())
    only_last = {each.name: each.snr_db for each in layer_errors(
        plain.model, plain.quantised(['first', 'second']), plain.feeds)}
    assert only_last['first'] == only_last['second'] == MOST_DB
    assert only_last['third'] > found['third']


def test_half_precision_keeps_inputs_and_outputs(style, tmp_path):
    model = halve(style.model)
    assert model.graph.input[1].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    weights = [numpy_helper.to_array(each) for each in model.graph.initializer
               if each.name.endswith('.w')]
    assert len(weights) == 4 and all(each.dtype == np.float16 for each in weights)
    assert difference(style.results(model), style.expected()) < 0.2


def test_half_precision_leaves_norms_and_softmax(tmp_path):
    model = halve(prepared(networks.attention_network(tmp_path / 'attention.onnx')))
    graph = Graph(model)
    for kind in ('Softmax', 'InstanceNormalization'):
        node = next(each for each in graph.nodes if each.op_type == kind)
        cast = graph.maker[node.input[0]]
        assert cast.op_type == 'Cast' and cast.attribute[0].i == onnx.TensorProto.FLOAT


def test_an_int8_network_runs_in_the_engine(style, tmp_path):
    path = tmp_path / 'int8.onnx'
    onnx.save(style.finished(), path)
    engine = Engine(path)
    small = [engine.run(feed)[0].astype(float) for feed in style.feeds]
    assert difference(small, style.expected()) < 1.5
    large = networks.random_feeds(1, style=True, size=(64, 48))
    assert engine.run(large[0])[0].shape == (1, 48, 64, 3)


def test_what_is_no_network_is_one_line(tmp_path):
    with pytest.raises(PrecisionError, match='no such file'):
        prepared(tmp_path / 'none.onnx')
    (tmp_path / 'text.onnx').write_text('not a network')
    with pytest.raises(PrecisionError, match='not an ONNX network') as caught:
        prepared(tmp_path / 'text.onnx')
    assert '\n' not in str(caught.value)


def test_a_quantised_network_is_not_quantised_again(plain, tmp_path):
    onnx.save(plain.quantised(), tmp_path / 'int8.onnx')
    with pytest.raises(PrecisionError, match='quantised already'):
        prepared(tmp_path / 'int8.onnx')


def test_unknown_layers_and_none_left(plain):
    with pytest.raises(PrecisionError, match=r"no layer \['fifth'\].*'first', 'second'"):
        plain.plan(['fifth'])
    with pytest.raises(PrecisionError, match='no layer is left'):
        plain.plan(['first', 'second', 'third'])

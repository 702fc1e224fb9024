"""Memory of an engine: the arena's limit, and what the report says of its use."""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx import TensorProto

from muon_ad.runtime.engine import Engine
from muon_ad.runtime.engine import EngineError
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.memory import memory_report

SIDE = 256
PLANE = SIDE * SIDE * 4         # bytes of one float tensor of the network


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    """A chain whose inner tensors are 16 planes, of which two are in use at a time."""
    nodes = [
        helper.make_node('Concat', ['x'] * 16, ['wide'], axis=0),
        helper.make_node('Exp', ['wide'], ['more']),
        helper.make_node('ReduceMax', ['more'], ['y'], keepdims=1),
    ]
    graph = helper.make_graph(
        nodes, 'chain',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, 'h', SIDE])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1, 1, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)
    path = tmp_path_factory.mktemp('memory') / 'chain.onnx'
    onnx.save(model, path)
    return path


def feeds():
    return {'x': np.zeros((1, SIDE, SIDE), np.float32)}


def test_a_limit_that_is_too_small_is_named(network):
    engine = Engine(network, EngineOptions(memory_limit_mb=1))
    with pytest.raises(EngineError, match='memory_limit_mb is 1, and the network needs more'):
        engine.run(feeds())


def test_a_limit_that_is_enough_holds_and_is_taken_at_once(network):
    engine = Engine(network, EngineOptions(memory_limit_mb=32))
    assert engine.run(feeds())[0] == 1
    report = memory_report(engine)
    assert report['limit'] == 32 << 20
    if report['arena_held'] is None:
        pytest.skip('this ONNX Runtime does not tell the use of its arena')
    assert report['arena_held'] == pytest.approx(32 << 20, rel=0.01)
    assert 16 * PLANE <= report['requested_peak'] <= report['arena_peak'] <= report['arena_held']
    assert report['fragmentation'] == pytest.approx(
        1 - report['requested_peak'] / report['arena_held'])


def test_engines_have_limits_of_their_own(network):
    roomy = Engine(network, EngineOptions(memory_limit_mb=64))
    tight = Engine(network, EngineOptions(memory_limit_mb=1))
    free = Engine(network)
    with pytest.raises(EngineError, match='memory_limit_mb is 1'):
        tight.run(feeds())
    assert roomy.run(feeds())[0] == free.run(feeds())[0] == 1


def test_a_report_without_a_limit(network):
    engine = Engine(network)
    with pytest.raises(EngineError, match='has the open shape .* run it once'):
        memory_report(engine)
    engine.run(feeds())
    report = memory_report(engine)
    assert report['limit'] == 0
    assert report['buffers'] == PLANE + 4
    assert report['weights'] == network.stat().st_size
    assert report['resident_peak'] >= report['resident'] > 10 << 20
    assert report['arena_held'] is None or report['arena_held'] >= 16 * PLANE

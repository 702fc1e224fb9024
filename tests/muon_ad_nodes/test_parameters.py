"""Parameter declarations: what they accept, and the words of a refusal."""

import pytest

from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError

RATE = Parameter('rate', 30.0, 'Frames a second.', range=(1.0, 120.0))
COUNT = Parameter('net.count', 3, 'How many.', range=(0, 9))
MODE = Parameter('mode', 'a', 'Which.', choices=('a', 'b'))
FLAG = Parameter('flag', False, 'Whether.')
NAMES = Parameter('names', [], 'Which ones.', kind='strings')
CORES = Parameter('cores', [], 'Which.', kind='integers', range=(0, 7))
PLACES = Parameter('places', [0.0], 'Where.', kind='numbers')


@pytest.mark.parametrize(
    'parameter, value, expected',
    [
        (RATE, 30, 30.0), (RATE, 1.0, 1.0), (COUNT, 0, 0), (MODE, 'b', 'b'), (FLAG, True, True),
        (NAMES, [], []), (NAMES, ['x'], ['x']), (PLACES, [1, 2.5], [1.0, 2.5]),
        (CORES, [0, 7], [0, 7]), (CORES, [], []),
    ],
)
def test_accepted(parameter, value, expected):
    found = parameter.check(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    'parameter, value, message',
    [
        (RATE, 0.5, 'parameter rate is 0.5; expected number from 1 to 120'),
        (RATE, float('nan'), 'rate is nan'),
        (RATE, True, 'rate is True'),
        (RATE, '30', "rate is '30'"),
        (COUNT, 2.0, 'net.count is 2.0; expected integer from 0 to 9'),
        (COUNT, 10, 'net.count is 10'),
        (MODE, 'c', "parameter mode is 'c'; expected one of 'a', 'b'"),
        (FLAG, 1, 'flag is 1; expected bool'),
        (NAMES, 'x', "names is 'x'; expected list of strings"),
        (CORES, [0, 8], 'cores is [0, 8]; expected list of integers from 0 to 7'),
        (CORES, [-1], 'cores is [-1]'),
        (NAMES, [1], 'expected list of strings'),
        (PLACES, None, 'places is None'),
    ],
)
def test_refused(parameter, value, message):
    with pytest.raises(ParameterError) as error:
        parameter.check(value)
    assert message in str(error.value)


def test_names_and_descriptor():
    assert COUNT.attribute == 'net_count'
    descriptor = COUNT.descriptor()
    assert descriptor.description == 'How many.'
    assert (descriptor.integer_range[0].from_value, descriptor.integer_range[0].to_value) == (0, 9)
    assert RATE.descriptor().floating_point_range[0].to_value == 120.0
    assert "'a', 'b'" in MODE.descriptor().additional_constraints

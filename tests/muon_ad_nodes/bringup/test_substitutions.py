"""Substitutions: the cases were checked against ROS's own launch."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies

from muon_ad_nodes.bringup import values
from muon_ad_nodes.bringup.substitutions import parse
from muon_ad_nodes.bringup.substitutions import perform
from muon_ad_nodes.bringup.substitutions import Scope
from muon_ad_nodes.bringup.substitutions import SubstitutionError


@pytest.fixture
def scope() -> Scope:
    variables = {'x': 'word', 'name': 'x', 'empty': '', 'seven': '7', 'list': '[1, 2]'}
    return Scope(variables, {'HOME': '/home/me'}, None, Path('/launch'))


@pytest.mark.parametrize(
    'text, expected',
    [
        ('', ''),
        ('plain $5 (text)', 'plain $5 (text)'),
        ('a$(var x)b$(var x)', 'awordbword'),
        ('$(var $(var name))', 'word'),
        ('$(var na$(var missing me))', 'x'),
        ('$(var missing default)', 'default'),
        ("$(var missing 'two words')", 'two words'),
        ('$(var missing "two $(var x)s")', 'two words'),
        ("$(var missing '')", ''),
        ('$(var empty default)', ''),
        ('$(env HOME)', '/home/me'),
        ('$(env NOPE none)', 'none'),
        ('$(dirname)/a.xml', '/launch/a.xml'),
        (r'\$(var x)', '$(var x)'),
        (r'a\b\\c', r'ab\c'),
        (r'$(var missing a\)b)', 'a)b'),
        (r"$(var missing 'it\'s')", "it's"),
    ],
)
def test_perform(scope, text, expected):
    assert perform(parse(text), scope) == expected


@given(strategies.text(alphabet='ab $()\'"\\ var\n', max_size=20))
def test_any_text_is_parsed_or_refused(text):
    try:
        parts = parse(text)
    except SubstitutionError as error:
        assert '$(' in text, error
    else:
        assert parts


@pytest.mark.parametrize(
    'text, kind, expected',
    [
        ('1', None, 1),
        ('1.5', None, 1.5),
        ('true', None, True),
        ('word', None, 'word'),
        ('', None, ''),
        ('012', None, 10),
        ('012', 'str', '012'),
        ('$(var seven)', None, 7),
        ('$(var seven)', 'str', '7'),
        ("'$(var seven)'", None, 7),
        ('$(var list)', None, [1, 2]),
        ('[a, b]', None, ['a', 'b']),
        ('[$(var seven), 8]', None, [7, 8]),
        ('[/a, /b,]', None, ['/a', '/b']),
        ('$(var empty)', None, ''),
        (': not yaml', None, ': not yaml'),
    ],
)
def test_parameter(scope, text, kind, expected):
    value = values.parameter(text, kind, scope)
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize('text', ['~', '{a: 1}', '[1, 2.5]', '[[1], [2]]', '2024-01-01'])
def test_parameter_of_no_ros_type(scope, text):
    with pytest.raises(ValueError, match='is neither a boolean'):
        values.parameter(text, None, scope)


def test_parameter_that_is_no_yaml_behind_its_substitution(scope):
    with pytest.raises(ValueError, match="add type='str'"):
        values.parameter('a: $(var x): b', None, scope)


@pytest.mark.parametrize('text', ['true', '1', 'True', ' TRUE '])
def test_true(scope, text):
    assert values.boolean(text, scope) is True


@pytest.mark.parametrize('text', ['false', '0', 'False'])
def test_false(scope, text):
    assert values.boolean(text, scope) is False


@pytest.mark.parametrize('text', ['', 'yes', '2', '$(var x)'])
def test_neither_true_nor_false(scope, text):
    with pytest.raises(ValueError, match='neither true or 1 nor false or 0'):
        values.boolean(text, scope)

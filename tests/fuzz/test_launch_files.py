"""Launch files: of the right tags with odd values, and of anything."""

import contextlib
from xml.sax.saxutils import quoteattr

from hypothesis import event
from hypothesis import given
from hypothesis import strategies as st
from odd import YAML_TEXTS

from muon_ad_nodes.bringup import substitutions
from muon_ad_nodes.bringup.__main__ import _shown
from muon_ad_nodes.bringup.launch import declared_everywhere
from muon_ad_nodes.bringup.launch import find_file
from muon_ad_nodes.bringup.launch import load
from muon_ad_nodes.bringup.parse import ACTIONS
from muon_ad_nodes.bringup.parse import LaunchError
from muon_ad_nodes.bringup.parse import parse
from muon_ad_nodes.bringup.parse import Rule
from muon_ad_nodes.bringup.parse import RULES
from muon_ad_nodes.bringup.substitutions import Scope
from muon_ad_nodes.bringup.substitutions import SubstitutionError

NAMES = sorted({name for rule in RULES.values() for name in rule.attributes})
CALLS = st.recursive(
    st.sampled_from(['a', '$(var a)', '$(env HOME)', '$(dirname)', '$(find-pkg-share x)', '']),
    lambda inner: st.builds(
        '{}{}({} {}{}'.format, st.sampled_from(['', 'b', '\\', "'", ' ']),
        st.just('$'), st.sampled_from(['var a', 'env', 'eval', 'var', 'dirname']), inner,
        st.sampled_from([')', '', '))', ' )', '")']),
    ),
    max_leaves=5,
)  # fmt: skip
VALUES = st.one_of(
    CALLS, YAML_TEXTS.filter(lambda text: len(text) < 3000),
    st.sampled_from(['true', '0', 'screen', 'muon_ad_nodes', 'supervisor', 'a' * 5000, '/', '~',
                     '1e999', 'nan', '-1', 'a=b', '"open', '[1, a]', '{a: 1}', '2001-99-99']),
)  # fmt: skip
USUAL = {
    'pkg': 'muon_ad_nodes', 'exec': 'supervisor', 'output': 'screen', 'value': '$(var a)',
    'if': 'true', 'respawn': 'true', 'namespace': 'left',
}  # fmt: skip


def written(tag: str, attributes: dict, children: list[str]) -> str:
    """An element as text."""
    words = ''.join(f' {name}={quoteattr(value)}' for name, value in attributes.items())
    return f'<{tag}{words}>{"".join(children)}</{tag}>'


def element(parent: str, tag: str, depth: int = 0) -> st.SearchStrategy:
    """Elements with the attributes that they need, odd ones at times, and fitting children."""
    rule = RULES.get(f'{parent}/{tag}') or RULES.get(tag, Rule())
    values = VALUES.map(_printable)
    each = {name: _rarely(values, USUAL.get(name, 'a')) for name in rule.attributes}
    known = st.fixed_dictionaries(
        {name: each[name] for name in rule.required},
        optional={name: each[name] for name in rule.optional if name not in ('unless', 'from')},
    )
    odd = st.dictionaries(st.sampled_from(NAMES), values, min_size=1, max_size=1)
    attributes = st.builds(lambda known, odd: {**known, **odd}, known, _rarely(odd, {}))
    inner = st.just([])
    if depth < 2 and rule.children:
        kinds = [*rule.children] * 9 + ['executable']
        inner = st.lists(
            st.sampled_from(kinds).flatmap(lambda kind: element(tag, kind, depth + 1)), max_size=2
        )
    return st.builds(written, st.just(tag), attributes, inner)


def _rarely(odd: st.SearchStrategy, usual: object) -> st.SearchStrategy:
    """Mostly the usual, or nothing would get far."""
    return st.integers(0, 11).flatmap(lambda die: odd if die == 7 else st.just(usual))


def _printable(text: str) -> str:
    return ''.join(c for c in text if c.isprintable() and c.encode(errors='ignore'))


BODY = st.lists(st.sampled_from(ACTIONS).flatmap(lambda tag: element('launch', tag)), max_size=3)
DOCUMENTS = st.one_of(
    BODY.map(lambda body: f'<launch><arg name="a" default="2"/>{"".join(body)}</launch>'.encode()),
    st.binary(max_size=60),
    st.builds(
        '<?xml version="1.0" encoding="{}"?><launch/>'.format,
        st.sampled_from(['utf-8', 'utf-16', 'nonsense', 'utf-7', 'cp1252', 'shift_jis', 'idna']),
    ).map(str.encode),
    st.integers(1, 3000).map(lambda depth: b'<launch>' + b'<group>' * depth + b'</group>' * depth
                             + b'</launch>'),
    st.just('<launch><let name="a" value="{}"/></launch>'.format('$(var ' * 2000).encode()),
)  # fmt: skip


@given(DOCUMENTS)
def test_launch_files(tmp_path, content):
    """They come to nodes whose commands can be shown, or to an error that names the file."""
    path = tmp_path / 'fuzz.launch.xml'
    path.write_bytes(content)
    try:
        for node in load(path, {'a': '1'}, {'HOME': '/'}).nodes:
            event('a node')
            assert _shown(node)
            assert not any('=' in name or not name for name in node.environment)
    except LaunchError as error:
        assert str(path) in str(error)
        assert len(str(error)) < 30_000
    with contextlib.suppress(LaunchError):
        list(declared_everywhere(parse(path)))


@given(CALLS | st.text('$()\\ \'"var a-', max_size=40))
def test_substitutions(text):
    with contextlib.suppress(SubstitutionError):
        parts = substitutions.parse(text)
        assert isinstance(substitutions.perform(parts, Scope({'a': 'x'}, {}, None, None)), str)


@given(st.text() | st.sampled_from(['a' * 5000, '/', '..', '~', '']))
def test_names_of_launch_files(name):
    with contextlib.suppress(LaunchError):
        assert find_file(name).is_file()

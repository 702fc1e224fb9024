"""What a launch file comes to: scopes, namespaces, conditions, parameters, commands."""

import os
import subprocess
import sys

import pytest

from muon_ad_nodes.bringup.launch import find_file
from muon_ad_nodes.bringup.launch import load
from muon_ad_nodes.bringup.parse import LaunchError

NODE = 'pkg="toys" exec="talker" output="screen"'


@pytest.fixture
def nodes(toys, write):
    """Return a function that evaluates a body and returns its nodes."""

    def nodes(body: str, arguments: dict[str, str] | None = None, environment=None):
        return load(write(body), arguments or {}, environment or {}).nodes

    return nodes


def test_command_line(nodes, toys):
    (node,) = nodes(
        f'<arg name="level" default="info"/>\n<node {NODE} name="a" namespace="b" '
        'args="--ros-args --log-level $(var level) --quoted \'two words\'">\n'
        '<remap from="image_raw" to="/c/image_raw"/>\n'
        '<remap from="x" to="$(var level)"/>\n</node>',
        {'level': 'debug'},
    )
    assert node.full_name == '/b/a'
    program = toys.parent.parent / 'lib' / 'toys' / 'talker'
    assert node.command([]) == [
        str(program), '--ros-args', '--log-level', 'debug', '--quoted', 'two words',
        '--ros-args', '-r', '__node:=a', '-r', '__ns:=/b',
        '-r', 'image_raw:=/c/image_raw', '-r', 'x:=debug',
    ]  # fmt: skip


def test_node_keeps_its_own_name_and_namespace_unless_given(nodes):
    (node,) = nodes(f'<node {NODE}><param name="p" value="1"/></node>')
    assert node.full_name is None
    assert node.command(['f'])[1:] == ['--ros-args', '--params-file', 'f']
    assert node.parameter_document({'p': 1}) == {'/**': {'ros__parameters': {'p': 1}}}


@pytest.mark.parametrize(
    'pushed, own, expected',
    [
        ([], 'a', '/a'),
        ([], '/a/b', '/a/b'),
        ([], '', '/'),
        (['a'], None, '/a'),
        (['a'], 'b', '/a/b'),
        (['a'], '/b', '/b'),
        (['a', 'b'], 'c/', '/a/b/c'),
        (['a', '/b'], None, '/b'),
        (['/'], 'a', '/a'),
    ],
)
def test_namespaces(nodes, pushed, own, expected):
    pushes = ''.join(f'<push_ros_namespace namespace="{name}"/>' for name in pushed)
    namespace = '' if own is None else f'namespace="{own}"'
    (node,) = nodes(f'{pushes}<node {NODE} name="n" {namespace}/>')
    assert node.namespace == expected


def test_group_scopes_variables_environment_and_namespace(nodes):
    inside, outside = nodes(
        '<let name="v" value="out"/><set_env name="E" value="out"/><set_env name="F" value="f"/>'
        '<group><let name="v" value="in"/><set_env name="E" value="in"/><unset_env name="F"/>'
        f'<push_ros_namespace namespace="g"/><node {NODE} name="$(var v)_1"/></group>'
        f'<node {NODE} name="$(var v)_2" namespace="h"/>',
        environment={'KEPT': '1'},
    )
    assert inside.full_name == '/g/in_1'
    assert inside.environment == {'KEPT': '1', 'E': 'in'}
    assert outside.full_name == '/h/out_2'
    assert outside.environment == {'KEPT': '1', 'E': 'out', 'F': 'f'}


def test_environment_of_one_node(nodes):
    first, second = nodes(
        f'<set_env name="A" value="a"/><node {NODE} name="one"><env name="B" value="$(env A)b"/>'
        f'</node><node {NODE} name="two"/><set_env name="A" value="later"/>'
    )
    assert first.environment == {'A': 'a', 'B': 'ab'}
    assert second.environment == {'A': 'a'}


def test_conditions(nodes):
    found = nodes(
        '<arg name="a" default="true"/><let name="n" value="yes" if="$(var a)"/>'
        f'<node {NODE} name="if_true" if="$(var a)"/>'
        f'<node {NODE} name="unless_true" unless="$(var a)"/>'
        f'<group unless="0"><node {NODE} name="$(var n)"/></group>'
        f'<group if="0"><node {NODE} name="never"/></group>'
    )
    assert [node.name for node in found] == ['if_true', 'yes']


def test_choice_by_looking_up_a_name_made_of_another(nodes):
    body = (
        '<let name="source_on_pc" value="pattern"/><let name="source_on_robot" value="camera"/>'
        '<arg name="platform" default="pc"/>'
        '<arg name="source" default="$(var source_on_$(var platform))"/>'
        f'<node {NODE} name="$(var source)"/>'
    )
    assert nodes(body)[0].name == 'pattern'
    assert nodes(body, {'platform': 'robot'})[0].name == 'camera'
    assert nodes(body, {'platform': 'robot', 'source': 'video'})[0].name == 'video'


def test_parameters_keep_their_order_and_types(nodes, tmp_path):
    file = tmp_path / 'p.yaml'
    file.write_text('/**: {ros__parameters: {a: 1}}\n')
    (node,) = nodes(
        f'<let name="t" value="true"/><node {NODE} name="n">'
        '<param name="a" value="1"/><param name="b" value="$(var t)"/><param name="a" value="2"/>'
        f'<param from="{file}"/><param name="s" value="007" type="str"/></node>'
    )
    assert node.parameters == ({'a': 2, 'b': True}, file, {'s': '007'})
    assert node.command(['x', 'y', 'z'])[-6:] == [
        '--params-file', 'x', '--params-file', 'y', '--params-file', 'z',
    ]  # fmt: skip


def test_include_passes_arguments_and_is_not_scoped(nodes, write):
    write(
        '<arg name="who" default="nobody"/><arg name="level"/><let name="set" value="$(var who)"/>'
        f'<node {NODE} name="$(var who)"/><node {NODE} name="at_$(var level)"/>',
        'inner.launch.xml',
    )
    body = (
        '<include file="$(dirname)/inner.launch.xml"><arg name="who" value="me"/></include>'
        f'<node {NODE} name="by_$(var set)"/>'
    )
    names = [node.name for node in nodes(body, {'level': 'top'})]
    assert names == ['me', 'at_top', 'by_me']


def test_respawn(nodes):
    never, at_once, later = nodes(
        f'<node {NODE} name="a"/><node {NODE} name="b" respawn="true"/>'
        f'<node {NODE} name="c" respawn="True" respawn_delay="2.5"/>'
    )
    assert [node.respawn_delay for node in (never, at_once, later)] == [None, 0.0, 2.5]


def test_file_by_path(write, monkeypatch):
    path = write('')
    monkeypatch.chdir(path.parent)
    assert find_file(path.name) == path


def test_file_that_is_not_there(toys):
    with pytest.raises(LaunchError, match='nope: no such'):
        find_file('nope')


def bringup(*words: object, **environment: str) -> subprocess.CompletedProcess:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, '-m', 'muon_ad_nodes.bringup', *map(str, words)],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_show_args(toys, write):
    write('<group if="0"><arg name="deep" description="deep inside"/></group>', 'inner.xml')
    path = write(
        '<arg name="size" default="$(env X 3)" description="how large"><choice value="3"/></arg>'
        '<include file="$(dirname)/inner.xml"/>'
    )
    result = bringup(path, '--show-args')
    assert result.returncode == 0
    assert result.stdout == (
        "size:=\n    how large\n    (default: '$(env X 3)'; one of 3)\n"
        'deep:=\n    deep inside\n    (required)\n'
    )


def test_printed_commands_run_in_bash(toys, write):
    path = write(
        f'<set_env name="COLOUR" value="light blue"/><unset_env name="UNWANTED"/>'
        f'<node {NODE} name="n" args="\'two words\'"><param name="p" value="it\'s"/></node>'
    )
    result = bringup(path, '--print-commands', UNWANTED='1')
    assert result.returncode == 0, result.stderr
    program = toys.parent.parent / 'lib' / 'toys' / 'talker'
    # The file of parameters lives as long as the command that reads it.
    program.write_text('#!/bin/sh\necho "$COLOUR|$UNWANTED|$1"\nfor f; do :; done\ncat "$f"\n')
    ran = subprocess.run(['bash', '-c', result.stdout], capture_output=True, text=True)
    assert ran.stdout == "light blue||two words\n{/**: {ros__parameters: {p: it's}}}\n"


def test_bad_arguments_of_the_command_line(write):
    path = write('<arg name="a" default="1"/>')
    for words, text in (
        (['a=2'], "malformed launch argument 'a=2'; expected name:=value"),
        (['b:=2'], "no argument is named 'b'; there are a"),
    ):
        result = bringup(path, *words)
        assert result.returncode == 2
        assert text in result.stderr
        assert 'Traceback' not in result.stderr

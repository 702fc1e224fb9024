"""Whatever is not in the subset is an error that names file and line."""

import pytest

from muon_ad_nodes.bringup.launch import load
from muon_ad_nodes.bringup.parse import LaunchError
from muon_ad_nodes.bringup.parse import parse

NODE = 'pkg="toys" exec="talker" output="screen"'


def node(children: str = '', attributes: str = '') -> str:
    """A node with children, each on a line of its own from the third line of the file on."""
    return f'<node {NODE} {attributes}>\n{children}\n</node>'


# Body of the launch file (its first line is the second of the file), line, text of the error.
CASES = [
    ('<executable cmd="ls"/>', 2, '<executable> in <launch> is not supported'),
    ('\n<composable_node/>', 3, '<composable_node> in <launch> is not supported'),
    ('<group scoped="false"/>', 2, "attribute 'scoped' of <group> is not supported"),
    ('<arg default="1"/>', 2, "<arg> lacks the attribute 'name'"),
    ('<let name="a"/>', 2, "<let> lacks the attribute 'value'"),
    ('words', 2, "text outside of an attribute: 'words'"),
    ('<let name="a" value="1" if="1" unless="0"/>', 2, 'has both if and unless'),
    ('<let name="a" value="1" if="maybe"/>', 2, "'maybe' is neither true or 1 nor false or 0"),
    ('<let name="a" value="$(var b)"/>', 2, "variable 'b' does not exist"),
    ('<let name="a" value="$(env MUON_AD_NOPE)"/>', 2, "variable 'MUON_AD_NOPE' does not exist"),
    ('<let name="a" value="$(eval 1 + 1)"/>', 2, 'substitution $(eval) is not supported'),
    ('<let name="a" value="$(var)"/>', 2, '$(var) takes 1 to 2 arguments, got 0'),
    ('<let name="a" value="$(dirname x)"/>', 2, '$(dirname) takes 0 arguments, got 1'),
    ('<let name="a" value="$(var b"/>', 2, 'substitution is not closed properly'),
    ('<let name="a" value="$(var b  c)"/>', 2, 'empty argument'),
    ("<let name='a' value='$(var b \"c)'/>", 2, 'quote is not closed'),
    # Seen although the group is not entered.
    ('<group if="0">\n<let name="a" value="$(nope)"/>\n</group>', 3, '$(nope) is not supported'),
    ('<let name="a" value="$(find-pkg-share nope)"/>', 2, "package 'nope' is not installed"),
    ('<arg name="a"/>', 2, "argument 'a' (no description given) is required; give it as a:=VALUE"),
    (
        '<arg name="a" default="3">\n<choice value="1"/>\n<choice value="2"/>\n</arg>',
        2,
        "argument 'a' is '3'; expected one of 1, 2",
    ),
    ('<set_env name="a=b" value="1"/>', 2, "'a=b' is not the name of an environment variable"),
    (f'<let name="a" value="{"$(var " * 60}"/>', 2, 'more than 50 substitutions'),
    ('<group>' * 60 + '</group>' * 60, 2, 'nested more than 50 deep'),
    ('<include file="$(dirname)/nope.xml"/>', 2, 'no launch file at'),
    ('<include file="$(dirname)/test.launch.xml"/>', 2, 'includes itself'),
    ('<node pkg="toys" exec="talker"/>', 2, "<node> lacks the attribute 'output'"),
    ('<node pkg="toys" exec="talker" output="log"/>', 2, "output='log'; expected 'screen'"),
    ('<node pkg="nope" exec="x" output="screen"/>', 2, "package 'nope' is not installed"),
    ('<node pkg="toys" exec="x" output="screen"/>', 2, "no executable 'x' in"),
    (f'<node {NODE} launch-prefix="gdb"/>', 2, "attribute 'launch-prefix' of <node>"),
    (f'<node {NODE} name="a b"/>', 2, "'a b' is not a node name"),
    (f'<node {NODE} namespace="9"/>', 2, "'/9' is not a namespace"),
    (f'<node {NODE} args="&quot;open"/>', 2, 'No closing quotation'),
    (f'<node {NODE} respawn="perhaps"/>', 2, "'perhaps' is neither true"),
    (f'<node {NODE} respawn="1" respawn_delay="-1"/>', 2, 'expected seconds, zero or more'),
    (f'<node {NODE} name="a"/>\n<node {NODE} namespace="/" name="a"/>', 3, 'two nodes named /a'),
    (node('<param name="p"/>'), 3, 'takes either name and value, or from'),
    (node('<param name="p" value="1" from="x"/>'), 3, 'takes either name and value, or from'),
    (node('<param name="p" value="1" type="int"/>'), 3, "type='int' is not supported"),
    (node('\n<param name="p" value="[1, a]"/>'), 4, "[1, 'a'] is neither a boolean, a number"),
    (node('<param name="p" value="{a: 1}"/>'), 3, "{'a': 1} is neither"),
    (node('<param from="/nope.yaml"/>'), 3, 'no parameter file at /nope.yaml'),
    (node('<param name="p" value="1" value-sep=","/>'), 3, "attribute 'value-sep' of <param>"),
    (node('<remap from="a"/>'), 3, "<remap> lacks the attribute 'to'"),
    (node('<param name="p" value="1">\n<param name="q" value="1"/>\n</param>'), 4, 'in <param>'),
]


@pytest.mark.parametrize('body, line, text', CASES)
def test_error_names_file_and_line(toys, write, body, line, text):
    path = write(body)
    with pytest.raises(LaunchError) as raised:
        load(path, {}, {})
    assert str(raised.value).startswith(f'{path}:{line}: ')
    assert text in str(raised.value)


@pytest.mark.parametrize(
    'content, text',
    [
        ('', ':1: malformed XML: no element found'),
        ('<launch>\n<node>\n</launch>', ':3: malformed XML: mismatched tag'),
        ('<launch>\n<let name="a" name="b"/>\n</launch>', ':2: malformed XML: duplicate attrib'),
        ('<?xml version="1.0" encoding="utf-7"?><launch/>', ':1: encoding of the XML'),
        ('<robot/>', ':1: <robot> at the top is not supported; expected <launch>'),
        ('<!DOCTYPE x [<!ENTITY y "z">]>\n<launch/>', ':1: document type declarations are not'),
    ],
)
def test_what_is_no_launch_file(tmp_path, content, text):
    path = tmp_path / 'bad.xml'
    path.write_text(content)
    with pytest.raises(LaunchError) as raised:
        parse(path)
    assert str(raised.value).startswith(f'{path}{text}')


def test_file_that_cannot_be_read(tmp_path):
    with pytest.raises(LaunchError, match='cannot read the launch file: Is a directory'):
        parse(tmp_path)


def test_unknown_argument_is_an_error_that_lists_the_known(write):
    path = write('<arg name="style" default="a"/>')
    with pytest.raises(LaunchError, match="no argument is named 'stile'; there are style"):
        load(path, {'stile': 'b'}, {})


def test_argument_of_an_include_must_be_declared_there(write):
    write('<arg name="known" default="1"/>', 'inner.launch.xml')
    path = write(
        '<arg name="outer" default="1"/>\n'
        '<include file="$(dirname)/inner.launch.xml">\n'
        '<arg name="known" value="2"/>\n'
        '<arg name="outer" value="2"/>\n'
        '</include>'
    )
    with pytest.raises(LaunchError) as raised:
        load(path, {}, {})
    assert str(raised.value).startswith(f'{path}:5: ')
    assert "declares no argument 'outer'" in str(raised.value)


def test_error_in_an_included_file_names_that_file(write):
    inner = write('\n\n<nope/>', 'inner.launch.xml')
    path = write('<include file="$(dirname)/inner.launch.xml"/>')
    with pytest.raises(LaunchError) as raised:
        load(path, {}, {})
    assert str(raised.value).startswith(f'{inner}:4: ')


def test_dirname_behind_an_include_is_refused(write):
    write('', 'inner.launch.xml')
    path = write(
        '<include file="$(dirname)/inner.launch.xml"/>\n<let name="a" value="$(dirname)"/>'
    )
    with pytest.raises(LaunchError, match=':3: .*behind an <include>'):
        load(path, {}, {})

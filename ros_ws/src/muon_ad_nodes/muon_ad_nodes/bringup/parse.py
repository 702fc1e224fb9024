"""Reads a launch file into elements that know their line, and checks them against the subset."""

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from xml.parsers import expat

from muon_ad_nodes.bringup import substitutions


class LaunchError(ValueError):
    """A launch file cannot be used; the message begins with its path and line."""


@dataclass
class Element:
    """A tag of a launch file."""

    tag: str
    attributes: dict[str, str]
    file: Path
    line: int
    children: list['Element'] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        """Return the text of an attribute as written, or None."""
        return self.attributes.get(name)

    def all(self, tag: str) -> Iterator['Element']:
        """Iterate over the children with that tag."""
        return (child for child in self.children if child.tag == tag)

    def error(self, text: str) -> LaunchError:
        """Return an error that names this place."""
        return LaunchError(f'{self.file}:{self.line}: {text}')


@dataclass(frozen=True)
class Rule:
    """Which attributes and children a tag may have; `literal` ones take no substitutions."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    literal: tuple[str, ...] = ()
    children: tuple[str, ...] = ()

    @property
    def attributes(self) -> tuple[str, ...]:
        """All attributes that the tag may have."""
        return self.required + self.optional


DEEPEST = 50
CONDITIONS = ('if', 'unless')
ACTIONS = (
    'arg', 'let', 'set_env', 'unset_env', 'group', 'push_ros_namespace', 'include', 'node',
)  # fmt: skip
ROOT = Rule(children=('launch',))
# Keyed by tag, or by parent/tag where a tag means another thing inside its parent.
RULES = {
    'launch': Rule(children=ACTIONS),
    'arg': Rule(
        ('name',),
        ('default', 'description', *CONDITIONS),
        literal=('name', 'description'),
        children=('choice',),
    ),
    'arg/choice': Rule(('value',), literal=('value',)),
    'let': Rule(('name', 'value'), CONDITIONS),
    'set_env': Rule(('name', 'value'), CONDITIONS),
    'unset_env': Rule(('name',), CONDITIONS),
    'group': Rule((), CONDITIONS, children=ACTIONS),
    'push_ros_namespace': Rule(('namespace',), CONDITIONS),
    'include': Rule(('file',), CONDITIONS, children=('arg',)),
    'include/arg': Rule(('name', 'value')),
    'node': Rule(
        ('pkg', 'exec', 'output'),
        ('name', 'namespace', 'args', 'respawn', 'respawn_delay', *CONDITIONS),
        literal=('output', 'respawn_delay'),
        children=('param', 'remap', 'env'),
    ),
    'node/param': Rule((), ('name', 'value', 'type', 'from'), literal=('type',)),
    'node/remap': Rule(('from', 'to')),
    'node/env': Rule(('name', 'value')),
}


def parse(path: Path) -> Element:
    """Return the `<launch>` element of a file.

    Raises LaunchError for a file that cannot be read, malformed XML, and whatever the subset (see
    the package's docstring) does not contain.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise LaunchError(f'{path}: cannot read the launch file: {error.strerror}') from error
    root = _elements(path, text)
    _check(root, ROOT)
    for element in root.children:
        return element
    raise root.error('there is no <launch> element')


def _elements(path: Path, text: bytes) -> Element:
    parser = expat.ParserCreate()
    root = Element('', {}, path, 1)
    stack = [root]

    def here() -> Element:
        return Element('', {}, path, parser.CurrentLineNumber)

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, attributes, path, parser.CurrentLineNumber)
        if len(stack) > DEEPEST:
            raise element.error(f'<{tag}> is nested more than {DEEPEST} deep')
        stack[-1].children.append(element)
        stack.append(element)

    def characters(data: str) -> None:
        if data.strip():
            raise here().error(f'text outside of an attribute: {data.strip()!r}')

    def doctype(*_: object) -> None:
        raise here().error('document type declarations are not supported')

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: stack.pop()
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        message = expat.ErrorString(error.code)
        raise LaunchError(f'{path}:{error.lineno}: malformed XML: {message}') from error
    except LaunchError:
        raise
    except (ValueError, LookupError) as error:
        raise LaunchError(f'{path}:1: encoding of the XML: {error}; expected utf-8') from error
    return root


def _check(parent: Element, rule: Rule) -> None:
    for child in parent.children:
        if child.tag not in rule.children:
            where = f' in <{parent.tag}>' if parent.tag else ' at the top'
            expected = ', '.join(f'<{tag}>' for tag in rule.children) or 'nothing'
            raise child.error(f'<{child.tag}>{where} is not supported; expected {expected}')
        child_rule = RULES.get(f'{parent.tag}/{child.tag}') or RULES[child.tag]
        _check_attributes(child, child_rule)
        _check(child, child_rule)


def _check_attributes(element: Element, rule: Rule) -> None:
    for name in element.attributes:
        if name not in rule.attributes:
            expected = ', '.join(rule.attributes) or 'none'
            raise element.error(
                f'attribute {name!r} of <{element.tag}> is not supported; expected {expected}'
            )
    for name in rule.required:
        if name not in element.attributes:
            raise element.error(f'<{element.tag}> lacks the attribute {name!r}')
    if all(name in element.attributes for name in CONDITIONS):
        raise element.error(f'<{element.tag}> has both if and unless')
    for name, value in element.attributes.items():
        if name in rule.literal:
            continue
        try:
            substitutions.parse(value)
        except substitutions.SubstitutionError as error:
            raise element.error(f'{name}={value!r}: {error}') from error

"""Evaluates a launch file: from its elements and arguments to the nodes to run."""

import math
import os
import re
import shlex
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path

from ament_index_python.packages import get_package_prefix
from ament_index_python.packages import get_package_share_directory
from ament_index_python.packages import PackageNotFoundError

from muon_ad.paths import is_file
from muon_ad_nodes.bringup import substitutions
from muon_ad_nodes.bringup import values
from muon_ad_nodes.bringup.parse import Element
from muon_ad_nodes.bringup.parse import LaunchError
from muon_ad_nodes.bringup.parse import parse
from muon_ad_nodes.bringup.substitutions import Scope

PACKAGE = 'muon_ad_nodes'
_NODE_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')
_NAMESPACE = re.compile(r'/|(/[A-Za-z_][A-Za-z0-9_]*)+')


@dataclass(frozen=True)
class Argument:
    """An argument that a launch file declares; `default` as written, None if it is required."""

    name: str
    default: str | None
    description: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """A node to run. Parameters are in order: files, and values from the launch file itself."""

    executable: Path
    name: str | None
    namespace: str | None
    arguments: tuple[str, ...]
    parameters: tuple[Path | dict[str, values.Value], ...]
    remaps: tuple[tuple[str, str], ...]
    environment: dict[str, str]
    respawn_delay: float | None

    @property
    def full_name(self) -> str | None:
        """Fully qualified name; None where the executable chooses its name."""
        if self.name is None:
            return None
        return f'{(self.namespace or "").rstrip("/")}/{self.name}'

    def command(self, parameter_files: list[str]) -> list[str]:
        """Return the command line, given one file per entry of `parameters`."""
        command = [str(self.executable), *self.arguments, '--ros-args']
        if self.name is not None:
            command += ['-r', f'__node:={self.name}']
        if self.namespace is not None:
            command += ['-r', f'__ns:={self.namespace}']
        for file in parameter_files:
            command += ['--params-file', file]
        for source, target in self.remaps:
            command += ['-r', f'{source}:={target}']
        return command

    def parameter_document(self, parameters: dict[str, values.Value]) -> dict:
        """Return the content of a parameter file that gives this node `parameters`.

        As in launch, the full name stands there only if the launch file gives both its parts.
        """
        known = self.name is not None and self.namespace is not None
        return {self.full_name if known else '/**': {'ros__parameters': parameters}}


@dataclass
class Launch:
    """What a launch file comes to with the given arguments; `files` leads from it to here."""

    files: tuple[Path, ...]
    arguments: dict[str, Argument] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)


def find_file(name: str) -> Path:
    """Return the launch file at a path, or of that name among this package's. Raises LaunchError.

    The suffix `.launch.xml` may be left out of a name.
    """
    path = Path(name)
    if is_file(path):
        return path.resolve()
    try:
        folder = Path(get_package_share_directory(PACKAGE)) / 'launch'
    except (PackageNotFoundError, LookupError) as error:
        raise LaunchError(
            f'{name}: no such file, and package {PACKAGE} is not installed in AMENT_PREFIX_PATH='
            f'{os.environ.get("AMENT_PREFIX_PATH", "")!r}; source the setup.bash of its workspace'
        ) from error
    for candidate in (folder / name, folder / f'{name}.launch.xml'):
        if is_file(candidate):
            return candidate
    known = ', '.join(sorted(file.name for file in folder.glob('*.launch.xml')))
    raise LaunchError(f'{name}: no such launch file; there are {known or "none"} in {folder}')


def load(path: Path, arguments: Mapping[str, str], environment: Mapping[str, str]) -> Launch:
    """Evaluate a launch file in an environment. Raises LaunchError.

    `arguments` are those of the command line; one that no visited file declares is an error.
    """
    scope = Scope(dict(arguments), dict(environment), None, path.parent)
    launch = Launch((path.resolve(),))
    _visit_all(parse(path), scope, launch)
    for name in arguments:
        if name not in launch.arguments:
            known = ', '.join(sorted(launch.arguments)) or 'none'
            raise LaunchError(f'{path}:1: no argument is named {name!r}; there are {known}')
    return launch


def _visit_all(parent: Element, scope: Scope, launch: Launch) -> None:
    for element in parent.children:
        if _applies(element, scope):
            _ACTIONS[element.tag](element, scope, launch)


def _applies(element: Element, scope: Scope) -> bool:
    for attribute, wanted in (('if', True), ('unless', False)):
        condition = element.get(attribute)
        if condition is not None:
            with _placed(element, attribute):
                return values.boolean(condition, scope) is wanted
    return True


@contextmanager
def _placed(element: Element, attribute: str) -> Iterator[None]:
    """Turn a ValueError about an attribute into one that names file and line."""
    try:
        yield
    except LaunchError:
        raise
    except ValueError as error:
        written = f'{attribute}={element.get(attribute)!r}'
        raise element.error(f'<{element.tag} {written}>: {error}') from error


def _text(element: Element, attribute: str, scope: Scope) -> str:
    with _placed(element, attribute):
        return substitutions.perform(substitutions.parse(element.attributes[attribute]), scope)


def declared_everywhere(element: Element) -> Iterator[Argument]:
    """Iterate over the arguments that a file and those it includes declare, conditions aside.

    Raises LaunchError where the name of an included file depends on an argument.
    """
    for child in element.children:
        if child.tag == 'arg':
            yield declared(child)
        elif child.tag == 'group':
            yield from declared_everywhere(child)
        elif child.tag == 'include':
            scope = Scope({}, dict(os.environ), None, child.file.parent)
            yield from declared_everywhere(parse(included_file(child, scope)))


def declared(element: Element) -> Argument:
    """Return the argument that an `<arg>` action declares."""
    choices = tuple(choice.attributes['value'] for choice in element.all('choice'))
    return Argument(
        element.attributes['name'],
        element.get('default'),
        element.get('description') or 'no description given',
        choices,
    )


def _arg(element: Element, scope: Scope, launch: Launch) -> None:
    argument = declared(element)
    if argument.name not in scope.variables:
        if argument.default is None:
            raise element.error(
                f'argument {argument.name!r} ({argument.description}) is required; '
                f'give it as {argument.name}:=VALUE'
            )
        scope.variables[argument.name] = _text(element, 'default', scope)
    value = scope.variables[argument.name]
    if argument.choices and value not in argument.choices:
        expected = ', '.join(argument.choices)
        raise element.error(f'argument {argument.name!r} is {value!r}; expected one of {expected}')
    launch.arguments.setdefault(argument.name, argument)


def _let(element: Element, scope: Scope, launch: Launch) -> None:
    scope.variables[_text(element, 'name', scope)] = _text(element, 'value', scope)


def _set_env(element: Element, scope: Scope, launch: Launch) -> None:
    scope.environment[_variable(element, scope)] = _text(element, 'value', scope)


def _unset_env(element: Element, scope: Scope, launch: Launch) -> None:
    scope.environment.pop(_text(element, 'name', scope), None)


def _variable(element: Element, scope: Scope) -> str:
    """Return the name of an environment variable that the element sets."""
    name = _text(element, 'name', scope)
    if not name or '=' in name:
        raise element.error(f'{name!r} is not the name of an environment variable')
    return name


def _group(element: Element, scope: Scope, launch: Launch) -> None:
    inner = replace(
        scope, variables=dict(scope.variables), environment=dict(scope.environment)
    )
    _visit_all(element, inner, launch)
    scope.directory = inner.directory


def _push_ros_namespace(element: Element, scope: Scope, launch: Launch) -> None:
    scope.namespace = _joined(scope.namespace, _text(element, 'namespace', scope), element)


def _joined(base: str | None, namespace: str | None, element: Element) -> str | None:
    if namespace is None:
        return base
    if base and not namespace.startswith('/'):
        namespace = f'{base.rstrip("/")}/{namespace}'
    absolute = '/' + namespace.strip('/')
    if not _NAMESPACE.fullmatch(absolute):
        raise element.error(f'{absolute!r} is not a namespace')
    return absolute


def included_file(element: Element, scope: Scope) -> Path:
    """Return the file that an `<include>` names. Raises LaunchError."""
    path = Path(_text(element, 'file', scope))
    if not is_file(path):
        raise element.error(f'no launch file at {path}')
    return path


def _include(element: Element, scope: Scope, launch: Launch) -> None:
    path = included_file(element, scope)
    if path.resolve() in launch.files:
        raise element.error(f'{path} includes itself')
    passed = {}
    for argument in element.all('arg'):
        name = _text(argument, 'name', scope)
        scope.variables[name] = _text(argument, 'value', scope)
        passed[name] = argument
    # Not scoped: what the file sets stays set behind the include, as in launch.
    scope.directory = path.parent
    inner = Launch((*launch.files, path.resolve()), nodes=launch.nodes)
    _visit_all(parse(path), scope, inner)
    scope.directory = None
    for name, argument in passed.items():
        if name not in inner.arguments:
            raise argument.error(f'{path} declares no argument {name!r}')
    launch.arguments = inner.arguments | launch.arguments


def _node(element: Element, scope: Scope, launch: Launch) -> None:
    if element.get('output') != 'screen':
        raise element.error(f"output={element.get('output')!r}; expected 'screen'")
    name = _text(element, 'name', scope) if 'name' in element.attributes else None
    if name is not None and not _NODE_NAME.fullmatch(name):
        raise element.error(f'{name!r} is not a node name')
    own = _text(element, 'namespace', scope) if 'namespace' in element.attributes else None
    extra = {
        _variable(env, scope): _text(env, 'value', scope) for env in element.all('env')
    }
    node = Node(
        executable=_executable(element, scope),
        name=name,
        namespace=_joined(scope.namespace, own, element),
        arguments=_words(element, scope),
        parameters=tuple(_parameters(element, scope)),
        remaps=tuple(
            (_text(remap, 'from', scope), _text(remap, 'to', scope))
            for remap in element.all('remap')
        ),
        environment=scope.environment | extra,
        respawn_delay=_respawn_delay(element, scope),
    )
    if node.full_name and node.full_name in [other.full_name for other in launch.nodes]:
        raise element.error(f'there are two nodes named {node.full_name}')
    launch.nodes.append(node)


def _executable(element: Element, scope: Scope) -> Path:
    package = _text(element, 'pkg', scope)
    try:
        folder = Path(get_package_prefix(package)) / 'lib' / package
    except (PackageNotFoundError, LookupError, ValueError) as error:
        raise element.error(f'package {package!r} is not installed: {error}') from error
    path = folder / _text(element, 'exec', scope)
    if not is_file(path) or not os.access(path, os.X_OK):
        known = ', '.join(sorted(file.name for file in folder.glob('*'))) or 'none'
        raise element.error(f'no executable {path.name!r} in {folder}; there are {known}')
    return path


def _words(element: Element, scope: Scope) -> tuple[str, ...]:
    """Split `args` at spaces; what a substitution gives is never split."""
    words: list[str] = []
    word: str | None = None
    with _placed(element, 'args'):
        for part in substitutions.parse(element.get('args') or ''):
            if not isinstance(part, str):
                word = (word or '') + substitutions.perform((part,), scope)
                continue
            if part[:1].isspace() and word is not None:
                words.append(word)
                word = None
            for index, token in enumerate(shlex.split(part)):
                if index:
                    words.append(word or '')
                    word = None
                word = (word or '') + token
            if part[-1:].isspace() and word is not None:
                words.append(word)
                word = None
    return tuple(words if word is None else [*words, word])


def _parameters(element: Element, scope: Scope) -> Iterator[Path | dict[str, values.Value]]:
    """Yield parameter files and, gathered, the values between two of them."""
    gathered: dict[str, values.Value] = {}
    for param in element.all('param'):
        if set(param.attributes) == {'from'}:
            if gathered:
                yield gathered
                gathered = {}
            yield _parameter_file(param, scope)
        elif set(param.attributes) - {'type'} == {'name', 'value'}:
            with _placed(param, 'value'):
                value = values.parameter(param.attributes['value'], param.get('type'), scope)
            gathered[_text(param, 'name', scope)] = value
        else:
            raise param.error('<param> takes either name and value, or from')
    if gathered:
        yield gathered


def _parameter_file(param: Element, scope: Scope) -> Path:
    path = Path(_text(param, 'from', scope))
    if not is_file(path):
        raise param.error(f'no parameter file at {path}')
    return path


def _respawn_delay(element: Element, scope: Scope) -> float | None:
    """Return after how many seconds a node that ended is started again; None for never."""
    respawn = element.get('respawn')
    if respawn is None:
        return None
    with _placed(element, 'respawn'):
        if not values.boolean(respawn, scope):
            return None
    text = element.get('respawn_delay') or '0'
    with _placed(element, 'respawn_delay'):
        delay = float(text)
        if not (math.isfinite(delay) and delay >= 0):
            raise ValueError('expected seconds, zero or more')
    return delay


_ACTIONS: dict[str, Callable[[Element, Scope, Launch], None]] = {
    'arg': _arg,
    'let': _let,
    'set_env': _set_env,
    'unset_env': _unset_env,
    'group': _group,
    'push_ros_namespace': _push_ros_namespace,
    'include': _include,
    'node': _node,
}

"""The substitutions of launch files: `$(name argument ...)` inside text.

The grammar is that of launch's frontend: arguments are separated by one space and may be quoted
and nested; a backslash keeps the character behind it from having a meaning.
"""

import os
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from ament_index_python.packages import PackageNotFoundError


class SubstitutionError(ValueError):
    """A substitution is malformed, unknown, or has no value."""


@dataclass(frozen=True)
class Call:
    """A substitution with its arguments."""

    name: str
    arguments: tuple['Parts', ...]


Part = str | Call
Parts = tuple[Part, ...]
# Least and most arguments of each substitution.
COUNTS = {'var': (1, 2), 'env': (1, 2), 'find-pkg-share': (1, 1), 'dirname': (0, 0)}
# More can only be nested without end.
MOST = 50
_NAME = frozenset('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-')


def parse(text: str) -> Parts:
    """Split `text` into plain text and substitutions. Raises SubstitutionError."""
    if text.count('$(') > MOST:
        raise SubstitutionError(f'more than {MOST} substitutions in one text')
    parts, end = _parts(text, 0, stop='')
    return parts or ('',)


def _parts(text: str, at: int, stop: str) -> tuple[Parts, int]:
    """Read parts from `at` up to an unescaped character of `stop`."""
    parts: list[Part] = []
    plain = ''
    while at < len(text) and text[at] not in stop:
        if text.startswith('$(', at):
            call, at = _call(text, at)
            parts += [plain, call] if plain else [call]
            plain = ''
        elif text[at] == '\\' and at + 1 < len(text) and text[at + 1] != '\n':
            plain += text[at + 1]
            at += 2
        else:
            plain += text[at]
            at += 1
    return tuple([*parts, plain] if plain else parts), at


def _call(text: str, start: int) -> tuple[Call, int]:
    at = start + len('$(')
    begin = at
    while at < len(text) and text[at] in _NAME:
        at += 1
    name = text[begin:at]
    arguments = []
    while text.startswith(' ', at):
        argument, at = _argument(text, at + 1)
        arguments.append(argument)
    if not text.startswith(')', at):
        raise SubstitutionError(f'substitution is not closed properly: {text[start:]!r}')
    if name not in COUNTS:
        known = ', '.join(f'$({known})' for known in COUNTS)
        raise SubstitutionError(f'substitution $({name}) is not supported; expected {known}')
    least, most = COUNTS[name]
    if not least <= len(arguments) <= most:
        wanted = f'{least}' if least == most else f'{least} to {most}'
        raise SubstitutionError(f'$({name}) takes {wanted} arguments, got {len(arguments)}')
    return Call(name, tuple(arguments)), at + 1


def _argument(text: str, at: int) -> tuple[Parts, int]:
    quote = text[at : at + 1]
    if quote in ('"', "'"):
        parts, end = _parts(text, at + 1, stop=quote)
        if end == len(text):
            raise SubstitutionError(f'quote is not closed: {text[at:]!r}')
        return parts, end + 1
    parts, end = _parts(text, at, stop=' ()"\'')
    if not parts:
        raise SubstitutionError(f'empty argument: {text[at:]!r}; quote it if it is meant')
    return parts, end


@dataclass
class Scope:
    """What substitutions refer to at one place of a launch file.

    `directory` is the folder of the launch file, or None after an `<include>` (see the package).
    """

    variables: dict[str, str]
    environment: dict[str, str]
    namespace: str | None
    directory: Path | None


def perform(parts: Parts, scope: Scope) -> str:
    """Return the text with its substitutions carried out. Raises SubstitutionError."""
    return ''.join(
        part if isinstance(part, str) else _PERFORM[part.name](scope, *_texts(part, scope))
        for part in parts
    )


def _texts(call: Call, scope: Scope) -> list[str]:
    return [perform(argument, scope) for argument in call.arguments]


def _look_up(kind: str, values: Mapping[str, str], name: str, default: str | None) -> str:
    value = values.get(name, default)
    if value is None:
        raise SubstitutionError(f'{kind} {name!r} does not exist')
    return value


def _var(scope: Scope, name: str, default: str | None = None) -> str:
    return _look_up('variable', scope.variables, name, default)


def _env(scope: Scope, name: str, default: str | None = None) -> str:
    return _look_up('environment variable', scope.environment, name, default)


def _find_pkg_share(scope: Scope, package: str) -> str:
    try:
        return get_package_share_directory(package)
    except (PackageNotFoundError, LookupError, ValueError) as error:
        searched = os.environ.get('AMENT_PREFIX_PATH', '')
        raise SubstitutionError(
            f'package {package!r} is not installed in AMENT_PREFIX_PATH={searched!r}; '
            'source the setup.bash of its workspace'
        ) from error


def _dirname(scope: Scope) -> str:
    if scope.directory is None:
        raise SubstitutionError(
            '$(dirname) behind an <include> is the folder of the included file in launch; '
            'put it in a <let> before the <include>'
        )
    return str(scope.directory)


_PERFORM: dict[str, Callable[..., str]] = {
    'var': _var,
    'env': _env,
    'find-pkg-share': _find_pkg_share,
    'dirname': _dirname,
}

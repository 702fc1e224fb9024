"""YAML that others wrote: one kind of error for all that can be wrong, and quotes of bounded size.

PyYAML lets through whatever a value's own conversion raises, as for the date 2001-99-99 or the
tag `!!int` before nothing, and an alias within an alias unfolds to gigabytes once it is printed.
"""

import reprlib
from pathlib import Path

import yaml

_QUOTE = reprlib.Repr()
_QUOTE.maxstring = _QUOTE.maxother = _QUOTE.maxlong = 120
_QUOTE.maxlist = _QUOTE.maxtuple = _QUOTE.maxdict = 12
_QUOTE.maxlevel = 3


class DocumentError(ValueError):
    """A text is not YAML that can be read."""


def parse_document(text: str) -> object:
    """Return what a YAML text holds, of plain types only. Raises DocumentError."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DocumentError(f'not readable as YAML: {error}') from error
    except RecursionError as error:
        raise DocumentError('not readable as YAML: nested too deeply') from error


def read_document(path: Path) -> object:
    """Return what a YAML file in UTF-8 holds. Raises DocumentError, also where it is missing."""
    try:
        text = path.read_text(encoding='utf-8')
    except OSError as error:
        raise DocumentError(f'cannot be read: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise DocumentError(f'not readable as YAML: {error}') from error
    return parse_document(text)


def quoted(value: object) -> str:
    """Return the value as an error message may quote it: like repr, but never long."""
    return _QUOTE.repr(value)

"""Parameter values of launch files, in the types that launch gives them."""

from muon_ad.documents import DocumentError
from muon_ad.documents import parse_document
from muon_ad.documents import quoted
from muon_ad_nodes.bringup import substitutions
from muon_ad_nodes.bringup.substitutions import Scope

Scalar = bool | int | float | str
Value = Scalar | list[bool] | list[int] | list[float] | list[str]


def parameter(text: str, kind: str | None, scope: Scope) -> Value:
    """Return the value that `<param value="text" type="kind">` stands for.

    With `kind` 'str' the text is kept as it is; with None it is read as YAML, before its
    substitutions are carried out and, where there are any, again after. Raises ValueError.
    """
    if kind == 'str':
        return substitutions.perform(substitutions.parse(text), scope)
    if kind is not None:
        raise ValueError(f"type={kind!r} is not supported; expected 'str' or no type")
    try:
        value = _as_yaml(text)
    except DocumentError:
        value = text
    if not isinstance(value, list):
        return _uniform(_performed(value, scope))
    return _uniform([_performed(item, scope) for item in value])


def _as_yaml(text: str) -> object:
    return parse_document(text) if text else ''


def _performed(value: object, scope: Scope) -> object:
    """Carry out the substitutions of a text and read the result as YAML, if there are any."""
    if not isinstance(value, str):
        return value
    parts = substitutions.parse(value)
    text = substitutions.perform(parts, scope)
    if all(isinstance(part, str) for part in parts):
        return text
    try:
        return _as_yaml(text)
    except DocumentError as error:
        raise ValueError(f"{text!r} is not YAML; add type='str' if it is text") from error


def _uniform(value: object) -> Value:
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        kinds = {type(item) for item in value}
        if len(kinds) <= 1 and kinds <= {bool, int, float, str}:
            return value
    raise ValueError(
        f'{quoted(value)} is neither a boolean, a number or a text nor a list of one of these'
    )


def boolean(text: str, scope: Scope) -> bool:
    """Return what a condition or switch says: true, 1, false or 0. Raises ValueError."""
    said = substitutions.perform(substitutions.parse(text), scope).strip().lower()
    if said in ('true', '1'):
        return True
    if said in ('false', '0'):
        return False
    raise ValueError(f'{said!r} is neither true or 1 nor false or 0')

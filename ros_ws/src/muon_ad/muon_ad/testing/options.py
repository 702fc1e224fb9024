"""Options of the fixtures: names that are not known, and one where several are meant."""

import inspect
from collections.abc import Callable
from collections.abc import Iterable
from dataclasses import fields


def check_names(what: str, given: Iterable[str], *takers: Callable) -> None:
    """Raise TypeError that names `what` for an option that none of `takers` has.

    Options are the parameters by keyword of a function, and the fields of a dataclass.
    """
    known: list[str] = []
    for taker in takers:
        if isinstance(taker, type):
            known += [field.name for field in fields(taker)]
        else:
            known += [
                one.name for one in inspect.signature(taker).parameters.values()
                if one.kind is one.KEYWORD_ONLY
            ]
    if unknown := sorted(set(given) - set(known)):
        raise TypeError(
            f'{what} has no option {", ".join(unknown)}; it takes {", ".join(sorted(known))}'
        )


def listed(value: str | Iterable[str]) -> list[str]:
    """Return names as a list; a single one may come without."""
    return [value] if isinstance(value, str) else list(value)

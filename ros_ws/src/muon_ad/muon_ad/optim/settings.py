"""Checks of the settings of parameter groups, with errors that say what was expected."""

import math
from collections.abc import Sequence


def check_range(
    name: str, value: float, low: float, high: float = math.inf, positive: bool = False
) -> None:
    """Raise ValueError unless low <= value < high (with `positive`: low < value)."""
    inside = low < value if positive else low <= value
    if not inside or not value < high:      # NaN fails both
        bounds = f'{"above" if positive else "at least"} {low:g}'
        bounds += ' and finite' if high == math.inf else f' and below {high:g}'
        raise ValueError(f'{name} is {value}; expected {bounds}')


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f'{name} is {value!r}; expected one of {", ".join(choices)}')

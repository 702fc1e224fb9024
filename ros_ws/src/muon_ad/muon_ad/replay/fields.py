"""Messages that are neither pictures nor detections, compared field by field."""

from collections.abc import Iterator
from dataclasses import fields
from dataclasses import is_dataclass
from typing import Any

import numpy as np


def compare_fields(expected: Any, got: Any) -> tuple[str, float, list[str]]:
    """Compare two messages of one type, of a bag.

    Returns the number that differs most (its name and by how much; '' and 0 where none does), and
    what is not the same otherwise: texts, flags, lengths. The stamp of the header is left out, as
    results are found by it; NaN equals NaN.
    """
    worst, most, problems = '', 0.0, []
    for name, before, now in _leaves('', expected, got):
        if isinstance(before, str | bool | np.bool_ | bytes):
            if before != now:
                problems.append(f'{name} is {now!r}; expected {before!r}')
            continue
        first, second = np.asarray(before), np.asarray(now)
        if first.shape != second.shape:
            problems.append(f'{name} has {second.size} values; expected {first.size}')
            continue
        apart = _apart(first, second)
        if apart > most:
            worst, most = name, apart
    return worst, most, problems


def _leaves(name: str, expected: Any, got: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the names of the fields that hold values, with both values."""
    if is_dataclass(expected):
        for field in fields(expected):
            inner = f'{name}.{field.name}'.lstrip('.')
            if inner != 'header.stamp':
                pair = (getattr(each, field.name) for each in (expected, got))
                yield from _leaves(inner, *pair)
    elif isinstance(expected, list) and len(expected) == len(got):
        for number, pair in enumerate(zip(expected, got, strict=True)):
            yield from _leaves(f'{name}[{number}]', *pair)
    elif isinstance(expected, list):
        yield f'{name}.length', len(expected), len(got)
    else:
        yield name, expected, got


def _apart(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest difference of numbers; endless where just one is NaN or endless."""
    same = (first == second) | ((first != first) & (second != second))
    if same.all():
        return 0.0
    apart = np.abs(first.astype(np.float64) - second.astype(np.float64))[~same]
    return float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max())

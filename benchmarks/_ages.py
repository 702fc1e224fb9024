"""Ages of results, from the stamps of their frames: percentiles, misses, and a chart of them."""

from collections.abc import Mapping
from collections.abc import Sequence

import cv2
import numpy as np
from _common import console
from _common import OUT
from _common import ROOT

from muon_ad.chart import line_chart

# What the charts show, closer where the tail is.
PERCENTS = (*range(0, 90, 5), *range(90, 100), 99.5, 99.9)


def ages_ms(results: Sequence[tuple[int, int]], begin_ns: int, end_ns: int) -> np.ndarray:
    """Return the ages on arrival of results (stamp, arrival) whose frame is due in a window."""
    return np.array([
        (arrived - stamp) * 1e-6 for stamp, arrived in results if begin_ns <= stamp < end_ns
    ])


def figures(ages: np.ndarray, seconds: float, fps: float, deadline_ms: float) -> dict:
    """Return rate, percentiles and misses of results over a window.

    A frame is missed unless its result is there within the deadline: late, lost and skipped alike.
    """
    due = round(seconds * fps)
    return {
        'fps': len(ages) / seconds,
        'p50_ms': float(np.percentile(ages, 50)) if len(ages) else None,
        'p99_ms': float(np.percentile(ages, 99)) if len(ages) else None,
        'missed_percent': 100.0 * max(due - int((ages <= deadline_ms).sum()), 0) / due,
    }


def draw(name: str, *charts: np.ndarray) -> None:
    """Write charts, one below the other, to out/bench/<name>.png."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f'{name}.png'
    cv2.imwrite(str(path), np.vstack(charts)[..., ::-1])
    console.print(f'picture: {path.relative_to(ROOT)}')


def distribution(title: str, ages: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return a chart of the percentiles of ages, a line each."""
    lines = {
        name: (PERCENTS, np.percentile(values, PERCENTS))
        for name, values in ages.items() if len(values)
    }
    return line_chart(title, 'percent of the results', 'age at most (ms)', lines, (960, 460))

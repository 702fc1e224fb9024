"""Whether a figure that was sampled over time grows: robust, and decided without ROS.

The slope is Theil and Sen's, the median of the slopes of all pairs of samples: up to 29 % of the
samples may be anything (Sen 1968). Growth is that slope over the whole span. It is a trend where
it exceeds what is tolerated, and three times the scatter about the line, and does not stop: the
second half of the span must grow by itself, at no less than a third of the slope of the whole,
as a cache that fills up is no leak.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_SAMPLES = 20
SCATTERS = 3.0
STILL_GROWS = 1 / 3
# Pairs of so many samples are looked at; more are thinned out evenly.
MOST_SAMPLES = 600


@dataclass(frozen=True)
class Trend:
    """What was found: growth over the span, in the figure's unit, and whether that is too much."""

    growth: float
    per_hour: float
    scatter: float
    grows: bool


def trend(seconds: Sequence[float], values: Sequence[float], tolerated: float) -> Trend | None:
    """Judge samples taken at `seconds` (ascending); None for fewer than LEAST_SAMPLES.

    `tolerated` is the growth over the span that is no concern, in the unit of `values`.
    """
    if len(seconds) < LEAST_SAMPLES:
        return None
    step = -(-len(seconds) // MOST_SAMPLES)
    times = np.asarray(seconds, np.float64)[::step]
    figures = np.asarray(values, np.float64)[::step]
    slope = theil_sen(times, figures)
    growth = slope * (times[-1] - times[0])
    rest = figures - slope * times
    scatter = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
    half = len(times) // 2
    goes_on = theil_sen(times[half:], figures[half:]) > slope * STILL_GROWS
    grows = growth > max(tolerated, SCATTERS * scatter) and goes_on
    return Trend(growth, slope * 3600, scatter, bool(grows))


def theil_sen(times: np.ndarray, values: np.ndarray) -> float:
    """Return the median slope over all pairs of samples, whose times differ."""
    first, second = np.triu_indices(len(times), 1)
    return float(np.median((values[second] - values[first]) / (times[second] - times[first])))

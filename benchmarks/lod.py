"""Claim: choosing the variant of each frame keeps the deadline like the small variant does, and
draws better pictures.

Replays benchmarks/lod_traces.json (measured by `benchmarks/_lod_record.py`: what each variant of
models/style_default took, at one and the same moment, while loads came and went) through a model
of the style transfer node: a camera, a slot for the newest frame, one thread that works on it. The
variants take the times of the trace; around them are 5 ms until a frame arrives and 3 ms until a
result is out. Compared are each variant by itself, the choice of muon_ad.runtime.lod, with the
node's defaults, and the best that anyone could choose for each frame who knew what each variant
will take. A round is one trace; nothing is random, so that every run gives the same figures.

In time are results within the deadline, of all frames that the camera sent: the others were late,
or dropped for a newer one. Quality is the GFLOP of the variant over those of the largest one, for
frames in time, and 0 for all others, since the package has no measured quality of each variant: it
is 1 where every frame is drawn in time at 640x480, and 0.25 where it is at 320x240.

How to read it, at 10 frames a second and a deadline of 100 ms: `..._vs_large` and `..._vs_small`
are ours over those of a variant by itself: above 1 is better. `quality_of_possible` is ours over
that of the choice that knows the future. The picture out/bench/lod.png shows the same over other
deadlines, and a trace.
"""

import json
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

import cv2
import numpy as np
from _common import console
from _common import finish
from _common import OUT
from _common import parser
from _common import ratio
from _common import ROOT
from _common import run
from _common import shown
from _common import spread
from _common import table

from muon_ad.chart import line_chart
from muon_ad.runtime.lod import CameraPeriod
from muon_ad.runtime.lod import LodController

TRACES = ROOT / 'benchmarks' / 'lod_traces.json'
ARRIVAL_S, REST_S = 0.005, 0.003
FPS, DEADLINE_MS = 10.0, 100.0
DEADLINES_MS = (40, 50, 60, 70, 80, 100, 120, 150, 200, 300)
QUICK_DEADLINES_MS = (60, 100, 200)
MEASURED = 8            # samples at the beginning, from which the node learns what variants cost
CHOSEN, POSSIBLE = 'chosen', 'possible'

# Takes the age of a frame in ms, the moment in s and how many frames have come; returns a variant.
Policy = Callable[[float, float, int], int]


@dataclass(frozen=True)
class Trace:
    """What each variant takes over time: `at_s` [N], `ms` [N, variants]."""

    at_s: np.ndarray
    ms: np.ndarray

    @property
    def seconds(self) -> float:
        """How long the trace is."""
        return float(self.at_s[-1])

    @property
    def costs_ms(self) -> list[float]:
        """What the node measures of the variants before it starts."""
        return np.median(self.ms[:MEASURED], axis=0).tolist()

    def at(self, now_s: float) -> np.ndarray:
        """Return what each variant takes at a moment, ms."""
        return self.ms[min(int(np.searchsorted(self.at_s, now_s)), len(self.ms) - 1)]


@dataclass
class Outcome:
    """What became of the frames: the variants and ages of results, in order, and the offered."""

    deadline_ms: float
    offered: int
    moments_s: list[float] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    ages_ms: list[float] = field(default_factory=list)

    def figures(self, qualities: Sequence[float], seconds: float) -> dict[str, float]:
        """Return what is reported, given the quality of each variant."""
        good = [
            qualities[level] for level, age in zip(self.levels, self.ages_ms, strict=True)
            if age <= self.deadline_ms
        ]
        late = len(self.levels) - len(good)
        return {
            'in_time_percent': 100 * len(good) / self.offered,
            'late_percent': 100 * late / self.offered,
            'dropped_percent': 100 * (self.offered - len(self.levels)) / self.offered,
            'quality': sum(good) / self.offered,
            'switches_per_minute': int(np.count_nonzero(np.diff(self.levels))) / seconds * 60,
        }


def replay(
    trace: Trace, choose: Policy, fps: float, deadline_ms: float,
    observe: Callable[[float, float], None] = lambda *_: None,
) -> Outcome:
    """Run a camera and a node over a trace; `observe` hears what inference and the rest took."""
    stamps = np.arange(0, trace.seconds, 1 / fps)
    arrivals = stamps + ARRIVAL_S
    outcome = Outcome(deadline_ms, len(stamps))
    now, taken = 0.0, 0
    while taken < len(stamps):
        now = max(now, arrivals[taken])
        taken = int(np.searchsorted(arrivals, now, side='right'))
        stamp = stamps[taken - 1]
        level = choose((now - stamp) * 1e3, now, taken)
        infer_ms = float(trace.at(now)[level])
        observe(infer_ms, REST_S * 1e3)
        now += infer_ms * 1e-3 + REST_S
        outcome.moments_s.append(now)
        outcome.levels.append(level)
        outcome.ages_ms.append((now - stamp) * 1e3)
    return outcome


def chosen(trace: Trace, fps: float, deadline_ms: float) -> Outcome:
    """Replay a trace with the suite's choice."""
    controller, period = LodController(trace.costs_ms), CameraPeriod()

    def choose(age_ms: float, now_s: float, received: int) -> int:
        return controller.choose(deadline_ms - age_ms, period.update(now_s, received))

    return replay(trace, choose, fps, deadline_ms, controller.observe)


def possible(trace: Trace, fps: float, deadline_ms: float) -> Outcome:
    """Replay a trace with the best variant for each frame, known beforehand."""

    def choose(age_ms: float, now_s: float, _received: int) -> int:
        given_ms = min(deadline_ms - age_ms, 1e3 / fps) - REST_S * 1e3
        fits = np.flatnonzero(trace.at(now_s) <= given_ms)
        return int(fits[0]) if len(fits) else len(trace.costs_ms) - 1

    return replay(trace, choose, fps, deadline_ms)


def fixed(level: int) -> Callable[[Trace, float, float], Outcome]:
    """Return the replay of a trace with one variant."""
    return lambda trace, fps, deadline_ms: replay(trace, lambda *_: level, fps, deadline_ms)


def load() -> tuple[dict[str, float], list[Trace], dict]:
    """Return the quality of each variant, best first, the traces, and what made them."""
    about = json.loads(TRACES.read_text())
    gflops = about['gflops']
    best = max(gflops.values())
    traces = [
        Trace(np.array(each['at_s']), np.array([each['ms'][name] for name in gflops]).T)
        for each in about.pop('traces')
    ]
    return {name: value / best for name, value in gflops.items()}, traces, about


def measure(
    qualities: dict[str, float], traces: list[Trace], deadline_ms: float
) -> dict[str, dict[str, dict]]:
    """Return for each of those compared the spread of each figure over the traces."""
    who = {name: fixed(level) for level, name in enumerate(qualities)}
    who |= {CHOSEN: chosen, POSSIBLE: possible}
    found = {}
    for name, simulate in who.items():
        rounds = [
            simulate(trace, FPS, deadline_ms).figures([*qualities.values()], trace.seconds)
            for trace in traces
        ]
        found[name] = {key: spread([each[key] for each in rounds]) for key in rounds[0]}
    return found


def compare(found: dict[str, dict[str, dict]]) -> dict[str, dict]:
    """Return the ratios: the suite's choice over the largest and smallest variant by itself."""

    def over(figure: str, other: str) -> dict:
        return ratio(found[CHOSEN][figure]['rounds'], found[other][figure]['rounds'])

    large, *_, small = (name for name in found if name not in (CHOSEN, POSSIBLE))
    return {
        'in_time_percent': found[CHOSEN]['in_time_percent'],
        'switches_per_minute': found[CHOSEN]['switches_per_minute'],
        'in_time_vs_large': over('in_time_percent', large),
        'in_time_vs_small': over('in_time_percent', small),
        'quality_vs_large': over('quality', large),
        'quality_vs_small': over('quality', small),
        'quality_of_possible': over('quality', POSSIBLE),
    }


def draw(by_deadline: dict[float, dict[str, dict[str, dict]]], names: list[str], trace: Trace) \
        -> None:
    """Write out/bench/lod.png."""
    size = 960, 400

    def lines(figure: str) -> dict[str, tuple[list[float], list[float]]]:
        return {
            who: ([*by_deadline], [each[who][figure]['median'] for each in by_deadline.values()])
            for who in next(iter(by_deadline.values()))
        }

    outcome = chosen(trace, FPS, DEADLINE_MS)
    times = {name: (trace.at_s, trace.ms[:, level]) for level, name in enumerate(names)}
    times['age of the result, chosen'] = (outcome.moments_s, outcome.ages_ms)
    times['deadline'] = ([0, trace.seconds], [DEADLINE_MS, DEADLINE_MS])
    chart = np.vstack([
        line_chart(f'Frames in time, {FPS:g} a second, under changing load', 'deadline (ms)',
                   'in time (%)', lines('in_time_percent'), size),
        line_chart('Quality (GFLOP over those of the best variant; 0 where not in time)',
                   'deadline (ms)', 'mean quality', lines('quality'), size),
        line_chart('One trace: what each variant takes, and the results of the choice', 's', 'ms',
                   times, size),
    ])
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / 'lod.png'
    cv2.imwrite(str(path), chart[..., ::-1])
    console.print(f'picture: {path.relative_to(ROOT)}')


def main() -> None:
    """Replay, show and write."""
    options = parser(__doc__).parse_args()
    qualities, traces, about = load()
    deadlines = QUICK_DEADLINES_MS if options.quick else DEADLINES_MS
    by_deadline = {each: measure(qualities, traces, each) for each in deadlines}
    found = by_deadline[int(DEADLINE_MS)]
    filled = table(
        f'Replay of {len(traces)} traces, {FPS:g} frames a second, deadline {DEADLINE_MS:g} ms',
        'who', 'in time %', 'late %', 'dropped %', 'quality', 'switches a minute',
    )
    for name, figures in found.items():
        cells = (shown(value, digits) for value, digits in zip(figures.values(), (1, 1, 1, 2, 1),
                                                               strict=True))
        filled.add_row(name, *cells)
    draw(by_deadline, [*qualities], traces[0])
    finish(
        'lod', filled, compare(found),
        {f'{deadline:g} ms': each for deadline, each in by_deadline.items()},
        recorded=about,
        settings={'fps': FPS, 'deadline_ms': DEADLINE_MS, 'quick': options.quick},
    )


if __name__ == '__main__':
    run(main)

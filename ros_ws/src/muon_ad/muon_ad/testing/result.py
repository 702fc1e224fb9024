"""What came of a bag in a test, and the limits it can be held against."""

import shutil
from collections import Counter
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np

from muon_ad.replay import pictures
from muon_ad.replay import report
from muon_ad.replay.compare import compare_recordings
from muon_ad.replay.compare import Comparison
from muon_ad.replay.compare import Tolerances
from muon_ad.replay.record import read_recording


@dataclass
class Outcome:
    """One image that went in, and what came of it.

    `number` counts the images of `topic`; `stamp_ns` is that of its header, `time_ns` when it was
    recorded. `outputs` has the results by topic; `latency_ms` is how long the last of them took.
    `dropped` says why there is none: empty where all is well.
    """

    topic: str
    number: int
    time_ns: int
    stamp_ns: int
    latency_ms: float = 0.0
    dropped: str = ''
    outputs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f'image {self.number} of {self.topic} (stamp {self.stamp_ns * 1e-9:.3f} s)'


@dataclass
class Result:
    """A whole bag. The `assert_...` methods raise AssertionError, and name the worst image.

    `recording` is an MCAP with the results, for `assert_matches` and for Foxglove; `notes` are
    lines about what was left out. `update_goldens` is pytest's option of that name.
    """

    bag: Path
    recording: Path
    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    update_goldens: bool = False

    @property
    def delivered(self) -> list[Outcome]:
        """Images of which every result came."""
        return [outcome for outcome in self.outcomes if not outcome.dropped]

    @property
    def rate_hz(self) -> float:
        """Images a second that the work itself allows, one after the other."""
        spent_ms = sum(outcome.latency_ms for outcome in self.delivered)
        return len(self.delivered) / spent_ms * 1e3 if spent_ms > 0 else 0.0

    def outputs(self, topic: str) -> list[Any]:
        """Return the results on `topic`, in the order of the images."""
        return [outcome.outputs[topic] for outcome in self.outcomes if topic in outcome.outputs]

    def assert_no_drops(self, at_most: int = 0) -> None:
        """Every image gave every result; or all but `at_most` did."""
        __tracebackhide__ = True
        dropped = [outcome for outcome in self.outcomes if outcome.dropped]
        if len(dropped) > at_most or not self.outcomes:
            reasons = Counter(outcome.dropped for outcome in dropped).most_common(3)
            _fail(
                f'{len(dropped)} of {len(self.outcomes)} images were dropped; the limit is '
                f'{at_most} (and at least one image)',
                *(f'{count} times: {reason}' for reason, count in reasons),
                *(f'first: {outcome}' for outcome in dropped[:1]), *self.notes,
            )

    def assert_latency(
        self, *, p50_ms: float | None = None, p99_ms: float | None = None,
        max_ms: float | None = None,
    ) -> None:
        """The time from an image to the last of its results keeps the limits that are given."""
        __tracebackhide__ = True
        delivered = self._some('latency')
        spent = [outcome.latency_ms for outcome in delivered]
        worst = max(delivered, key=lambda outcome: outcome.latency_ms)
        for name, percent, limit in (
            ('p50', 50, p50_ms), ('p99', 99, p99_ms), ('maximum', 100, max_ms)
        ):
            value = float(np.percentile(spent, percent))
            if limit is not None and not value <= limit:
                _fail(f'latency {name} is {value:.1f} ms; the limit is {limit:g} ms',
                      f'worst: {worst}, {worst.latency_ms:.1f} ms')

    def assert_rate(self, at_least_hz: float) -> None:
        """So many images a second can be worked on, one after the other."""
        __tracebackhide__ = True
        slowest = max(self._some('rate'), key=lambda outcome: outcome.latency_ms)
        if not self.rate_hz >= at_least_hz:
            _fail(f'rate is {self.rate_hz:.1f} images a second; the limit is {at_least_hz:g}',
                  f'slowest: {slowest}, {slowest.latency_ms:.1f} ms')

    def assert_detects(
        self, label: str, *, at_least: int = 1, at_most: int | None = None, score: float = 0.0,
        distance_m: tuple[float, float] | None = None,
    ) -> None:
        """From `at_least` to `at_most` images show a `label`.

        Counts the detections of at least that `score`, and where `distance_m` (least, most) is
        given, of a known position at that distance from the camera.
        """
        __tracebackhide__ = True
        best = {id(outcome): _best(outcome, label) for outcome in self.outcomes}
        showing = [
            outcome for outcome in self.outcomes
            if any(_counts(found, label, score, distance_m) for found in _detections(outcome))
        ]
        most = len(self.outcomes) if at_most is None else at_most
        if at_least <= len(showing) <= most:
            return
        wanted = f'{label!r} of score {score:g} or more'
        if distance_m is not None:
            wanted += f' at {distance_m[0]:g} to {distance_m[1]:g} m'
        seen = Counter(
            found.label for outcome in self.outcomes for found in _detections(outcome)
        )
        missing = [outcome for outcome in self.outcomes if outcome not in showing]
        few = len(showing) < at_least
        worst = (
            min(missing, key=lambda outcome: best[id(outcome)], default=None) if few
            else max(showing, key=lambda outcome: best[id(outcome)])
        )
        limit = f'at least {at_least}' if few else f'at most {most}'
        _fail(
            f'{wanted} is in {len(showing)} of {len(self.outcomes)} images; the limit is {limit}',
            f'worst: {worst}, best score of {label!r} {best[id(worst)]:.2f}' if worst else '',
            'found in all: ' + (', '.join(f'{n} {name}' for name, n in seen.items()) or 'nothing'),
        )

    def assert_matches(self, golden: str | Path, **tolerances: float) -> None:
        """The results are those stored in `golden`, within tolerances.

        `tolerances` are the fields of muon_ad.replay.compare.Tolerances. With pytest's option
        --update-goldens the results are stored as the golden instead.
        """
        __tracebackhide__ = True
        golden = Path(golden)
        if self.update_goldens:
            golden.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.recording, golden)
            return
        if not golden.exists():
            _fail(f'{golden}: no such file; make it with: pytest --update-goldens, then look at '
                  'it and commit it')
        comparison = compare_recordings(
            read_recording(golden), read_recording(self.recording), Tolerances(**tolerances)
        )
        if not comparison.same:
            _fail(f'the results of {self.bag.name} differ from {golden}',
                  *_differing(comparison), *report.comparison_lines(comparison),
                  self._draw(comparison))

    def _some(self, what: str) -> list[Outcome]:
        __tracebackhide__ = True
        if not self.delivered:
            _fail(f'no {what}: none of {len(self.outcomes)} images gave its results',
                  *(f'first: {o}: {o.dropped}' for o in self.outcomes[:1]), *self.notes)
        return self.delivered

    def _draw(self, comparison: Comparison) -> str:
        worst = comparison.worst
        if worst is None or worst.worse <= 1:
            return ''
        picture = self.recording.with_name(f'{self.recording.stem}_worst.png')
        pictures.save(picture, pictures.worst_picture(worst))
        return f'the worst frame, expected and got: {picture}'


def _differing(comparison: Comparison) -> list[str]:
    return [
        f'{topic}: {one.differing} of {one.matched} results differ'
        for topic, one in sorted(comparison.topics.items()) if one.differing
    ]


def _detections(outcome: Outcome) -> list[Any]:
    """Return all detections of an image; in messages like muon_ad_msgs/DetectionArray."""
    return [
        found for output in outcome.outputs.values()
        for found in getattr(output, 'detections', ())
    ]


def _best(outcome: Outcome, label: str) -> float:
    return max((found.score for found in _detections(outcome) if found.label == label), default=0)


def _counts(
    found: Any, label: str, score: float, distance_m: tuple[float, float] | None
) -> bool:
    if found.label != label or found.score < score:
        return False
    if distance_m is None:
        return True
    place = found.position
    away = float(np.linalg.norm([place.x, place.y, place.z]))
    return bool(found.position_valid) and distance_m[0] <= away <= distance_m[1]


def _fail(*lines: str) -> None:
    __tracebackhide__ = True
    raise AssertionError('\n'.join(filter(None, lines)))

"""What came of a bag in a test, and the limits it can be held against."""

import shutil
from collections import Counter
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np

from muon_ad.bags import open_bag
from muon_ad.images import ImageError
from muon_ad.pictures import raw_topic
from muon_ad.replay import messages
from muon_ad.replay import pictures
from muon_ad.replay import report
from muon_ad.replay.compare import compare_recordings
from muon_ad.replay.compare import Comparison
from muon_ad.replay.compare import Difference
from muon_ad.replay.compare import Tolerances
from muon_ad.replay.record import read_recording
from muon_ad.replay.record import Recording
from muon_ad.stamps import nanoseconds
from muon_ad.testing.options import check_names

# What --update-goldens wrote, a line each; the plugin tells and empties it.
stored: list[str] = []


@dataclass
class Outcome:
    """One image that went in, and what came of it.

    `number` counts the images of `topic`; `stamp_ns` is that of its header, `time_ns` when it was
    recorded. `outputs` has the results by topic; `latency_ms` is how long the last of them took.
    `dropped` says why there is none: empty where all is well. `extra` counts results that came
    after the first one of their topic, and are left out.
    """

    topic: str
    number: int
    time_ns: int
    stamp_ns: int
    latency_ms: float = 0.0
    dropped: str = ''
    outputs: dict[str, Any] = field(default_factory=dict)
    extra: int = 0

    def __str__(self) -> str:
        return f'image {self.number} of {self.topic} (stamp {self.stamp_ns * 1e-9:.3f} s)'


@dataclass
class Result:
    """A whole bag. The `assert_...` methods raise AssertionError, and name the worst image.

    `recording` is an MCAP with the results, for `assert_matches` and for Foxglove; `notes` are
    lines about what was left out. `update_goldens` is pytest's option of that name. `classes` are
    the labels that can be found, and `score_threshold` the least score, where they are known.
    `topics` are those on which results were waited for.
    """

    bag: Path
    recording: Path
    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    update_goldens: bool = False
    classes: tuple[str, ...] = ()
    score_threshold: float | None = None
    topics: list[str] = field(default_factory=list)

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
        """Return the results on `topic`, in the order of the images.

        Raises ValueError for a topic that has none and could not have any.
        """
        known = {*self.topics, *(name for outcome in self.outcomes for name in outcome.outputs)}
        if topic not in known:
            raise ValueError(f'no results are of {topic}; topics are {sorted(known)}')
        return [outcome.outputs[topic] for outcome in self.outcomes if topic in outcome.outputs]

    def assert_no_drops(self, at_most: int = 0) -> None:
        """Every image gave every result; or all but `at_most` did."""
        __tracebackhide__ = True
        if not self.outcomes:
            _fail('no image was played', *self.notes)
        dropped = [outcome for outcome in self.outcomes if outcome.dropped]
        if len(dropped) > at_most:
            reasons = Counter(outcome.dropped for outcome in dropped).most_common(3)
            _fail(
                f'{len(dropped)} of {len(self.outcomes)} images were dropped; the limit is '
                f'{at_most}',
                *(f'{count} of them: {reason}' for reason, count in reasons),
                *(f'first: {outcome}' for outcome in dropped[:1]), *self.notes,
            )

    def assert_latency(
        self, *, p50_ms: float | None = None, p99_ms: float | None = None,
        max_ms: float | None = None,
    ) -> None:
        """The time from an image to the last of its results keeps the limits that are given.

        Of the images that were not dropped. Raises ValueError without any limit.
        """
        __tracebackhide__ = True
        limits = (('p50', 50, p50_ms), ('p99', 99, p99_ms), ('maximum', 100, max_ms))
        if all(limit is None for _, _, limit in limits):
            raise ValueError('assert_latency has no limit; give it p50_ms, p99_ms or max_ms')
        delivered = self._some('latency')
        spent = [outcome.latency_ms for outcome in delivered]
        worst = max(delivered, key=lambda outcome: outcome.latency_ms)
        for name, percent, limit in limits:
            value = float(np.percentile(spent, percent))
            if limit is not None and not value <= limit:
                _fail(f'latency {name} is {value:.1f} ms; the limit is {limit:g} ms',
                      f'worst: {worst}, {worst.latency_ms:.1f} ms')

    def assert_rate(self, at_least_hz: float) -> None:
        """So many images a second can be worked on, one after the other; dropped ones aside."""
        __tracebackhide__ = True
        slowest = max(self._some('rate'), key=lambda outcome: outcome.latency_ms)
        if not self.rate_hz >= at_least_hz:
            _fail(f'rate is {self.rate_hz:.1f} images a second; the limit is {at_least_hz:g}',
                  f'slowest: {slowest}, {slowest.latency_ms:.1f} ms')

    def assert_detects(
        self, label: str, *, at_least: int | None = None, at_most: int | None = None,
        score: float = 0.0, distance_m: tuple[float, float] | None = None,
    ) -> None:
        """From `at_least` to `at_most` images show a `label`.

        Counts the detections of at least that `score`, and where `distance_m` (least, most) is
        given, of a known position at that distance from the camera. Alone, `at_most=0` means that
        none shows it; else `at_least` is 1 by itself.

        Fails as well where nothing was searched: without an image, without a result, without
        detections in the results. Raises ValueError for a label that the detector does not know
        and for limits that make no sense.
        """
        __tracebackhide__ = True
        wanted = _Wanted(label, score, distance_m)
        wanted.check(self.classes)
        if at_least is None:
            at_least = 0 if at_most == 0 else 1
        if at_least < 0 or (at_most is not None and at_most < at_least):
            raise ValueError(f'at_least is {at_least} and at_most {at_most}; expected 0 or more, '
                             'and at_most not below at_least')
        self._expect_searched()
        showing = [
            outcome for outcome in self.outcomes
            if any(map(wanted.counts, _detections(outcome)))
        ]
        few = len(showing) < at_least
        if few or (at_most is not None and len(showing) > at_most):
            limit = f'at least {at_least}' if few else f'at most {at_most}'
            candidates = [o for o in self.outcomes if o not in showing] if few else showing
            _fail(
                f'{wanted} is in {len(showing)} of {len(self.outcomes)} images; the limit is '
                f'{limit}',
                *self._worst(wanted, candidates, few), *wanted.places(self.outcomes),
                f'found in all: {_found(self.outcomes)}',
            )

    def assert_matches(self, golden: str | Path, **tolerances: float) -> None:
        """The results are those stored in `golden`, within tolerances.

        `tolerances` are the fields of muon_ad.replay.compare.Tolerances. With pytest's option
        --update-goldens the results are stored as the golden instead.
        """
        __tracebackhide__ = True
        check_names('assert_matches', tolerances, Tolerances)
        limits = Tolerances(**tolerances)
        golden = Path(golden)
        self._some('results to compare')
        if not golden.exists() and not self.update_goldens:
            _fail(f'golden {golden}: no such file; make it with: pytest --update-goldens, then '
                  'look at it and commit it')
        recording = read_recording(self.recording)
        if self.update_goldens:
            golden.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.recording, golden)
            stored.append(f'{golden}: {self._contents(recording)}')
            return
        comparison = compare_recordings(read_recording(golden), recording, limits)
        if not comparison.same:
            _fail(f'the results of {self.bag.name} differ from {golden}',
                  *_differing(comparison), *report.comparison_lines(comparison),
                  self._draw(comparison))

    def _some(self, what: str) -> list[Outcome]:
        __tracebackhide__ = True
        if not self.outcomes:
            _fail(f'no {what}: no image was played', *self.notes)
        if not self.delivered:
            _fail(f'no {what}: none of {len(self.outcomes)} images gave its results',
                  *(f'first: {o}: {o.dropped}' for o in self.outcomes[:1]), *self.notes)
        return self.delivered

    def _expect_searched(self) -> None:
        """Fail where no result can have detections: to find nothing would prove nothing."""
        __tracebackhide__ = True
        outputs = {
            topic: type(value).__name__
            for outcome in self._some('detections') for topic, value in outcome.outputs.items()
        }
        if not any(_has_detections(outcome) for outcome in self.outcomes):
            _fail('no result has detections, so nothing was searched; results are '
                  + (', '.join(f'{topic} ({kind})' for topic, kind in outputs.items()) or 'none')
                  + '; expected a DetectionArray')

    def _worst(self, wanted: '_Wanted', candidates: list[Outcome], few: bool) -> list[str]:
        """Say which image is farthest from the limit; of many, that with the surest detection."""
        if not candidates:
            return []
        choose = min if few else max
        worst = choose(candidates, key=lambda outcome: _best(outcome, wanted.label) or -1.0)
        best = _best(worst, wanted.label)
        if worst.dropped:
            return [f'worst: {worst}, dropped: {worst.dropped}']
        if best is not None:
            return [f'worst: {worst}, best score of {wanted.label!r} {best:.2f}']
        least = '' if self.score_threshold is None else (
            f' above score_threshold {self.score_threshold:g}'
        )
        return [f'worst: {worst}, no {wanted.label!r}{least}']

    def _contents(self, recording: Recording) -> str:
        """Say what a golden has, and what of the results it has not."""
        topics = ', '.join(
            f'{len(results)} of {topic}' for topic, results in recording.results.items()
        )
        came = {raw_topic(topic) for outcome in self.delivered for topic in outcome.outputs}
        left_out = sorted(came - recording.results.keys())
        dropped = len(self.outcomes) - len(self.delivered)
        return topics + ''.join([
            f'; not stored: {", ".join(left_out)}' if left_out else '',
            f'; images dropped: {dropped}' if dropped else '',
        ])

    def _draw(self, comparison: Comparison) -> str:
        worst = comparison.worst
        if not pictures.can_draw(worst):
            return ''
        worst.source = self._source_of(worst)
        picture = self.recording.with_name(f'{self.recording.stem}_worst.png')
        pictures.save(picture, pictures.worst_picture(worst))
        return f'the worst frame, expected and got: {picture}'

    def _source_of(self, difference: Difference) -> np.ndarray | None:
        """Return the image that a result is of, as in the bag; None where a fault hides it."""
        outcome = next((
            outcome for outcome in self.outcomes if outcome.stamp_ns == difference.stamp_ns
            and difference.topic in map(raw_topic, outcome.outputs)
        ), None)
        if outcome is None:
            return None
        with open_bag(self.bag) as bag:
            for message in bag.messages([outcome.topic], outcome.time_ns, outcome.time_ns):
                if nanoseconds(message.data.header.stamp) == outcome.stamp_ns:
                    try:
                        return messages.pixels_of(message.data, message.type)
                    except ImageError:
                        return None
        return None


@dataclass(frozen=True)
class _Wanted:
    """The detections that are looked for."""

    label: str
    score: float
    distance_m: tuple[float, float] | None

    def check(self, classes: tuple[str, ...]) -> None:
        """Raise ValueError for what no detection can be; `classes` are empty if not known."""
        if classes and self.label not in classes:
            raise ValueError(f'label is {self.label!r}; the detector reports {", ".join(classes)}')
        if not 0 <= self.score <= 1:
            raise ValueError(f'score is {self.score}; expected 0 to 1')
        if self.distance_m is None:
            return
        try:
            least, most = map(float, self.distance_m)
            sensible = 0 <= least <= most
        except (TypeError, ValueError):
            sensible = False
        if not sensible:
            raise ValueError(f'distance_m is {self.distance_m}; expected (least, most) in metres')

    def counts(self, found: Any) -> bool:
        """Whether a detection is one of them."""
        if found.label != self.label or found.score < self.score:
            return False
        if self.distance_m is None:
            return True
        return bool(found.position_valid) and (
            self.distance_m[0] <= _distance(found) <= self.distance_m[1]
        )

    def places(self, outcomes: list[Outcome]) -> list[str]:
        """Say how far away those of the label are, where a distance is asked for."""
        found = [each for outcome in outcomes for each in _detections(outcome)
                 if each.label == self.label and each.score >= self.score]
        if self.distance_m is None or not found:
            return []
        away = [_distance(each) for each in found if each.position_valid]
        lines = []
        if away:
            lines.append(f'distances of {self.label!r}: {min(away):.2f} to {max(away):.2f} m')
        if len(away) < len(found):
            lines.append(f'{len(found) - len(away)} of {len(found)} {self.label!r} have no '
                         'position: no depth there, or no calibration')
        return lines

    def __str__(self) -> str:
        text = f'{self.label!r} of score {self.score:g} or more'
        if self.distance_m is not None:
            text += f' at {self.distance_m[0]:g} to {self.distance_m[1]:g} m'
        return text


def _differing(comparison: Comparison) -> list[str]:
    return [
        f'{topic}: {one.differing} of {one.matched} results differ'
        for topic, one in sorted(comparison.topics.items()) if one.differing
    ]


def _has_detections(outcome: Outcome) -> bool:
    return any(hasattr(output, 'detections') for output in outcome.outputs.values())


def _detections(outcome: Outcome) -> list[Any]:
    """Return all detections of an image; in messages like muon_ad_msgs/DetectionArray."""
    return [
        found for output in outcome.outputs.values()
        for found in getattr(output, 'detections', ())
    ]


def _best(outcome: Outcome, label: str) -> float | None:
    return max(
        (found.score for found in _detections(outcome) if found.label == label), default=None
    )


def _distance(found: Any) -> float:
    place = found.position
    return float(np.linalg.norm([place.x, place.y, place.z]))


def _found(outcomes: list[Outcome]) -> str:
    seen = Counter(found.label for outcome in outcomes for found in _detections(outcome))
    return ', '.join(f'{count} {name}' for name, count in seen.items()) or 'nothing'


def _fail(*lines: str) -> None:
    __tracebackhide__ = True
    raise AssertionError('\n'.join(filter(None, lines)))

"""Results against those of a stored run, within tolerances."""

from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np

from muon_ad.replay.error import ReplayError
from muon_ad.replay.fields import compare_fields
from muon_ad.replay.record import Recorded
from muon_ad.replay.record import Recording
from muon_ad.runtime.boxes import iou

# Windows of SSIM are this wide (Wang et al. 2004, as scikit-image has it), or fit the picture.
_WINDOW = 7


@dataclass(frozen=True)
class Tolerances:
    """How far results may be apart. The defaults let another machine's rounding pass, and catch
    what people would call a change.

    iou         least overlap of a box with its stored one
    score       largest difference of a score; a detection that near the threshold may be missing
    position_m  largest distance of a position from the stored one, in metres
    mean_abs    largest mean absolute difference of a picture, in grey levels of 255; of depth: mm
    ssim        least structural similarity of a picture, 1 for the same
    stamp_ms    largest difference of stamps
    value       largest difference of a number in messages of other types
    count       how many results of a topic may be missing or too many

    Raises ReplayError for a value that is no tolerance.
    """

    iou: float = 0.9
    score: float = 0.05
    position_m: float = 0.1
    mean_abs: float = 2.0
    ssim: float = 0.98
    stamp_ms: float = 0.0
    value: float = 1e-6
    count: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            most = 1.0 if name in ('iou', 'ssim') else np.inf
            if not 0 <= value <= most:
                expected = '0 to 1' if most == 1 else '0 or more'
                raise ReplayError(f'tolerance {name} is {value:g}; expected {expected}')


@dataclass(frozen=True)
class Measure:
    """One measured difference: `worse` is 0 where nothing differs, above 1 beyond the limit."""

    name: str
    value: float
    limit: float
    worse: float

    def __str__(self) -> str:
        return f'{self.name} {self.value:.4g} (limit {self.limit:g})'


@dataclass
class Difference:
    """How one result differs from the stored one; pictures for people."""

    topic: str
    number: int
    stamp_ns: int
    measures: list[Measure]
    problems: list[str]
    source: np.ndarray | None = None
    expected: Any = None
    got: Any = None

    @property
    def worse(self) -> float:
        """By how much it misses its limits; above 1 where it does."""
        least = 2.0 if self.problems else 0.0
        return max([least, *(measure.worse for measure in self.measures)])

    def __str__(self) -> str:
        beyond = [str(measure) for measure in self.measures if measure.worse > 1]
        return '; '.join([*self.problems, *beyond]) or 'within tolerances'


@dataclass
class TopicReport:
    """What came of one topic.

    `worst` has the worst measure of each name, `unmatched` the stamps (ns) of stored results that
    did not come, and of results that nothing stored belongs to.
    """

    expected: int = 0
    got: int = 0
    matched: int = 0
    differing: int = 0
    worst: dict[str, Measure] = field(default_factory=dict)
    unmatched: list[int] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Stored results that did not come."""
        return self.expected - self.matched

    @property
    def extra(self) -> int:
        """Results that nothing stored belongs to."""
        return self.got - self.matched


@dataclass
class Comparison:
    """The outcome: `same` where every topic is within tolerances."""

    tolerances: Tolerances
    topics: dict[str, TopicReport]
    worst: Difference | None
    changed: list[str]      # what differs in models, options and versions

    @property
    def same(self) -> bool:
        """Whether the results are those that were stored."""
        return all(map(self.accepts, self.topics.values()))

    def accepts(self, report: TopicReport) -> bool:
        """Whether a topic is within tolerances."""
        unmatched = max(report.missing, report.extra)
        return not report.differing and unmatched <= self.tolerances.count


class Comparer:
    """Takes results one by one and holds each against the stored one of its stamp."""

    def __init__(self, golden: Recording, tolerances: Tolerances, about: dict) -> None:
        self._tolerances = tolerances
        self._waiting = {topic: list(results) for topic, results in golden.results.items()}
        self._topics = {
            topic: TopicReport(expected=len(results)) for topic, results in golden.results.items()
        }
        self._every = int(golden.about.get('every', 1))
        detector = golden.about.get('detector', {})
        self._threshold = float(detector.get('score_threshold', 0.0))
        self._changed = changes(golden.about, about)
        self._worst: Difference | None = None

    def add(
        self, topic: str, number: int, stamp_ns: int, value: Any, source: np.ndarray | None = None
    ) -> None:
        """Take a DetectionArray, a picture (uint8 RGB [H, W, 3]), or another message of a bag.

        `number` counts the images of a run, by which a golden may leave pictures out; `source` is
        the image it is of.

        Raises ImageError where the stored picture cannot be decoded.
        """
        report = self._topics.setdefault(topic, TopicReport())
        if number % self._every and isinstance(value, np.ndarray):
            return      # of these only some are stored
        stored = self._take(topic, stamp_ns)
        report.got += 1
        if stored is None:
            report.unmatched.append(stamp_ns)
            return
        report.matched += 1
        difference = self._differ(topic, number, stamp_ns, stored, value)
        difference.source = source
        report.differing += difference.worse > 1
        for measure in difference.measures:
            before = report.worst.get(measure.name)
            if before is None or measure.worse > before.worse:
                report.worst[measure.name] = measure
        if self._worst is None or difference.worse > self._worst.worse:
            difference.expected, difference.got = stored.value, _kept(value)
            difference.source = None if source is None else source.copy()
            self._worst = difference

    def finish(self) -> Comparison:
        """Return the outcome; what was stored and has not come is missing."""
        for topic, waiting in self._waiting.items():
            self._topics[topic].unmatched += [result.stamp_ns for result in waiting]
        return Comparison(self._tolerances, self._topics, self._worst, self._changed)

    def _take(self, topic: str, stamp_ns: int) -> Recorded | None:
        """Return and forget the stored result whose stamp is nearest, if it is near enough."""
        waiting = self._waiting.get(topic, [])
        # The results come in the order of the golden, so that the first is mostly the one.
        place = min(
            range(len(waiting)), key=lambda i: abs(waiting[i].stamp_ns - stamp_ns), default=None
        )
        limit = self._tolerances.stamp_ms * 1e6
        if place is None or abs(waiting[place].stamp_ns - stamp_ns) > limit:
            return None
        return waiting.pop(place)

    def _differ(
        self, topic: str, number: int, stamp_ns: int, stored: Recorded, value: Any
    ) -> Difference:
        limit = self._tolerances.stamp_ms
        apart_ms = abs(stored.stamp_ns - stamp_ns) * 1e-6
        measures = [_at_most('stamp ms', apart_ms, limit)]
        more, problems = self._held_against(stored, value)
        return Difference(topic, number, stamp_ns, measures + more, problems)

    def _held_against(self, stored: Recorded, value: Any) -> tuple[list[Measure], list[str]]:
        expected = stored.value
        if _type_of(expected) != _type_of(value):
            return [], [f'is {_type_of(value)}; expected {_type_of(expected)}']
        if isinstance(expected, np.ndarray):
            return compare_pictures(expected, value, self._tolerances)
        if hasattr(expected, 'detections'):
            return compare_detections(expected, value, self._tolerances, self._threshold)
        name, apart, problems = compare_fields(expected, value)
        return [_at_most(name or 'value', apart, self._tolerances.value)], problems


def compare_recordings(
    golden: Recording, recording: Recording, tolerances: Tolerances
) -> Comparison:
    """Compare two stored runs; `compare.Comparer` does so while a run goes on.

    Raises ImageError where a stored picture cannot be decoded.
    """
    comparer = Comparer(golden, tolerances, recording.about)
    every = int(recording.about.get('every', 1))
    for topic, results in recording.results.items():
        for place, result in enumerate(results):
            value = result.value
            number = place * every if isinstance(value, np.ndarray) else place
            comparer.add(topic, number, result.stamp_ns, value)
    return comparer.finish()


def compare_pictures(
    expected: np.ndarray, got: np.ndarray, tolerances: Tolerances
) -> tuple[list[Measure], list[str]]:
    """Compare pictures (uint8 [H, W, 3], or depth); returns measures, and what has none."""
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return [], [f'is {_kind(got)}; expected {_kind(expected)}']
    measures = [_at_most('mean difference', _apart(expected, got), tolerances.mean_abs)]
    window = min(_WINDOW, (min(expected.shape[:2]) - 1) // 2 * 2 + 1)
    if expected.dtype == np.uint8 and window >= 3:
        from skimage.metrics import structural_similarity

        similarity = float(structural_similarity(
            expected, got, win_size=window, channel_axis=2 if expected.ndim == 3 else None,
            data_range=255,
        ))
        measures.append(_at_least('SSIM', similarity, tolerances.ssim))
    return measures, []


def _apart(expected: np.ndarray, got: np.ndarray) -> float:
    """Return the mean absolute difference; of depth in metres in millimetres, unknown as 0."""
    scale = 1000.0 if expected.dtype == np.float32 else 1.0
    pair = (np.nan_to_num(each.astype(np.float64) * scale) for each in (expected, got))
    return float(np.abs(np.subtract(*pair)).mean())


def compare_detections(
    expected: Any, got: Any, tolerances: Tolerances, threshold: float
) -> tuple[list[Measure], list[str]]:
    """Compare two DetectionArrays; returns measures, and what has no counterpart.

    Each stored detection is paired with the one of its class that overlaps it most. One without
    a counterpart does not count where its score is within tolerance of the score `threshold`.
    """
    measures, problems = [], []
    rest = list(got.detections)
    for stored in expected.detections:
        partner, overlap = _partner(stored, rest)
        if partner is None:
            if _counts(stored, tolerances, threshold):
                problems.append(f'{stored.label} of score {stored.score:.2f} is not found')
            continue
        # By identity: messages of arrays cannot be told apart by comparing them.
        rest = [found for found in rest if found is not partner]
        measures += [
            _at_least('box IoU', overlap, tolerances.iou),
            _at_most('score', abs(float(stored.score - partner.score)), tolerances.score),
        ]
        if stored.position_valid != partner.position_valid:
            problems.append(f'position of {stored.label} is valid: {partner.position_valid}')
        elif stored.position_valid:
            apart = float(np.linalg.norm(_point(stored) - _point(partner)))
            measures.append(_at_most('position m', apart, tolerances.position_m))
    problems += [
        f'{found.label} of score {found.score:.2f} is new' for found in rest
        if _counts(found, tolerances, threshold)
    ]
    return measures, problems


def _counts(alone: Any, tolerances: Tolerances, threshold: float) -> bool:
    """Whether a detection without a counterpart is a difference; NaN is near no threshold."""
    return not alone.score - threshold <= tolerances.score


def changes(before: dict, now: dict, prefix: str = '') -> list[str]:
    """Say what differs between two descriptions of runs: model hashes, options, versions."""
    lines = []
    if ('nodes' in before) != ('nodes' in now):
        return ['results of nodes are compared with results of the library']
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if key in ('every', 'dropped', 'bag') or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            lines += changes(old, new, f'{prefix}{key} ')
        else:
            lines.append(f'{prefix}{key}: {_brief(old)} in the golden, {_brief(new)} here')
    return lines


def _partner(stored: Any, candidates: list[Any]) -> tuple[Any | None, float]:
    same = [found for found in candidates if found.label == stored.label]
    if not same:
        return None, 0.0
    overlaps = iou(_boxes([stored]), _boxes(same))[0]
    best = int(overlaps.argmax())
    return (same[best], float(overlaps[best])) if overlaps[best] > 0 else (None, 0.0)


def _boxes(detections: list[Any]) -> np.ndarray:
    return np.float32([[d.x_min, d.y_min, d.x_max, d.y_max] for d in detections])


def _point(detection: Any) -> np.ndarray:
    position = detection.position
    return np.array([position.x, position.y, position.z], np.float64)


def _at_most(name: str, value: float, limit: float) -> Measure:
    if np.isnan(value):     # is not above any limit, and would pass
        return Measure(name, np.inf, limit, np.inf)
    worse = value / limit if limit > 0 else (2.0 if value > 0 else 0.0)
    return Measure(name, value, limit, worse)


def _at_least(name: str, value: float, limit: float) -> Measure:
    """Of a value that is 1 for the same: how far from 1, in units of how far it may be."""
    return Measure(name, value, limit, _at_most(name, 1 - value, 1 - limit).worse)


def _type_of(value: Any) -> str:
    return 'a picture' if isinstance(value, np.ndarray) else value.__msgtype__


def _kind(picture: np.ndarray) -> str:
    return f'{picture.dtype} of {picture.shape[1]}x{picture.shape[0]}'


def _brief(value: object) -> str:
    if value is None or isinstance(value, dict):
        return 'left out' if value is None else 'run'
    text = str(value)
    return f'{text[:12]}...' if len(text) == 64 else text     # a SHA-256


def _kept(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value

"""Pairs the images of several cameras by their stamps, and hands the sets on with one stamp."""

import re
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field
from functools import partial

import numpy as np
from diagnostic_msgs.msg import KeyValue
from rclpy.clock import Clock
from rclpy.clock import ClockType
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy
from rclpy.qos import HistoryPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from muon_ad.sync import MatchedSet
from muon_ad.sync import Synchronizer
from muon_ad_msgs.msg import DropReason
from muon_ad_msgs.msg import SyncStatus
from muon_ad_msgs.msg import SyncStream
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.serialised import SerialisedError
from muon_ad_nodes.parts.serialised import stamp_of
from muon_ad_nodes.parts.serialised import with_stamp
from muon_ad_nodes.parts.stages import WINDOW_FRAMES

STATUS_PERIOD_S = 1.0
SILENCE_S = 2.0         # without images of a stream, before the status says so
MOST_STREAMS = 8

PUSHED_OUT = 'pushed out of a full queue'
BAD_STAMP = 'stamp is zero, the one before, or earlier'

# Here a lost image costs its partners as well, so a few may wait while others are handled.
EVERY = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=5,
    reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE,
)

PARAMETERS = (
    Parameter(
        'streams', ['color', 'depth', 'csi'],
        'Names of the streams to pair, 2 to 8; their topics are `<stream>/image_raw` and '
        '`<stream>/camera_info`. A set has the stamp of the first one, the reference.',
        kind='strings',
    ),
    Parameter(
        'optional', [],
        'Up to 4 streams that may be absent from a set; not the first one. With csi here, the '
        'pairs of the RealSense go on when the CSI camera is gone.',
        kind='strings',
    ),
    Parameter(
        'slop_ms', 25.0,
        'Largest difference of stamps within a set. Cameras that run freely need half a period '
        'and some milliseconds more; cameras that are triggered together a few.',
        range=(0.0, 1000.0),
    ),
    Parameter(
        'queue_size', 10,
        'Images of a stream that may wait for their partners.',
        range=(1, 50),
    ),
    Parameter(
        'patience_ms', 250.0,
        'How far a stream may be behind the newest image of all before it is not waited for. '
        'More than the cameras differ in latency.',
        range=(1.0, 1000.0),
    ),
    Parameter(
        'lookahead_ms', 0.0,
        'Wait so much longer where partners are ambiguous, for better pairs.',
        range=(0.0, 1000.0),
    ),
)


@dataclass(frozen=True)
class Arrival:
    """A serialised image and when it came, in steady seconds."""

    data: bytes
    at: float


@dataclass
class Stream:
    """The topics of one stream, and what is remembered of it."""

    name: str
    topics: tuple[Subscription, Subscription]
    images: Publisher
    infos: Publisher
    info: bytes | None = None       # the newest camera_info
    heard: float = 0.0              # steady seconds
    skews: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW_FRAMES))


class FrameSync(SuiteNode):
    """Subscribes `<stream>/image_raw`, `<stream>/camera_info`; publishes `synced/<stream>/...`.

    Every image and camera_info of a set has the stamp of the reference; all else, pixels and
    frame_id among it, is handed on as it came. camera_info is the newest of its stream. How far
    the stamps were apart is in `~/sync_status` (muon_ad_msgs/SyncStatus), once a second, with what
    became of every image.
    """

    def __init__(self) -> None:
        super().__init__('frame_sync', PARAMETERS)
        self._streams: dict[str, Stream] = {}
        self._synchronizer: Synchronizer[Arrival] | None = None
        self._sync_status: Publisher | None = None
        self._timers_of_ours: list[Timer] = []
        self._skews: deque[float] = deque(maxlen=WINDOW_FRAMES)
        self._begun = 0.0

    def build(self) -> None:
        """Create the topics of every stream."""
        settings = self.settings
        _check_names(settings.streams)
        try:
            self._synchronizer = Synchronizer(
                settings.streams,
                round(settings.slop_ms * 1e6),
                optional=settings.optional,
                queue_size=settings.queue_size,
                patience=round(settings.patience_ms * 1e6),
                lookahead=round(settings.lookahead_ms * 1e6),
            )
        except ValueError as error:
            raise ParameterError(f'parameters streams and optional: {error}') from error
        self._sync_status = self.create_publisher(SyncStatus, '~/sync_status', qos.LATCHED)
        for name in settings.streams:
            self._streams[name] = self._make_stream(name)

    def start(self) -> None:
        """Begin to pair."""
        self._begun = time.monotonic()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        patience_s = self.settings.patience_ms * 1e-3
        self._timers_of_ours = [
            self.create_timer(STATUS_PERIOD_S, self._publish_sync_status, clock=steady),
            self.create_timer(patience_s / 2, self._end_waiting, clock=steady),
        ]

    def stop(self) -> None:
        """Publish what still waits and is complete, and cease."""
        for timer in self._timers_of_ours:
            self.destroy_timer(timer)
        self._timers_of_ours = []
        if self._synchronizer is not None:
            self._publish(self._synchronizer.flush())
            self._publish_sync_status()

    def teardown(self) -> None:
        """Destroy the topics."""
        for stream in self._streams.values():
            for subscription in stream.topics:
                self.destroy_subscription(subscription)
            for publisher in (stream.images, stream.infos):
                self.destroy_publisher(publisher)
        if self._sync_status is not None:
            self.destroy_publisher(self._sync_status)
        self._streams = {}
        self._skews.clear()
        self._synchronizer = self._sync_status = None

    def describe(self, status: TaskStatus) -> None:
        """Count images: received, invalid, pushed out of a queue; results are sets."""
        if self._synchronizer is None:
            return
        counts = [self._synchronizer.counts(name) for name in self._streams]
        status.received += sum(each.received for each in counts)
        pushed_out = sum(each.queue_full for each in counts)
        invalid = sum(each.invalid for each in counts)
        status.dropped_newer = pushed_out
        status.dropped_invalid += invalid
        status.drops += [
            DropReason(reason=reason, frames=frames)
            for reason, frames in ((PUSHED_OUT, pushed_out), (BAD_STAMP, invalid)) if frames
        ]
        said = {
            'unmatched (%)': f'{self._unmatched_percent():.2f}',
            'without partner': sum(each.no_partner for each in counts),
            'while another stream was silent': sum(each.silent for each in counts),
            'too late for their set': sum(each.late for each in counts),
            'jumps back in time': self._synchronizer.resets,
        }
        status.values = [KeyValue(key=key, value=str(value)) for key, value in said.items()]
        silent = ', '.join(self._silent_topics())
        if silent:
            text = f'no image for more than {SILENCE_S:g} s on {silent}'
            status.message = '; '.join(filter(None, (status.message, text)))

    def _make_stream(self, name: str) -> Stream:
        image, info = f'{name}/image_raw', f'{name}/camera_info'
        return Stream(
            name,
            (
                self.create_subscription(
                    Image, image, partial(self._on_image, name), EVERY, raw=True
                ),
                self.create_subscription(
                    CameraInfo, info, partial(self._on_info, name), qos.SENSOR, raw=True
                ),
            ),
            self.create_publisher(Image, f'synced/{image}', qos.PUBLISH),
            self.create_publisher(CameraInfo, f'synced/{info}', qos.PUBLISH),
        )

    def _on_info(self, name: str, data: bytes) -> None:
        if self.active:
            self._streams[name].info = data

    def _on_image(self, name: str, data: bytes) -> None:
        if not self.active:
            return
        try:
            stamp = stamp_of(data)
        except SerialisedError as error:
            self.monitor.received()
            self.drop_invalid(f'{name}: {error}')
            return
        now = time.monotonic()
        self._streams[name].heard = now
        self._publish(self._synchronizer.add(name, stamp, Arrival(data, now)))

    def _end_waiting(self) -> None:
        """Where all streams are silent nothing better comes for what waits."""
        newest = max(stream.heard for stream in self._streams.values())
        if time.monotonic() - newest > self.settings.patience_ms * 1e-3:
            self._publish(self._synchronizer.flush())

    def _publish(self, sets: Iterable[MatchedSet[Arrival]]) -> None:
        for matched in sets:
            for name, arrival in matched.messages.items():
                stream = self._streams[name]
                stream.images.publish(with_stamp(arrival.data, matched.stamp))
                if stream.info is not None:
                    stream.infos.publish(with_stamp(stream.info, matched.stamp))
                stream.skews.append(abs(matched.stamps[name] - matched.stamp) * 1e-6)
            self._skews.append(matched.skew * 1e-6)
            complete_s = max(arrival.at for arrival in matched.messages.values())
            times = self.monitor.begin(matched.stamp, at_ns=round(complete_s * 1e9))
            times.mark('decide')
            self.monitor.published(times)

    def _publish_sync_status(self) -> None:
        status = SyncStatus()
        status.header.stamp = self.get_clock().now().to_msg()
        status.sets = self._synchronizer.sets
        status.unmatched_percent = self._unmatched_percent()
        status.slop_ms = self.settings.slop_ms
        status.skew_p50_ms, status.skew_p99_ms = _percentiles(self._skews)
        status.streams = [self._describe_stream(stream) for stream in self._streams.values()]
        self._sync_status.publish(status)

    def _describe_stream(self, stream: Stream) -> SyncStream:
        counts = self._synchronizer.counts(stream.name)
        p50, p99 = _percentiles(stream.skews)
        return SyncStream(
            name=stream.name,
            topic=stream.topics[0].topic_name,
            received=counts.received,
            matched=counts.matched,
            unmatched_no_partner=counts.no_partner,
            unmatched_silent=counts.silent,
            unmatched_queue_full=counts.queue_full,
            unmatched_late=counts.late,
            unmatched_invalid=counts.invalid,
            waiting=self._synchronizer.waiting(stream.name),
            skew_p50_ms=p50,
            skew_p99_ms=p99,
        )

    def _unmatched_percent(self) -> float:
        counts = [self._synchronizer.counts(name) for name in self._streams]
        unmatched = sum(each.unmatched for each in counts)
        known = unmatched + sum(each.matched for each in counts)
        return 100.0 * unmatched / known if known else 0.0

    def _silent_topics(self) -> list[str]:
        """Return the topics of needed streams that have delivered nothing for a while."""
        if not self.active:
            return []
        now = time.monotonic()
        return [
            stream.topics[0].topic_name for stream in self._streams.values()
            if stream.name not in self.settings.optional
            and now - max(stream.heard, self._begun) > SILENCE_S
        ]


def _check_names(streams: list[str]) -> None:
    """Raise ParameterError unless all are good in a topic's name, and not too many."""
    good = all(re.fullmatch(r'[a-z][a-z0-9]*(_[a-z0-9]+)*', name) for name in streams)
    if not good or len(streams) > MOST_STREAMS:
        raise ParameterError(
            f'parameter streams is {streams}; expected 2 to {MOST_STREAMS} names such as left_eye'
        )


def _percentiles(values_ms: deque[float]) -> tuple[float, float]:
    """Return p50 and p99; 0 where there is nothing yet."""
    if not values_ms:
        return 0.0, 0.0
    p50, p99 = np.percentile(np.fromiter(values_ms, np.float64), (50, 99))
    return float(p50), float(p99)


def make() -> FrameSync:
    """Return the node."""
    return FrameSync()

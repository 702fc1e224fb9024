"""Plays a bag onto ROS topics: rosbag2 or ROS 1, whole or damaged, at any rate."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from diagnostic_msgs.msg import KeyValue
from rclpy.clock import Clock
from rclpy.clock import ClockType
from std_srvs.srv import Trigger

from muon_ad.bags import Bag
from muon_ad.bags import BagError
from muon_ad.bags import Message
from muon_ad.bags import open_bag
from muon_ad.replay.error import ReplayError
from muon_ad.replay.part import part_of
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts.bag_faults import BagFaults
from muon_ad_nodes.parts.bag_sender import BadMessage
from muon_ad_nodes.parts.bag_sender import BagSender
from muon_ad_nodes.parts.bag_topics import Route
from muon_ad_nodes.parts.bag_topics import routes_of
from muon_ad_nodes.parts.clock_topic import ClockTopic
from muon_ad_nodes.parts.fault_injection import FAULTS
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.timeline import between_rounds_s
from muon_ad_nodes.parts.timeline import Timeline

_SECOND = 1_000_000_000
_POLL_S = 0.02
# A longer silence in a bag is a damaged time, or not worth waiting for.
_GAP_S = 3600.0
# Discovery ends at both sides at different times: subscribers count once they stayed so long.
_SETTLE_S = 0.3

PARAMETERS = (
    Parameter('path', '', 'Folder of rosbag2, one of its files, or a ROS 1 bag.'),
    Parameter(
        'topics', [],
        'Topics of the bag to play, with wildcards ("/camera/*"); empty means all.',
        kind='strings',
    ),
    Parameter(
        'remap', [],
        'Other names for topics, as "/from:=/to"; of a compressed image also its raw name.',
        kind='strings',
    ),
    Parameter(
        'rate', 1.0, 'Times as fast as recorded.', range=(0.01, 100.0), dynamic=True,
    ),
    Parameter(
        'start_offset_s', 0.0,
        'Begin so many seconds into the bag; latched messages before that are played at once.',
        range=(0.0, 1e9),
    ),
    Parameter(
        'duration_s', 0.0, 'Play so many seconds of the bag; 0: to its end.', range=(0.0, 1e9),
    ),
    Parameter('loop', False, 'Begin again at the end; /clock jumps back then.'),
    Parameter(
        'start_paused', False, 'Wait for `~/resume` or `~/play_next` before the first message.',
    ),
    Parameter(
        'clock_hz', 0.0,
        'Publish /clock so often, and before each message, for nodes with use_sim_time; 0: never.',
        range=(0.0, 1000.0),
    ),
    Parameter(
        'restamp', False,
        'Move the stamps of headers to the present, keeping their distances; else as in the bag.',
    ),
    Parameter(
        'decompress', True,
        'Publish CompressedImage (jpeg, png, compressedDepth) raw, as "x" for "x/compressed".',
    ),
    Parameter(
        'wait_for', [],
        'Published topics that must have a subscriber before anything is played, "/x=2" for two '
        'of them, "*" for every topic; empty means any one subscriber.',
        kind='strings',
    ),
    Parameter(
        'wait_for_s', 0.0,
        'Wait so many seconds for them and then play with a warning; 0: as long as it takes.',
        range=(0.0, 1e6),
    ),
    *FAULTS,
)


class BagPlayer(SuiteNode):
    """Publishes the messages of a bag under their names, in order, each in its time.

    Plays from the beginning whenever it is activated; at the end it stays active, and the message
    of its status begins with 'end of input'. Services `~/pause`, `~/resume`, `~/toggle_paused` and
    `~/play_next` (std_srvs/Trigger), named as those of rosbag2_player.
    """

    def __init__(self) -> None:
        super().__init__('bag_player', PARAMETERS)
        self._bag: Bag | None = None
        self._part_ns: tuple[int, int | None] = (0, None)
        self._routes: dict[str, Route] = {}
        self._left_out: dict[str, str] = {}
        self._needed: dict[str, int] = {}
        self._faults: BagFaults | None = None
        self._sender: BagSender | None = None
        self._clock_topic: ClockTopic | None = None
        self._clock_timer = None
        self._services_here: list = []
        self._timeline: Timeline | None = None
        self._sent = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def build(self) -> None:
        """Open the bag and create its topics."""
        settings = self.settings
        if not settings.path:
            raise ParameterError('parameter path is empty; expected a bag')
        if settings.clock_hz and self.get_parameter('use_sim_time').value:
            raise ParameterError('parameter use_sim_time is true; expected false beside clock_hz')
        self._open()
        self._routes, self._left_out = routes_of(
            self._bag, settings.topics, settings.remap,
            unpack=settings.decompress, with_clock=bool(settings.clock_hz),
        )
        self._tell_what_is_left_out()
        self._faults = BagFaults(self, self._routes.values())
        self._sender = BagSender(
            self, self._routes, self._bag.counts,
            self._new_time if settings.restamp else None,
            self._faults if settings.faults_enabled else None,
        )
        self._needed = _needed(settings.wait_for, list(self._sender.subscribers))
        if settings.clock_hz:
            self._clock_topic = ClockTopic(self)
            self._clock_timer = self.create_timer(
                1.0 / settings.clock_hz, self._publish_clock,
                clock=Clock(clock_type=ClockType.STEADY_TIME),
            )
        for name, action in (
            ('pause', self._pause), ('resume', self._resume),
            ('toggle_paused', self._toggle), ('play_next', self._play_next),
        ):  # fmt: skip
            self._services_here.append(self.create_service(Trigger, f'~/{name}', action))

    def start(self) -> None:
        """Play from the beginning, as soon as there are subscribers."""
        settings = self.settings
        self._stopping.clear()
        self._sent = 0
        self._timeline = Timeline(settings.rate, settings.start_paused, self._now_ns)
        self._timeline.begin(self._part_ns[0])
        self._thread = threading.Thread(target=self._run, name='playback')
        self._thread.start()

    def stop(self) -> None:
        """Cease to play."""
        self._stopping.set()
        if self._timeline is not None:
            self._timeline.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._faults is not None:
            self._faults.end()
        self._timeline = None

    def teardown(self) -> None:
        """Destroy the topics and close the bag."""
        for service in self._services_here:
            self.destroy_service(service)
        self._services_here.clear()
        if self._clock_timer is not None:
            self.destroy_timer(self._clock_timer)
        for part in (self._clock_topic, self._sender, self._faults):
            if part is not None:
                part.destroy()
        if self._bag is not None:
            self._bag.close()
        self._clock_timer = self._clock_topic = self._sender = self._faults = self._bag = None

    def changed(self, name: str) -> None:
        """Take over a new rate."""
        if self._timeline is not None:
            self._timeline.set_rate(self.settings.rate)

    def describe(self, status: TaskStatus) -> None:
        """Add the position in the bag, what is not played, and the faults done on purpose."""
        bag, timeline = self._bag, self._timeline
        if bag is None:
            return
        values = {'bag': self.settings.path, 'duration_s': f'{bag.duration_s:.3f}'}
        if timeline is not None:
            position_s = (timeline.clock_ns() - bag.start_ns) / _SECOND
            values.update(position_s=f'{position_s:.3f}', paused=str(timeline.paused).lower())
        values.update({f'left out {topic}': why for topic, why in self._left_out.items()})
        status.values += [KeyValue(key=key, value=value) for key, value in values.items()]
        if self._faults is not None:
            self._faults.describe(status)

    def _open(self) -> None:
        settings = self.settings
        try:
            self._bag = open_bag(settings.path)
        except BagError as error:
            raise ParameterError(f'parameter path: {error}') from error
        try:
            self._part_ns = part_of(
                self._bag, settings.start_offset_s, settings.duration_s or None
            )
        except ReplayError as error:
            raise ParameterError(f'parameter start_offset_s: {error}') from error

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _new_time(self, time_ns: int) -> int:
        return self._timeline.wall_time(time_ns)

    def _tell_what_is_left_out(self) -> None:
        if self._bag.trouble:
            self.get_logger().warning(f'the bag is damaged: {self._bag.trouble}')
        if self._left_out:
            lines = '; '.join(f'{topic}: {why}' for topic, why in self._left_out.items())
            self.get_logger().warning(f'topics that are not played: {lines}')
        if not self._routes:
            self.get_logger().warning(f'{self.settings.path}: there is nothing to play')

    # What the thread does.

    def _run(self) -> None:
        try:
            self._wait_for_subscribers()
            self._faults.begin()    # now, so that its times are those of the bag
            while self._play() and self.settings.loop:
                counts = [self._bag.counts[topic] for topic in self._routes]
                self._pass(between_rounds_s(counts, self._bag.duration_s, self.settings.rate))
                if self._clock_topic is not None:
                    self._clock_topic.restart()
            self._send_rest()
            if not self._stopping.is_set():
                self._end()
        except Exception as error:  # noqa: BLE001 - reported by the node, which then ends
            self.fail(error)

    def _wait_for_subscribers(self) -> None:
        limit_s = self.settings.wait_for_s
        begun = time.monotonic()
        there_since = None
        while not self._stopping.wait(_POLL_S):
            now = time.monotonic()
            missing = self._missing()
            there_since = None if missing else there_since or now
            if not missing and now - there_since >= _SETTLE_S:
                break
            if missing and limit_s and now - begun > limit_s:
                self.get_logger().warning(
                    f'no subscriber of {missing} after {limit_s:g} s (parameter wait_for_s); '
                    'playing all the same'
                )
                break
            if missing:
                self.say(f'waiting for a subscriber of {missing}')
        self.say('')

    def _missing(self) -> str:
        """Name the topics that lack subscribers; '' where there are enough."""
        counts = self._sender.subscribers
        if not self._needed:
            return '' if not counts or any(counts.values()) else f'any of {", ".join(counts)}'
        return ', '.join(name for name, need in self._needed.items() if counts[name] < need)

    def _play(self) -> bool:
        """Play once, or until it is stopped; return whether there was anything to play."""
        played = False
        for message in self._messages():
            try:
                ready = self._sender.prepare(message)
            except BadMessage as error:
                self.monitor.received()
                self.drop_invalid(str(error))
                continue
            self._leap(message.time_ns)
            if not self._await(message.time_ns):
                break
            self.monitor.received()
            with self.monitor.working():
                self._publish(message, ready)
            played = True
        return played

    def _await(self, time_ns: int) -> bool:
        """Wait for the turn of a message, and send late ones meanwhile; False: it is stopped."""
        self._send_late(self._faults.due())
        while not self._timeline.wait(time_ns, self._faults.left_s):
            if self._stopping.is_set():
                return False
            self._send_late(self._faults.due())
        return True

    def _pass(self, seconds: float) -> None:
        """Let so much time pass, and send late messages meanwhile; less where it is stopped."""
        end_s = time.monotonic() + seconds
        while not self._stopping.is_set() and (rest_s := end_s - time.monotonic()) > 0:
            left_s = self._faults.left_s
            self._stopping.wait(rest_s if left_s is None else min(left_s, rest_s))
            self._send_late(self._faults.due())

    def _send_rest(self) -> None:
        """Send what faults hold back at the end, each when it is due: late, not lost."""
        while not self._stopping.is_set() and (left_s := self._faults.left_s) is not None:
            self._pass(left_s)
            self._send_late(self._faults.due())
        if not self._stopping.is_set():
            self._send_late(self._faults.rest())    # what only waits for a message behind it

    def _send_late(self, held: list[tuple[str, Any]]) -> None:
        for name, message in held:
            times = self.monitor.begin(self._now_ns(), captured=True)
            with self.monitor.working():
                self._sender.send_late(name, message)
            self._sent += 1
            times.mark('publish')
            self.monitor.published(times)

    def _leap(self, time_ns: int) -> None:
        """Pass over hours in which nothing was recorded."""
        silence_s = (time_ns - self._timeline.clock_ns()) / _SECOND
        if silence_s > _GAP_S:
            self.get_logger().warning(f'nothing is in the bag for {silence_s:.0f} s: passed over')
            self._timeline.begin(time_ns)

    def _end(self) -> None:
        ended = f'end of input after {self._sent} messages'
        self.get_logger().info(ended)
        self.say('; '.join(filter(None, (ended, self._bag.trouble))))

    def _messages(self) -> Iterator[Message]:
        """Yield what is to be played, and begin its time with it."""
        bag, (start, end) = self._bag, self._part_ns
        self._timeline.begin(start)
        if start > bag.start_ns:
            latched = [route.topic for route in self._routes.values() if route.latched]
            yield from bag.serialized(latched, end_ns=start - 1)
        yield from bag.serialized(self._routes, start, end)

    def _publish(self, message: Message, ready: object) -> None:
        late_ns = round(self._timeline.late_s(message.time_ns) * _SECOND)
        due_ns = self._now_ns() - late_ns
        if self._clock_topic is not None:
            self._clock_topic.publish(message.time_ns)
        times = self.monitor.begin(due_ns, captured=True)
        sent = self._sender.send(message, ready)
        times.mark('publish')
        for _ in range(sent):
            self._sent += 1
            self.monitor.published(times)

    # What the executor's thread does.

    def _publish_clock(self) -> None:
        timeline = self._timeline
        if timeline is not None:
            self._clock_topic.publish(timeline.clock_ns())

    def _pause(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._set_paused(response, True)

    def _resume(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._set_paused(response, False)

    def _toggle(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        timeline = self._timeline
        return self._set_paused(response, timeline is not None and not timeline.paused)

    def _set_paused(self, response: Trigger.Response, paused: bool) -> Trigger.Response:
        response.success, response.message = self._timeline is not None, 'the node is not active'
        if self._timeline is not None:
            self._timeline.set_paused(paused)
            response.message = 'paused' if paused else 'playing'
        self.publish_status()
        return response

    def _play_next(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._timeline is not None and self._timeline.step()
        if not response.success:
            response.message = 'the node is not active and paused; call ~/pause first'
        return response


def _needed(wait_for: list[str], names: list[str]) -> dict[str, int]:
    """Return how many subscribers each published name needs. Raises ParameterError."""
    needed: dict[str, int] = {}
    for entry in wait_for:
        name, _, count = entry.partition('=')
        number = 1
        with suppress(ValueError):
            number = int(count or 1)
        chosen = names if name == '*' else [name]
        if not set(chosen) <= set(names) or (count and str(number) != count) or number < 1:
            raise ParameterError(
                f'parameter wait_for has {entry!r}; expected "*" or one of {", ".join(names)}, '
                'with "=2" behind it for two subscribers'
            )
        needed.update({each: max(number, needed.get(each, 0)) for each in chosen})
    return needed


def make() -> BagPlayer:
    """Return the node."""
    return BagPlayer()

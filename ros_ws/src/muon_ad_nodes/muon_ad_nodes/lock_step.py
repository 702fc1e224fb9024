"""Plays a bag to nodes in this process: one image, all that comes of it, then the next."""

import importlib
import json
import struct
import threading
import time
from collections import Counter
from collections import deque
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import pytest
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock

from muon_ad.bags import Bag
from muon_ad.bags import BagError
from muon_ad.bags import BagWriter
from muon_ad.bags import Message
from muon_ad.bags import open_bag
from muon_ad.bags.pictures import COMPRESSED
from muon_ad.bags.pictures import IMAGE
from muon_ad.bags.pictures import raw_topic
from muon_ad.bags.types import store
from muon_ad.images import ImageError
from muon_ad.replay.messages import as_image
from muon_ad.replay.record import ABOUT
from muon_ad.replay.topics import choose
from muon_ad.stamps import nanoseconds
from muon_ad.testing.result import Outcome
from muon_ad.testing.result import Result
from muon_ad_nodes.parts.stamps import to_stamp

if TYPE_CHECKING:
    from muon_ad_nodes.bench import Bench

# Offers what any subscription may ask for.
_OFFERED = QoSProfile(
    depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
# Asks for what any publisher offers.
_ASKED = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
# What belongs to an image (depth, calibration) is recorded no later than this after it.
_TOGETHER_NS = 200_000_000
_MATCH_S = 10.0
_POLL_S = 0.1


def play(
    bench: 'Bench',
    bag: str | Path,
    results: dict[str, type],
    *,
    inputs: str | Iterable[str] = (),
    remap: dict[str, str] | None = None,
    decode: bool = True,
    deadline_s: float = 5.0,
    start_s: float = 0.0,
    duration_s: float = 0.0,
) -> Result:
    """Play a bag to the nodes of a bench, in lock-step, and return what came of it.

    results     topic to message class of what is waited for after each input. A result belongs to
                the input whose stamp its header has; one without header to the last input
    inputs      topics of the bag that the nodes work on (default: its colour images). The others
                are played as well, those of an input's stamp before it
    remap       topic of the bag to topic of the nodes
    decode      publish compressed pictures decoded as sensor_msgs/Image, on the topic without
                `/compressed` or `/compressedDepth`
    deadline_s  how long to wait for the results of an input before it counts as dropped

    /clock follows the bag for nodes with use_sim_time. Raises pytest's failure where a node does
    not subscribe an input or nobody publishes a result, ValueError for a bag or topic that cannot
    be used.
    """
    __tracebackhide__ = True
    if not results:
        raise ValueError('results is empty; expected topics to wait for, with their types')
    result = Result(Path(bag), bench.new_recording(), update_goldens=bench.update_goldens)
    with open_bag(bag) as opened:
        chosen = _inputs(opened, [inputs] if isinstance(inputs, str) else list(inputs))
        player = _Player(bench, opened, remap or {}, decode)
        waiting = _Waiting(bench, results)
        try:
            player.match(chosen, results)
            start_ns = opened.start_ns + round(start_s * 1e9)
            end_ns = start_ns + round(duration_s * 1e9) if duration_s else None
            messages = opened.serialized(player.topics, start_ns, end_ns)
            for message in _ordered(messages, chosen):
                if message.topic in chosen:
                    result.outcomes.append(_step(player, waiting, message, deadline_s))
                else:
                    player.publish_beside(message)
        finally:
            waiting.close()
            player.close()
        result.notes += [*player.notes, *filter(None, [opened.trouble])]
    _number(result.outcomes)
    result.notes += _record(result, results, [node.get_name() for node in bench.nodes])
    return result


def _inputs(bag: Bag, chosen: list[str]) -> set[str]:
    if not chosen:
        streams, _ = choose(bag)
        return {stream.image for stream in streams}
    if unknown := [topic for topic in chosen if topic not in bag.topics]:
        raise BagError(f'{bag.path} has no topic {unknown}; it has {sorted(bag.topics)}')
    return set(chosen)


def _number(outcomes: list[Outcome]) -> None:
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        outcome.number = counts[outcome.topic]
        counts[outcome.topic] += 1


class _Player:
    """Publishes messages of a bag, from the bench's own node."""

    def __init__(self, bench: 'Bench', bag: Bag, remap: dict[str, str], decode: bool) -> None:
        self._bench = bench
        self._nodes = [node for node in bench.nodes if node is not bench.probe]
        self.notes: list[str] = []
        self._publishers: dict[str, Publisher] = {}
        self._decoded: set[str] = set()
        self._clock = bench.probe.create_publisher(Clock, '/clock', _OFFERED)
        for topic, type_name in sorted(bag.topics.items()):
            if decode and type_name == COMPRESSED and raw_topic(topic) not in bag.topics:
                self._decoded.add(topic)
            kind = _class_of(IMAGE if topic in self._decoded else type_name)
            if kind is None or topic in bag.unreadable or type_name == 'rosgraph_msgs/msg/Clock':
                self.notes.append(f'{topic} is not played: {type_name} is not installed, or clock')
                continue
            target = remap.get(topic, raw_topic(topic) if topic in self._decoded else topic)
            self._publishers[topic] = bench.probe.create_publisher(kind, target, _OFFERED)

    @property
    def topics(self) -> list[str]:
        """Topics of the bag that can be played."""
        return list(self._publishers)

    def match(self, inputs: Iterable[str], results: dict[str, type]) -> None:
        """Wait until the nodes' subscriptions and publishers have found ours."""
        __tracebackhide__ = True
        for topic in inputs:
            publisher = self._publishers.get(topic)
            if publisher is None:
                raise BagError(f'{topic} cannot be played: {self.notes}')
            if not self._listeners(publisher):
                pytest.fail(f'no node subscribes {publisher.topic_name}; subscribed are '
                            f'{self._names("subscriptions")}; see remap')
        for publisher in (*self._publishers.values(), self._clock):
            wanted = self._listeners(publisher)
            self._bench.wait(
                lambda p=publisher, n=wanted: p.get_subscription_count() >= n,
                f'a subscription of {publisher.topic_name} to match (type: '
                f'{publisher.msg_type.__name__}; and its QoS)', _MATCH_S,
            )
        for topic in results:
            name = self._bench.probe.resolve_topic_name(topic)
            sources = [
                p for node in self._nodes for p in node.publishers if p.topic_name == name
            ]
            if not sources:
                pytest.fail(
                    f'no node publishes {name}; published are {self._names("publishers")}'
                )
            self._bench.wait(
                lambda s=sources: all(p.get_subscription_count() for p in s),
                f'the publisher of {name} to match (type and QoS)', _MATCH_S,
            )

    def publish(self, message: Message) -> None:
        """Publish a message at its time; raises ImageError where a picture cannot be decoded."""
        data = message.data
        if message.topic in self._decoded:
            compressed = store().deserialize_cdr(data, COMPRESSED)
            data = bytes(store().serialize_cdr(as_image(compressed, COMPRESSED), IMAGE))
        self._tick(message.time_ns)
        self._publishers[message.topic].publish(data)

    def publish_beside(self, message: Message) -> None:
        """Publish a message that nothing is waited for; one that is no picture is noted."""
        try:
            self.publish(message)
        except ImageError as error:
            self.notes.append(f'{message.topic}: not published: {error}')

    def settle(self) -> None:
        """Let the nodes handle what was published so far."""
        self._bench.settle()

    def close(self) -> None:
        """Unpublish everything."""
        for publisher in (*self._publishers.values(), self._clock):
            self._bench.probe.destroy_publisher(publisher)

    def _tick(self, time_ns: int) -> None:
        self._clock.publish(Clock(clock=to_stamp(time_ns)))
        for node in self._nodes:
            if node.get_parameter('use_sim_time').value:
                self._bench.wait(
                    lambda n=node: n.get_clock().now().nanoseconds == time_ns,
                    f'the clock of {node.get_name()}', _MATCH_S,
                )

    def _listeners(self, publisher: Publisher) -> int:
        return sum(
            subscription.topic_name == publisher.topic_name
            for node in self._nodes for subscription in node.subscriptions
        )

    def _names(self, kind: str) -> list[str]:
        return sorted({each.topic_name for node in self._nodes for each in getattr(node, kind)})


@dataclass(frozen=True)
class _Arrival:
    stamp_ns: int | None
    message: Any
    at_s: float


class _Waiting:
    """Subscribes the results, and waits for those of one input."""

    def __init__(self, bench: 'Bench', results: dict[str, type]) -> None:
        self._bench = bench
        self.topics = results.keys()
        self._condition = threading.Condition()
        self._arrived: dict[str, list[_Arrival]] = {topic: [] for topic in results}
        self._subscriptions = [
            bench.probe.create_subscription(
                kind, topic, lambda message, t=topic: self._keep(t, message), _ASKED
            )
            for topic, kind in results.items()
        ]

    def forget(self) -> None:
        """Forget what came for an earlier input, too late."""
        with self._condition:
            for arrived in self._arrived.values():
                arrived.clear()

    def collect(self, stamp_ns: int | None, deadline_s: float) -> dict[str, _Arrival]:
        """Wait for a result on every topic; return those that came in time."""
        def found() -> dict[str, _Arrival]:
            return {
                topic: arrival for topic, arrived in self._arrived.items() for arrival in arrived
                if stamp_ns is None or arrival.stamp_ns in (None, stamp_ns)
            }

        def complete() -> bool:
            with self._condition:
                return self._condition.wait_for(lambda: len(found()) == len(self.topics), _POLL_S)

        deadline = time.monotonic() + deadline_s
        while not complete() and time.monotonic() < deadline:
            self._bench.check()
        with self._condition:
            return found()

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._bench.probe.destroy_subscription(subscription)

    def _keep(self, topic: str, message: Any) -> None:
        at_s = time.perf_counter()
        header = getattr(message, 'header', None)
        stamp_ns = None if header is None else nanoseconds(header.stamp)
        with self._condition:
            self._arrived[topic].append(_Arrival(stamp_ns, message, at_s))
            self._condition.notify_all()


def _step(player: _Player, waiting: _Waiting, message: Message, deadline_s: float) -> Outcome:
    """Publish one input and wait for its results."""
    player.settle()
    waiting.forget()
    stamp_ns = _stamp_of(message)
    outcome = Outcome(message.topic, 0, message.time_ns, stamp_ns or message.time_ns)
    begun_s = time.perf_counter()
    try:
        player.publish(message)
    except ImageError as error:
        outcome.dropped = f'not published: {error}'
        return outcome
    came = waiting.collect(stamp_ns, deadline_s)
    outcome.outputs = {topic: arrival.message for topic, arrival in came.items()}
    if missing := waiting.topics - came.keys():
        outcome.dropped = f'no result on {", ".join(sorted(missing))} within {deadline_s:g} s'
    else:
        outcome.latency_ms = (max(a.at_s for a in came.values()) - begun_s) * 1e3
    return outcome


def _ordered(messages: Iterable[Message], inputs: set[str]) -> Iterator[Message]:
    """Yield messages by time, but what has an input's stamp, or an earlier one, before it."""
    waiting: deque[Message] = deque()

    def release() -> Iterator[Message]:
        head = waiting.popleft()
        stamp_ns = _stamp_of(head)
        if head.topic in inputs and stamp_ns is not None:
            beside = [
                message for message in waiting
                if message.topic not in inputs and (_stamp_of(message) or stamp_ns + 1) <= stamp_ns
            ]
            for message in beside:
                waiting.remove(message)
                yield message
        yield head

    for message in messages:
        waiting.append(message)
        while message.time_ns - waiting[0].time_ns > _TOGETHER_NS:
            yield from release()
    while waiting:
        yield from release()


def _stamp_of(message: Message) -> int | None:
    """Return the stamp in a serialised message's header; None where it has none."""
    kind = _class_of(message.type)
    if kind is None:
        return None
    first = next(iter(kind.get_fields_and_field_types().items()), None)
    if first != ('header', 'std_msgs/Header'):
        return None
    order = '<' if message.data[1] & 1 else '>'     # of the encapsulation header, four bytes
    sec, nanosec = struct.unpack_from(f'{order}iI', message.data, 4)
    return sec * 1_000_000_000 + nanosec


@cache
def _class_of(type_name: str) -> type | None:
    """Return rclpy's class of a message type; None where its package is not installed."""
    package, _, name = type_name.split('/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name, None)
    except ModuleNotFoundError:
        return None


def _record(result: Result, results: dict[str, type], nodes: list[str]) -> list[str]:
    """Write the results for `assert_matches`; return which cannot be stored, and why."""
    notes = {}
    with BagWriter(result.recording) as writer:
        writer.annotate(ABOUT, json.dumps({'nodes': nodes, 'every': 1}))
        for outcome in result.outcomes:
            for topic, message in outcome.outputs.items():
                kind = results[topic]
                type_name = f'{kind.__module__.partition(".")[0]}/msg/{kind.__name__}'
                try:
                    data = serialize_message(message)
                    writer.write(topic, type_name, outcome.time_ns, data)
                except BagError as error:
                    notes[f'not recorded: {error}'] = None
    return list(notes)

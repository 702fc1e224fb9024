"""Plays a bag to nodes in this process: one image, all that comes of it, then the next."""

import json
import struct
import threading
import time
from collections import Counter
from collections import deque
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import pytest
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock

from muon_ad.bags import Bag
from muon_ad.bags import BagError
from muon_ad.bags import BagWriter
from muon_ad.bags import Message
from muon_ad.bags import open_bag
from muon_ad.faults import FaultPlan
from muon_ad.faults import FaultyMessages
from muon_ad.replay.record import ABOUT
from muon_ad.replay.topics import choose
from muon_ad.stamps import nanoseconds
from muon_ad.testing.result import Outcome
from muon_ad.testing.result import Result
from muon_ad_nodes.parts.bag_sender import BadMessage
from muon_ad_nodes.parts.bag_sender import BagSender
from muon_ad_nodes.parts.bag_topics import routes_of
from muon_ad_nodes.parts.stamps import to_stamp

if TYPE_CHECKING:
    from muon_ad_nodes.bench import Bench

_CLOCK = 10
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
    faults: Iterable[str] = (),
    deadline_s: float = 5.0,
    start_s: float = 0.0,
    duration_s: float = 0.0,
) -> Result:
    """Play a bag to the nodes of a bench, in lock-step, and return what came of it.

    results     topic to message class of what is waited for after each input. A result belongs to
                the input whose stamp its header has; one without header to the last input
    inputs      topics of the bag that the nodes work on (default: its colour images). The others
                are played as well, those of an input's stamp before it
    remap       topic of the bag, with or without `/compressed`, to topic of the nodes
    decode      publish compressed pictures decoded as sensor_msgs/Image, on the topic without
                `/compressed` or `/compressedDepth`
    faults      faults to inject, at their time in the bag; their streams are topics of the nodes
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
        player = _Player(bench, opened, remap or {}, decode, faults)
        waiting = _Waiting(bench, results)
        try:
            player.match(chosen, results)
            start_ns = opened.start_ns + round(start_s * 1e9)
            end_ns = start_ns + round(duration_s * 1e9) if duration_s else None
            messages = opened.serialized(player.topics, start_ns, end_ns)
            for message in _ordered(messages, chosen, player.stamp_of):
                if message.topic in chosen:
                    result.outcomes.append(_step(player, waiting, message, deadline_s))
                else:
                    player.publish_beside(message)
        finally:
            waiting.close()
            player.close()
        result.notes += [*player.notes, *filter(None, [opened.trouble])]
        result.notes += [f'{n} messages touched by {k}' for k, n in player.faults.counts.items()]
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

    def __init__(
        self, bench: 'Bench', bag: Bag, remap: dict[str, str], decode: bool, faults: Iterable[str]
    ) -> None:
        rules = [f'{before}:={after}' for before, after in remap.items()]
        self._routes, left_out = routes_of(bag, [], rules, unpack=decode, with_clock=True)
        self.notes = [f'{topic} is not played: {reason}' for topic, reason in left_out.items()]
        self._bench = bench
        self._nodes = [node for node in bench.nodes if node is not bench.probe]
        self._start_ns = bag.start_ns
        self._now_s = 0.0
        self.faults = FaultPlan(faults)
        self._tamper = FaultyMessages(self.faults, lambda: self._now_s) if faults else None
        self._sender = BagSender(bench.probe, self._routes, bag.counts, None, self._tamper)
        self._clock = bench.probe.create_publisher(Clock, '/clock', _CLOCK)

    @property
    def topics(self) -> list[str]:
        """Topics of the bag that can be played."""
        return list(self._routes)

    def match(self, inputs: Iterable[str], results: dict[str, type]) -> None:
        """Wait until the nodes' subscriptions and publishers have found ours."""
        __tracebackhide__ = True
        for topic in inputs:
            if topic not in self._routes:
                raise BagError(f'{topic} cannot be played: {self.notes}')
            name = self._routes[topic].name
            if not self._listeners(name):
                pytest.fail(f'no node subscribes {name}; subscribed are '
                            f'{self._names("subscriptions")}; see remap')
        for route in self._routes.values():
            wanted = self._listeners(route.name)
            self._bench.wait(
                lambda r=route, n=wanted: self._sender.subscribers[r.name] >= n,
                f'a subscription of {route.name} to match (type: '
                f'{route.published_kind.__name__}; and its QoS)', _MATCH_S,
            )
        clocks = self._listeners('/clock')
        self._bench.wait(
            lambda: self._clock.get_subscription_count() >= clocks, 'clocks to match', _MATCH_S
        )
        for topic in results:
            self._match_result(self._bench.probe.resolve_topic_name(topic))

    def _match_result(self, name: str) -> None:
        __tracebackhide__ = True
        sources = [p for node in self._nodes for p in node.publishers if p.topic_name == name]
        if not sources:
            pytest.fail(f'no node publishes {name}; published are {self._names("publishers")}')
        self._bench.wait(
            lambda: all(publisher.get_subscription_count() for publisher in sources),
            f'the publisher of {name} to match (type and QoS)', _MATCH_S,
        )

    def stamp_of(self, message: Message) -> int | None:
        """Return the stamp in a serialised message's header; None where it has none."""
        fields = self._routes[message.topic].kind.get_fields_and_field_types()
        if next(iter(fields.items()), None) != ('header', 'std_msgs/Header'):
            return None
        order = '<' if message.data[1] & 1 else '>'     # of the encapsulation header, four bytes
        sec, nanosec = struct.unpack_from(f'{order}iI', message.data, 4)
        return sec * 1_000_000_000 + nanosec

    def publish(self, message: Message) -> int:
        """Publish a message at its time; return how many left. Raises BadMessage."""
        ready = self._sender.prepare(message)
        self._tick(message.time_ns)
        return self._sender.send(message, ready)

    def publish_beside(self, message: Message) -> None:
        """Publish a message that nothing is waited for; one that is no picture is noted."""
        try:
            self.publish(message)
        except BadMessage as error:
            self.notes.append(f'not played: {error}')

    def settle(self) -> None:
        """Let the nodes handle what was published so far."""
        self._bench.settle()

    def close(self) -> None:
        """Unpublish everything; what faults still hold back is counted as cut off."""
        if self._tamper is not None:
            self._tamper.drop_rest()
        self._sender.destroy()
        self._bench.probe.destroy_publisher(self._clock)

    def _tick(self, time_ns: int) -> None:
        self._now_s = (time_ns - self._start_ns) * 1e-9
        self._clock.publish(Clock(clock=to_stamp(time_ns)))
        for node in self._nodes:
            if node.get_parameter('use_sim_time').value:
                self._bench.wait(
                    lambda n=node: n.get_clock().now().nanoseconds == time_ns,
                    f'the clock of {node.get_name()}', _MATCH_S,
                )

    def _listeners(self, name: str) -> int:
        return sum(
            subscription.topic_name == name
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
    stamp_ns = player.stamp_of(message)
    outcome = Outcome(message.topic, 0, message.time_ns, stamp_ns or message.time_ns)
    begun_s = time.perf_counter()
    try:
        if not player.publish(message):
            outcome.dropped = 'lost or held back by a fault'
            return outcome
    except BadMessage as error:
        outcome.dropped = str(error)
        return outcome
    came = waiting.collect(stamp_ns, deadline_s)
    outcome.outputs = {topic: arrival.message for topic, arrival in came.items()}
    if missing := waiting.topics - came.keys():
        outcome.dropped = f'no result on {", ".join(sorted(missing))} within {deadline_s:g} s'
    else:
        outcome.latency_ms = (max(a.at_s for a in came.values()) - begun_s) * 1e3
    return outcome


def _ordered(
    messages: Iterable[Message], inputs: set[str], stamp_of: Callable[[Message], int | None]
) -> Iterator[Message]:
    """Yield messages by time, but what has an input's stamp, or an earlier one, before it."""
    waiting: deque[tuple[int | None, Message]] = deque()

    def release() -> Iterator[Message]:
        head_ns, head = waiting.popleft()
        if head.topic in inputs and head_ns is not None:
            beside = [
                (stamp_ns, message) for stamp_ns, message in waiting
                if message.topic not in inputs and stamp_ns is not None and stamp_ns <= head_ns
            ]
            for each in beside:
                waiting.remove(each)
                yield each[1]
        yield head

    for message in messages:
        waiting.append((stamp_of(message), message))
        while message.time_ns - waiting[0][1].time_ns > _TOGETHER_NS:
            yield from release()
    while waiting:
        yield from release()


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

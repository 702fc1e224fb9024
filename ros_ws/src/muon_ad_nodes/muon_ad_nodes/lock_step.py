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
from dataclasses import replace
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import pytest
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

from muon_ad.bags import Bag
from muon_ad.bags import BagError
from muon_ad.bags import BagWriter
from muon_ad.bags import Message
from muon_ad.bags import open_bag
from muon_ad.faults import FaultPlan
from muon_ad.faults import FaultyMessages
from muon_ad.pictures import raw_topic
from muon_ad.replay.part import part_of
from muon_ad.replay.record import ABOUT
from muon_ad.replay.topics import choose
from muon_ad.stamps import nanoseconds
from muon_ad.testing.options import listed
from muon_ad.testing.result import Outcome
from muon_ad.testing.result import Result
from muon_ad_nodes.parts.bag_sender import BadMessage
from muon_ad_nodes.parts.bag_sender import BagSender
from muon_ad_nodes.parts.bag_topics import Route
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
_POLL_S = 0.02
# After so many inputs on which a topic has never had a result, these are waited for this long.
_PATIENCE = 3
_BRIEF_S = 0.2
# Where a node's timer runs in the time of the bag, it goes on in such steps while its answer is
# missing, after a real time in which others answer; after the last message so far.
_TIME_STEP_NS = 10_000_000
_STILL_S = 0.1
_BEYOND_NS = 1_000_000_000


def play(
    bench: 'Bench',
    bag: str | Path,
    results: dict[str, type],
    *,
    inputs: str | Iterable[str] = (),
    remap: dict[str, str] | None = None,
    decode: bool = True,
    faults: str | Iterable[str] = (),
    deadline_s: float = 5.0,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> Result:
    """Play a bag to the nodes of a bench, in lock-step, and return what came of it.

    results     topic to message class of what is waited for after each input. A result belongs to
                the input whose stamp its header has; one without header to the last input
    inputs      topics of the bag that the nodes work on (default: its colour images). The others
                are played as well, those of an input's stamp before it
    remap       topic of the bag, with or without `/compressed`, to topic of the nodes
    decode      publish compressed pictures decoded as sensor_msgs/Image, on the topic without
                `/compressed` or `/compressedDepth`
    faults      faults to inject, `at` counted from `start_s`; streams are topics of the nodes
    deadline_s  how long to wait for the results of an input before it counts as dropped; less for
                a topic without any result for the first inputs

    Of several results for an input the first counts, the others are `Outcome.extra`.

    /clock follows the bag for nodes with use_sim_time; while results are missing and such a node
    has a timer, it goes on up to the next message. Raises pytest's failure where a node does
    not subscribe an input or nobody publishes a result, ValueError for a bag or topic that cannot
    be used.
    """
    __tracebackhide__ = True
    if not results or not isinstance(results, dict):
        raise ValueError(
            f'results is {results or "empty"}; expected topics to wait for, with their types: '
            "{'/answer': PointStamped}"
        )
    result = Result(Path(bag), bench.new_recording(), update_goldens=bench.update_goldens)
    result.topics = list(results)
    with open_bag(bag) as opened:
        part_ns = part_of(opened, start_s, duration_s)
        chosen = _inputs(opened, listed(inputs))
        player = _Player(bench, opened, part_ns[0], remap or {}, decode, listed(faults))
        player.check(chosen, results)
        waiting = _Waiting(bench, results)
        try:
            player.match(results)
            result.classes = player.labels(results)
            messages = opened.serialized(player.topics, *part_ns)
            ordered = _ordered(messages, chosen, player.stamp_of)
            for outcome in _outcomes(player, waiting, _with_next(ordered), chosen, deadline_s):
                result.outcomes.append(outcome)
            player.settle()
        finally:
            waiting.close()
            player.close()
        result.notes += [*player.notes, *waiting.notes(), *filter(None, [opened.trouble])]
        result.notes += player.fault_notes()
    if not result.outcomes:
        raise BagError(f'{bag}: no image was played. {" ".join(result.notes)}'.strip())
    result.notes += _record(result, results, _about(bench))
    return result


def _inputs(bag: Bag, chosen: list[str]) -> set[str]:
    if not chosen:
        streams, _ = choose(bag)
        return {stream.image for stream in streams}
    if unknown := [topic for topic in chosen if topic not in bag.topics]:
        raise BagError(f'{bag.path} has no topic {unknown}; it has {sorted(bag.topics)}')
    return set(chosen)


def _outcomes(
    player: '_Player', waiting: '_Waiting', messages: Iterable[tuple[Message, int]],
    inputs: set[str], deadline_s: float,
) -> Iterator[Outcome]:
    """Play messages, given with the time of the next; yield what came of each input."""
    __tracebackhide__ = True
    numbers: Counter[str] = Counter()
    for message, next_ns in messages:
        if message.topic not in inputs:
            player.publish_beside(message)
            continue
        player.settle()
        stamp_ns = player.stamp_of(message)
        outcome = Outcome(
            message.topic, numbers[message.topic], message.time_ns,
            message.time_ns if stamp_ns is None else stamp_ns,
        )
        numbers[message.topic] += 1
        waiting.begin(outcome, stamp_ns)
        _step(player, waiting, message, next_ns, deadline_s)
        yield outcome


def _with_next(messages: Iterable[Message]) -> Iterator[tuple[Message, int]]:
    """Yield each message with the time of the next; what comes after the last: see _BEYOND_NS."""
    before = None
    for message in messages:
        if before is not None:
            yield before, message.time_ns
        before = message
    if before is not None:
        yield before, before.time_ns + _BEYOND_NS


class _Player:
    """Publishes messages of a bag, from the bench's own node."""

    def __init__(
        self, bench: 'Bench', bag: Bag, start_ns: int, remap: dict[str, str], decode: bool,
        faults: list[str],
    ) -> None:
        there = {*bag.topics, *map(raw_topic, bag.topics)}
        rules = [f'{before}:={after}' for before, after in remap.items() if before in there]
        self._bench = bench
        self._nodes = [node for node in bench.nodes if node is not bench.probe]
        self._routes, left_out = routes_of(bag, [], rules, unpack=decode, with_clock=True)
        if decode:
            self._routes = {topic: self._by_type(route) for topic, route in self._routes.items()}
        self.notes = [
            *(f'{topic} is not played: {reason}' for topic, reason in left_out.items()),
            *(f'{name} is not in the bag, to be remapped' for name in remap if name not in there),
        ]
        self._counts = bag.counts
        self._start_ns = self._played_ns = self._time_ns = start_ns
        self._sender: BagSender | None = None
        self._clock: Publisher | None = None
        self._faults = FaultPlan(faults)
        self._faults.expect_streams(route.name for route in self._routes.values())
        self._tamper = FaultyMessages(self._faults, lambda: self._now_s) if faults else None

    @property
    def topics(self) -> list[str]:
        """Topics of the bag that can be played."""
        return list(self._routes)

    def check(self, inputs: Iterable[str], results: dict[str, type]) -> None:
        """Fail where the nodes and the bag do not fit: topics, and the types of all."""
        __tracebackhide__ = True
        for topic in inputs:
            if topic not in self._routes:
                raise BagError(f'{topic} cannot be played: {self.notes}')
            name = self._routes[topic].name
            if not self._of('subscriptions', name):
                pytest.fail(f'no node subscribes {name}; subscribed are '
                            f'{self._names("subscriptions")}; see remap and decode')
        for route in self._routes.values():
            self._check_type('subscriptions', route.name, route.published_kind,
                             f'{route.topic} of the bag is played on it as', 'remap and decode')
        for topic, kind in results.items():
            name = self._bench.probe.resolve_topic_name(topic)
            if not self._of('publishers', name):
                pytest.fail(f'no node publishes {name}; published are {self._names("publishers")}')
            self._check_type('publishers', name, kind, 'results has', 'the types in results')

    def labels(self, results: dict[str, type]) -> tuple[str, ...]:
        """Return the labels that detections can have; none where a node does not tell."""
        told = [
            getattr(node, 'reported', ())
            for topic, kind in results.items() if 'detections' in kind.get_fields_and_field_types()
            for node, _ in self._of('publishers', self._bench.probe.resolve_topic_name(topic))
        ]
        return tuple(dict.fromkeys(name for names in told for name in names)) if all(told) else ()

    def match(self, results: dict[str, type]) -> None:
        """Publish, and wait until the nodes' subscriptions and publishers have found ours."""
        __tracebackhide__ = True
        probe = self._bench.probe
        self._sender = BagSender(probe, self._routes, self._counts, None, self._tamper)
        self._clock = probe.create_publisher(Clock, '/clock', _CLOCK)
        for route in self._routes.values():
            wanted = len(self._of('subscriptions', route.name))
            self._bench.wait(
                lambda r=route, n=wanted: self._sender.subscribers[r.name] >= n,
                f'a subscription of {route.name} to match (its QoS)', _MATCH_S,
            )
        clocks = len(self._of('subscriptions', '/clock'))
        self._bench.wait(
            lambda: self._clock.get_subscription_count() >= clocks, 'clocks to match', _MATCH_S
        )
        for topic in results:
            name = probe.resolve_topic_name(topic)
            self._bench.wait(
                lambda n=name: all(
                    publisher.get_subscription_count()
                    for _, publisher in self._of('publishers', n)
                ),
                f'the publisher of {name} to match (its QoS)', _MATCH_S,
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
        self._played_ns = message.time_ns
        self._tick(message.time_ns)
        return self._sender.send(message, ready)

    @property
    def has_timers(self) -> bool:
        """Whether a timer of a node runs in the time of the bag."""
        return any(
            timer.clock is node.get_clock()
            for node in self._in_bag_time() for timer in node.timers
        )

    def step_time(self, before_ns: int) -> bool:
        """Let the time of the bag go on by a step; return whether one is left before that time."""
        if self._time_ns + _TIME_STEP_NS >= before_ns:
            return False
        self._tick(self._time_ns + _TIME_STEP_NS)
        self.settle()
        return True

    def fault_notes(self) -> list[str]:
        """Say what the faults did, and which did nothing."""
        counts = self._faults.counts
        return [
            *(f'{count} messages touched by {kind}' for kind, count in counts.items()),
            *self._faults.idle(self._now_s),
        ]

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
        if self._sender is not None:
            self._sender.destroy()
        if self._clock is not None:
            self._bench.probe.destroy_publisher(self._clock)

    @property
    def _now_s(self) -> float:
        return (self._played_ns - self._start_ns) * 1e-9

    def _tick(self, time_ns: int) -> None:
        self._time_ns = time_ns
        self._clock.publish(Clock(clock=to_stamp(time_ns)))
        for node in self._in_bag_time():
            self._bench.wait(
                lambda n=node: n.get_clock().now().nanoseconds == time_ns,
                f'the clock of {node.get_name()}', _MATCH_S,
            )

    def _in_bag_time(self) -> list[Node]:
        return [node for node in self._nodes if node.get_parameter('use_sim_time').value]

    def _by_type(self, route: Route) -> Route:
        """Decode what the nodes subscribe as Image, though its name does not say compressed."""
        kinds = {each.msg_type for _, each in self._of('subscriptions', route.name)}
        if route.kind is CompressedImage and kinds == {Image}:
            return replace(route, unpack=True)
        return route

    def _of(self, what: str, name: str) -> list[tuple[Node, Any]]:
        """Return the nodes' 'subscriptions' or 'publishers' of a topic."""
        return [
            (node, each)
            for node in self._nodes for each in getattr(node, what) if each.topic_name == name
        ]

    def _names(self, what: str) -> list[str]:
        return sorted({each.topic_name for node in self._nodes for each in getattr(node, what)})

    def _check_type(self, what: str, name: str, kind: type, ours: str, see: str) -> None:
        __tracebackhide__ = True
        for node, each in self._of(what, name):
            if each.msg_type is not kind:
                verb = 'subscribes' if what == 'subscriptions' else 'publishes'
                theirs = _type_name(each.msg_type)
                pytest.fail(f'node {node.get_name()} {verb} {name} as {theirs}; {ours} '
                            f'{_type_name(kind)}; see {see}')


class _Waiting:
    """Subscribes the results, and gives each to the input that it is of."""

    def __init__(self, bench: 'Bench', results: dict[str, type]) -> None:
        self._bench = bench
        self._topics = results.keys()
        self._condition = threading.Condition()
        self._inputs: dict[int, Outcome] = {}       # by stamp
        self._current: Outcome | None = None
        self._stamp_ns: int | None = None
        self._open = False
        self._last_s = 0.0
        self._in_vain: Counter[str] = Counter()
        self._heard: set[str] = set()       # topics that ever gave a result of an input
        self._extra: dict[str, list[Outcome]] = {}
        self._late: Counter[str] = Counter()
        self._strange: dict[str, list[int]] = {}
        self._subscriptions = [
            bench.probe.create_subscription(
                kind, topic, lambda message, t=topic: self._keep(t, message), _ASKED
            )
            for topic, kind in results.items()
        ]

    def begin(self, outcome: Outcome, stamp_ns: int | None) -> None:
        """From now on wait for the results of this input; `stamp_ns` is None without header."""
        self._bench.playing = str(outcome)
        with self._condition:
            self._current, self._stamp_ns, self._open = outcome, stamp_ns, True
            if stamp_ns is not None:
                self._inputs[stamp_ns] = outcome

    def collect(
        self, begun_s: float, deadline_s: float, meanwhile: Callable[[float], None]
    ) -> None:
        """Wait for a result on every topic; the input was sent at `begun_s` (perf_counter).

        Calls `meanwhile` with the seconds waited so far, again and again.
        """
        __tracebackhide__ = True
        limit_s = deadline_s
        while missing := self._wait():
            self._bench.check()
            limit_s = min(_BRIEF_S, deadline_s) if self._silent(missing) else deadline_s
            waited_s = time.perf_counter() - begun_s
            if waited_s > limit_s:
                break
            meanwhile(waited_s)
        with self._condition:
            self._open = False
            missing = self._missing()
            self._in_vain.update(missing)
            if missing:
                self._current.dropped = f'no result on {", ".join(missing)} within {limit_s:g} s'
            else:
                self._current.latency_ms = (self._last_s - begun_s) * 1e3

    def give_up(self, reason: str) -> None:
        """Drop the input."""
        with self._condition:
            self._open = False
            self._current.dropped = reason

    def notes(self) -> list[str]:
        """Say which results belong to no input, and which nobody waited for."""
        return [
            *(f'{topic}: {len(outcomes)} results more than one an image, which are left out; '
              f'first at {outcomes[0]}' for topic, outcomes in self._extra.items()),
            *(f'{topic}: {count} results came when no longer waited for'
              for topic, count in self._late.items()),
            *(f'{topic}: {len(stamps)} results came with stamps of no image, such as '
              f'{stamps[0] * 1e-9:.3f} s' for topic, stamps in self._strange.items()),
            *(f'{topic}: never a result; after {_PATIENCE} images it was waited for only '
              f'{_BRIEF_S:g} s each' for topic, count in self._in_vain.items()
              if count > _PATIENCE and topic not in self._heard),
        ]

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._bench.probe.destroy_subscription(subscription)

    def _wait(self) -> list[str]:
        with self._condition:
            self._condition.wait_for(lambda: not self._missing(), _POLL_S)
            return self._missing()

    def _silent(self, topics: list[str]) -> bool:
        return all(
            topic not in self._heard and self._in_vain[topic] >= _PATIENCE for topic in topics
        )

    def _missing(self) -> list[str]:
        return sorted(self._topics - self._current.outputs.keys())

    def _keep(self, topic: str, message: Any) -> None:
        at_s = time.perf_counter()
        header = getattr(message, 'header', None)
        stamp_ns = None if header is None else nanoseconds(header.stamp)
        with self._condition:
            of = self._current
            if stamp_ns is not None and self._stamp_ns is not None:
                of = self._inputs.get(stamp_ns)
            if of is None:
                if stamp_ns is not None:
                    self._strange.setdefault(topic, []).append(stamp_ns)
                return
            self._heard.add(topic)
            if topic in of.outputs:
                of.extra += 1
                self._extra.setdefault(topic, []).append(of)
            elif of is not self._current or not self._open:
                self._late[topic] += 1
            else:
                of.outputs[topic] = message
                self._last_s = at_s
                self._condition.notify_all()


def _step(
    player: _Player, waiting: _Waiting, message: Message, next_ns: int, deadline_s: float
) -> None:
    """Publish one input and wait for its results, until the time of the next."""
    __tracebackhide__ = True
    begun_s = time.perf_counter()
    try:
        if not player.publish(message):
            waiting.give_up('lost or held back by a fault')
            return
    except BadMessage as error:
        waiting.give_up(str(error))
        return

    def meanwhile(waited_s: float) -> None:
        if waited_s > _STILL_S and player.has_timers:
            player.step_time(next_ns)

    waiting.collect(begun_s, deadline_s, meanwhile)


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
                # The time must not go back with the input.
                yield replace(each[1], time_ns=min(each[1].time_ns, head.time_ns))
        yield head

    for message in messages:
        waiting.append((stamp_of(message), message))
        while message.time_ns - waiting[0][1].time_ns > _TOGETHER_NS:
            yield from release()
    while waiting:
        yield from release()


def _about(bench: 'Bench') -> dict:
    """Return what made the results: the nodes, and the parameters that the test gave them."""
    given = {
        node.get_name(): {name: node.get_parameter(name).value for name in names}
        for node, names in bench.given.items()
    }
    return {'nodes': [node.get_name() for node in bench.nodes], 'every': 1, 'parameters': given}


def _type_name(kind: type) -> str:
    return f'{kind.__module__.partition(".")[0]}/msg/{kind.__name__}'


def _record(result: Result, results: dict[str, type], about: dict) -> list[str]:
    """Write the results for `assert_matches`; return which cannot be stored, and why."""
    notes = {}
    with BagWriter(result.recording) as writer:
        writer.annotate(ABOUT, json.dumps(about, default=list))
        for outcome in result.outcomes:
            for topic, message in outcome.outputs.items():
                try:
                    data = serialize_message(message)
                    writer.write(topic, _type_name(results[topic]), outcome.time_ns, data)
                except BagError as error:
                    notes[f'not recorded: {error}'] = None
    return list(notes)

"""Which topics of a bag are played, as what type and under which name."""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import Image

from muon_ad.bags import Bag
from muon_ad.bags.error import first_line
from muon_ad.pictures import COMPRESSED
from muon_ad.pictures import raw_topic
from muon_ad_nodes.parts.parameters import ParameterError

_LATCHED = ('/tf_static', '/robot_description')


@dataclass(frozen=True)
class Route:
    """One topic of a bag on its way out.

    `kind` is the class of its messages in the bag; with `unpack` they are pictures that are
    published as sensor_msgs/Image.
    """

    topic: str
    kind: type
    name: str
    unpack: bool
    latched: bool

    @property
    def published_kind(self) -> type:
        """The class of the messages that are published."""
        return Image if self.unpack else self.kind


def routes_of(
    bag: Bag, patterns: list[str], remap: list[str], unpack: bool, with_clock: bool
) -> tuple[dict[str, Route], dict[str, str]]:
    """Return the routes by topic of the bag, and why the other selected topics have none.

    `patterns` select topics, with wildcards, all where there are none; `remap` has entries
    'from:=to'. With `unpack` a compressed image is published raw under the name without
    '/compressed', unless that topic is played as well. `with_clock`: the time is made here, so
    that a /clock in the bag is left out. Raises ParameterError for names that the bag has not,
    and for two topics under one name.
    """
    selected = _selected(bag, patterns)
    renamed = _renamed(bag, remap)
    routes, left_out = {}, {}
    for topic in selected:
        raw = raw_topic(topic)
        unpacked = unpack and bag.topics[topic] == COMPRESSED and raw not in selected
        name = renamed.get(topic) or (renamed.get(raw, raw) if unpacked else topic)
        kind, reason = _class_of(bag.topics[topic])
        if with_clock and topic == '/clock':
            reason = 'the player makes the time itself'
        if reason := reason or _wrong_with(name):
            left_out[topic] = reason
            continue
        latched = topic in bag.latched or topic in _LATCHED
        routes[topic] = Route(topic, kind, name, unpacked, latched)
    _refuse_twice(routes.values())
    return routes, left_out


def _selected(bag: Bag, patterns: list[str]) -> list[str]:
    for pattern in patterns:
        if not any(fnmatchcase(topic, pattern) for topic in bag.topics):
            raise ParameterError(
                f'parameter topics has {pattern!r}; the bag has {", ".join(sorted(bag.topics))}'
            )
    wanted = patterns or ['*']
    return [t for t in bag.topics if any(fnmatchcase(t, pattern) for pattern in wanted)]


def _renamed(bag: Bag, remap: list[str]) -> dict[str, str]:
    known = {*bag.topics, *map(raw_topic, bag.topics)}
    names = {}
    for entry in remap:
        before, separator, after = entry.partition(':=')
        if not separator or not after or before not in known:
            raise ParameterError(
                f'parameter remap has {entry!r}; expected from:=to with a topic of the bag: '
                f'{", ".join(sorted(known))}'
            )
        if wrong := _wrong_with(after):
            raise ParameterError(f'parameter remap has {entry!r}; expected another name: {wrong}')
        names[before] = after
    return names


def _class_of(type_name: str) -> tuple[type | None, str]:
    """Return the class of a type's messages, or why there is none."""
    package, _, name = type_name.partition('/msg/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name), ''
    except (ImportError, AttributeError, ValueError, TypeError):
        return None, f'{type_name or "a type without a name"} is not installed'


def _wrong_with(name: str) -> str:
    """Return why this is no name of a topic, '' where it is one."""
    try:
        validate_topic_name(name)
    except InvalidTopicNameException as error:
        return first_line(error)
    return ''


def _refuse_twice(routes: Iterable[Route]) -> None:
    names: dict[str, str] = {}
    for route in routes:
        other = names.setdefault(route.name, route.topic)
        if other != route.topic:
            raise ParameterError(
                f'parameters topics and remap would play {other} and {route.topic} both as '
                f'{route.name}; leave one out or give it another name'
            )

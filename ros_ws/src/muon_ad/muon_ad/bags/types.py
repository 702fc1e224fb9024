"""Message types without ROS: from the definitions in a bag, or those of ROS 2 and the suite."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from functools import lru_cache
from pathlib import Path

from rosbags.interfaces import QosDurability
from rosbags.rosbag2 import ReaderError
from rosbags.rosbag2.metadata import parse_qos
from rosbags.serde import SerdeError
from rosbags.typesys import get_types_from_idl
from rosbags.typesys import get_types_from_msg
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
from rosbags.typesys import TypesysError
from rosbags.typesys.msg import normalize_msgtype
from rosbags.typesys.store import Typestore

from muon_ad.bags.error import first_line

# A link to the message package, installed as data of this one: bags need no ROS.
_OWN_MESSAGES = Path(__file__).parent / 'muon_ad_msgs'
_HEADER = 'std_msgs/msg/Header'
# What rosbags raises for a definition that is not one (RecursionError: a type within itself).
_BAD_DEFINITION = (TypesysError, SerdeError, ValueError, KeyError, SyntaxError, RecursionError)
_BAD_MESSAGE = (SerdeError, struct.error, ValueError, IndexError, AssertionError, MemoryError)


class TypeNotKnown(ValueError):
    """There is no usable definition of a message type; says why."""


class NotDecodable(ValueError):
    """The bytes of a message do not fit its definition."""


@dataclass(frozen=True)
class Channel:
    """One topic as a file declares it.

    `type` is normalised (`sensor_msgs/msg/Image`, also where the file says `sensor_msgs/Image`);
    `encoding` is that of the messages: cdr or ros1; `syntax` that of `definition`: ros2msg,
    ros1msg, ros2idl, or empty where the file holds none. A `latched` topic keeps its last message
    for subscribers that come late.
    """

    topic: str
    type: str
    encoding: str
    definition: str = ''
    syntax: str = ''
    latched: bool = False


@dataclass(frozen=True)
class Codec:
    """How messages of one channel are read.

    `to_cdr` returns the message as ROS 2 serialises it; `decode` takes that and returns an object
    with the fields of the type. Both raise NotDecodable.
    """

    to_cdr: Callable[[bytes], bytes]
    decode: Callable[[bytes], object]


def _undecoded(_: bytes) -> object:
    raise NotDecodable('the type is not known here')


_PASSING = Codec(bytes, _undecoded)


@cache
def store() -> Typestore:
    """Return the types of ROS 2 and of muon_ad_msgs."""
    store = get_typestore(Stores.LATEST)
    definitions = {}
    for path in sorted(_OWN_MESSAGES.glob('*.msg')):
        name = f'muon_ad_msgs/msg/{path.stem}'
        definitions.update(get_types_from_msg(path.read_text(encoding='utf-8'), name))
    store.register(definitions)
    return store


def message_class(type_name: str) -> type:
    """Return the class of a ROS 2 or muon_ad_msgs type, such as 'sensor_msgs/msg/Image'.

    Its instances take every field as an argument, arrays of numbers as numpy arrays. Raises
    TypeNotKnown for another type.
    """
    try:
        return store().types[type_name]
    except KeyError:
        raise TypeNotKnown(
            f'{type_name!r} is no type of ROS 2 or muon_ad_msgs; expected package/msg/Name'
        ) from None


def normalised(type_name: str) -> str:
    """Return a type's name as ROS 2 writes it, 'sensor_msgs/msg/Image' for 'sensor_msgs/Image'.

    What is no name of a type is returned as it is, and has no codec.
    """
    if '/' not in type_name:
        return type_name
    try:
        return normalize_msgtype(type_name)
    except (AssertionError, ValueError, IndexError):
        return type_name


def is_latched(profiles: str) -> bool:
    """Whether one of the QoS profiles, as rosbag2 writes them (YAML), is transient local."""
    try:
        return any(q.durability == QosDurability.TRANSIENT_LOCAL for q in parse_qos(profiles))
    except (ReaderError, TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return False


@lru_cache(256)
def codec(channel: Channel) -> Codec:
    """Return how the messages of `channel` are read. Raises TypeNotKnown."""
    if channel.encoding not in ('cdr', 'ros1'):
        raise TypeNotKnown(f'messages are {channel.encoding!r}; expected cdr or ros1')
    types = _types_of(channel)
    name = channel.type

    def decode(cdr: bytes) -> object:
        try:
            return types.deserialize_cdr(cdr, name)
        except _BAD_MESSAGE as error:
            raise NotDecodable(f'not a {name}: {first_line(error)}') from error

    def from_ros1(raw: bytes) -> bytes:
        try:
            return bytes(types.ros1_to_cdr(raw, name))
        except _BAD_MESSAGE as error:
            raise NotDecodable(f'not a {name} of ROS 1: {first_line(error)}') from error

    return Codec(from_ros1 if channel.encoding == 'ros1' else bytes, decode)


def cdr_codec(channel: Channel) -> Codec:
    """Return how the messages of `channel` become CDR; what is CDR needs no definition for that.

    Raises TypeNotKnown.
    """
    return _PASSING if channel.encoding == 'cdr' else codec(channel)


def _types_of(channel: Channel) -> Typestore:
    """Return a store with the channel's type, from its own definition where there is one."""
    if not channel.definition:
        if channel.type not in store().fielddefs:
            name = channel.type or 'the type, which has no name,'
            raise TypeNotKnown(f'{name} has no definition in the bag, and is no type of ROS 2')
        return store()
    parse = get_types_from_idl if channel.syntax.endswith('idl') else None
    try:
        if parse is None:
            definitions = get_types_from_msg(channel.definition, channel.type)
        else:
            definitions = {}
            for part in _idl_files(channel.definition):
                definitions.update(parse(part))
        if channel.encoding == 'ros1' and _HEADER in definitions:
            # rosbags drops the sequence number of ROS 1 itself, for the header of ROS 2.
            definitions[_HEADER] = store().fielddefs[_HEADER]
        types = get_typestore(Stores.EMPTY)
        types.register(definitions)
        types.get_msgdef(channel.type)
    except _BAD_DEFINITION as error:
        wrong = first_line(error)
        raise TypeNotKnown(f'the definition of {channel.type} is not usable: {wrong}') from error
    return store() if _same_layout(types) else types


def _idl_files(definition: str) -> list[str]:
    separator = '=' * 80 + '\n'
    if not definition.startswith(f'{separator}IDL: '):
        return [definition]
    return [part.partition('\n')[2] for part in definition.split(separator)[1:]]


def _same_layout(types: Typestore) -> bool:
    """Whether ROS 2 has these types, but for upper case in names: `K` in ROS 1 is `k` here."""
    known = store().fielddefs

    def fields(definitions: dict, name: str) -> list:
        return [(field.lower(), kind) for field, kind in definitions[name][1]]

    return all(
        part in known and fields(types.fielddefs, part) == fields(known, part)
        for part in types.fielddefs
    )

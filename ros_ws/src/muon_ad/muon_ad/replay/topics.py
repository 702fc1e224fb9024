"""Which topics of a bag the networks look at, and what belongs to each camera."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from muon_ad.bags import Bag
from muon_ad.images import DEPTH_ENCODINGS
from muon_ad.pictures import COMPRESSED
from muon_ad.pictures import IMAGE
from muon_ad.pictures import raw_topic
from muon_ad.replay.error import ReplayError

CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'

# Names that ROS takes; two underscores it keeps for itself.
_NAME = re.compile(r'(/(?!\w*__)[A-Za-z_]\w*)+', re.ASCII)
# Topics whose depth has a value for each pixel of a colour image: realsense-ros, openni, Kinect.
_ALIGNED = ('aligned', 'registered')


@dataclass(frozen=True)
class Stream:
    """The topics of one camera; depth and camera_info are empty where there are none."""

    image: str
    depth: str = ''
    camera_info: str = ''

    @property
    def topics(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(filter(None, (self.image, self.depth, self.camera_info)))


def is_name(topic: object) -> bool:
    """Whether this is a full name of a topic, such as /camera/image_raw."""
    return isinstance(topic, str) and _NAME.fullmatch(topic) is not None


def choose(
    bag: Bag, images: Sequence[str] = (), depth: str = '', camera_info: str = ''
) -> tuple[list[Stream], list[str]]:
    """Return the cameras to look at, and lines that say what was left out and why.

    Without `images` these are all colour images of the bag; of an image that is there raw and
    compressed, the raw one. Depth is taken where its name says that it is aligned, camera_info
    beside the image (REP-135). Raises ReplayError where nothing is left, for a topic that is not
    there or of another type, for `depth` that is the image itself, and for `depth` or
    `camera_info` with several cameras.
    """
    colours, depths = _pictures(bag)
    notes = []
    if images:
        for topic in images:
            _expect(bag, topic, (IMAGE, COMPRESSED), 'image')
        chosen = list(dict.fromkeys(images))
        if len({raw_topic(topic) for topic in chosen}) < len(chosen):
            raise ReplayError(
                f'image {" and ".join(chosen)}: some are copies of one another, whose results '
                'would have one name; choose one of each'
            )
    else:
        chosen, notes = _without_copies(colours)
    if not chosen:
        raise ReplayError(
            f'{bag.path}: no images of colour; it has {_listed(bag) or "no topics at all"}'
            + (f'; damaged: {bag.trouble}' if bag.trouble else '')
        )
    if len(chosen) > 1 and (depth or camera_info):
        raise ReplayError(
            f'depth and camera_info belong to one camera; choose its image, one of '
            f'{", ".join(chosen)}'
        )
    if depth and raw_topic(depth) in map(raw_topic, chosen):
        raise ReplayError(
            f'depth {depth}: is the image itself; expected another topic, of depth that is '
            'aligned with it'
        )
    streams = []
    for topic in chosen:
        streams.append(Stream(
            topic,
            _expect(bag, depth, (IMAGE, COMPRESSED), 'depth')
            or _aligned(topic, depths, alone=len(chosen) == 1),
            _expect(bag, camera_info, (CAMERA_INFO,), 'camera_info') or _info(bag, topic),
        ))
    used = {topic for stream in streams for topic in stream.topics}
    notes += [
        f'{topic} is left out: not known to be aligned with an image; name it as depth to use it'
        for topic in depths if topic not in used and raw_topic(topic) not in map(raw_topic, used)
    ]
    return streams, notes


def _pictures(bag: Bag) -> tuple[list[str], list[str]]:
    """Return the topics of colour images, and those of depth."""
    colours, depths = [], []
    for topic, kind in sorted(bag.topics.items()):
        if kind not in (IMAGE, COMPRESSED) or topic in bag.unreadable:
            continue
        first = next(bag.messages([topic]), None)
        if first is None:
            continue
        if kind == COMPRESSED:
            is_depth = 'compressedDepth' in first.data.format
        else:
            is_depth = first.data.encoding in (*DEPTH_ENCODINGS, 'mono16')
        (depths if is_depth else colours).append(topic)
    return colours, depths


def _without_copies(topics: list[str]) -> tuple[list[str], list[str]]:
    chosen: dict[str, str] = {}
    notes = []
    for topic in topics:        # sorted: the raw one comes before its compressed copies
        first = chosen.setdefault(raw_topic(topic), topic)
        if first != topic:
            notes.append(
                f'{topic} is left out: {first} has the same images; name it as image to use it'
            )
    return list(chosen.values()), notes


def _aligned(image: str, depths: list[str], alone: bool) -> str:
    """Return the aligned depth nearest to `image` in the tree of names, or ''.

    Where there are several cameras, it shares at least the first name with its image.
    """
    def shared(topic: str) -> int:
        parts = zip(topic.split('/'), image.split('/'), strict=False)
        return next((i for i, (a, b) in enumerate(parts) if a != b), 99)

    named = [topic for topic in depths if any(word in topic for word in _ALIGNED)]
    least = 0 if alone else 2       # the first part is empty: names begin with a slash
    return max((topic for topic in named if shared(topic) >= least), key=shared, default='')


def _info(bag: Bag, image: str) -> str:
    beside = f'{raw_topic(image).rpartition("/")[0]}/camera_info'
    return beside if bag.topics.get(beside) == CAMERA_INFO else ''


def _expect(bag: Bag, topic: str, types: tuple[str, ...], option: str) -> str:
    if topic and bag.topics.get(topic) not in types:
        found = f'is {bag.topics[topic]}' if topic in bag.topics else 'is not in the bag'
        raise ReplayError(
            f'{option} {topic}: {found}; expected {" or ".join(types)}; {bag.path} has '
            f'{_listed(bag) or "no topics"}'
        )
    if topic in bag.unreadable:
        raise ReplayError(f'{option} {topic}: {bag.unreadable[topic]}')
    return topic


def _listed(bag: Bag) -> str:
    return ', '.join(
        f'{topic} ({bag.counts.get(topic, 0)} {kind.rpartition("/")[2]})'
        for topic, kind in sorted(bag.topics.items())
    )

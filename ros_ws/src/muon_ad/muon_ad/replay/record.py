"""Results of a replay as a bag: written, and read back to compare with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import yaml
from mcap.exceptions import McapError
from mcap.reader import make_reader

from muon_ad.bags import BagWriter
from muon_ad.bags import open_bag
from muon_ad.images import ImageError
from muon_ad.pictures import COMPRESSED
from muon_ad.pictures import IMAGE
from muon_ad.pictures import raw_topic
from muon_ad.replay import messages
from muon_ad.replay.error import ReplayError
from muon_ad.replay.pipeline import Frame
from muon_ad.replay.topics import is_name
from muon_ad.replay.topics import Stream
from muon_ad.stamps import nanoseconds

# Key of what a recording says about itself, in its metadata (rosbag2's custom data).
ABOUT = 'muon_ad.replay'


@dataclass(frozen=True)
class Naming:
    """Topics of results: beside the image's own, unless `remap` renames them."""

    remap: dict[str, str] = field(default_factory=dict)

    def style(self, stream: Stream) -> str:
        """Topic of stylised images, without the transport's ending."""
        return self._name(f'{raw_topic(stream.image)}/style')

    def detections(self, stream: Stream) -> str:
        """Topic of detections."""
        return self._name(f'{raw_topic(stream.image)}/detections')

    def check(self, results: Sequence[str]) -> None:
        """Raise ReplayError where the new names do not fit the topics that `results` have.

        These are the names of a `Naming` without `remap`. A renamed topic is one of them, a new
        name one that ROS takes, and all results have names of their own.
        """
        for before, after in self.remap.items():
            if before not in results:
                raise ReplayError(
                    f'remap {before}:={after}: no result is of {before}; results are of '
                    f'{", ".join(results)}'
                )
            if not is_name(after):
                raise ReplayError(
                    f'remap {before}:={after}: {after} is no name of a topic; expected one such '
                    'as /camera/style'
                )
        # As they are read back: without the ending that a compressed picture adds.
        names = [raw_topic(self._name(topic)) for topic in results]
        if twice := [topic for topic, name in zip(results, names, strict=True)
                     if names.count(name) > 1]:
            raise ReplayError(
                f'remap would give {" and ".join(twice)} one name, {self._name(twice[0])}; '
                'choose another for one of them'
            )

    def _name(self, topic: str) -> str:
        return self.remap.get(topic, topic)


class Recorder:
    """Writes results to an MCAP at `path`; a context manager. Log times are those of the images.

    Stylised images are PNG in a CompressedImage: without loss, a third of the size, and Foxglove
    shows it; `raw` writes sensor_msgs/Image. One stylised image in `every` is written, the first
    included: detections are small, images decide about the size of a recording. Raises BagError
    where the file is there already or cannot be written.
    """

    def __init__(
        self, path: Path, naming: Naming, about: dict, *, raw: bool = False, every: int = 1
    ) -> None:
        if path.suffix != '.mcap':
            raise ReplayError(f'--record {path}: expected a name that ends in .mcap')
        self._writer = BagWriter(path)
        self._naming = naming
        self._raw = raw
        self._every = every
        self._about = {**about, 'every': every}
        self._dropped = 0

    def write(self, frame: Frame) -> None:
        """Append what came of one image."""
        self._dropped += bool(frame.dropped)
        if frame.stylised is not None and frame.number % self._every == 0:
            self._write_style(frame)
        if frame.detections is not None:
            topic = self._naming.detections(frame.stream)
            self._writer.write(topic, messages.DETECTIONS, frame.time_ns, frame.detections)

    def _write_style(self, frame: Frame) -> None:
        topic = self._naming.style(frame.stream)
        of_header = messages.header(frame.stamp_ns, frame.frame_id)
        if self._raw:
            message = messages.image(frame.stylised, 'rgb8', of_header)
            self._writer.write(topic, IMAGE, frame.time_ns, message)
        else:
            message = messages.png(frame.stylised, of_header)
            self._writer.write(f'{topic}/compressed', COMPRESSED, frame.time_ns, message)

    def __enter__(self) -> 'Recorder':
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        about = {**self._about, 'dropped': self._dropped}
        self._writer.annotate(ABOUT, json.dumps(about, sort_keys=True))
        self._writer.__exit__(kind, *rest)


@dataclass
class Recorded:
    """One result of a recording; a picture is decoded when it is needed."""

    stamp_ns: int
    type: str
    message: Any

    @property
    def value(self) -> Any:
        """The message, or the picture in it (see `pixels_of`); raises ImageError."""
        if self.type in (IMAGE, COMPRESSED):
            return messages.pixels_of(self.message, self.type)
        return self.message


@dataclass
class Recording:
    """The results in a file, by topic (without the transport's ending), and `about` them."""

    path: Path
    about: dict
    results: dict[str, list[Recorded]]


def read_recording(path: str | Path) -> Recording:
    """Read what a Recorder wrote; all of it, as goldens are small.

    Raises ReplayError for a file that is damaged or holds no results, BagError for no bag at all.
    """
    path = Path(path).expanduser()
    results: dict[str, list[Recorded]] = {}
    with open_bag(path) as bag:
        for message in bag.messages():
            header = getattr(message.data, 'header', None)
            stamp = message.time_ns if header is None else nanoseconds(header.stamp)
            result = Recorded(stamp, message.type, message.data)
            results.setdefault(raw_topic(message.topic), []).append(result)
        if bag.trouble:
            raise ReplayError(f'{path} is damaged, so nothing can be compared: {bag.trouble}')
    about = _read_about(path)
    if not results or about is None:
        raise ReplayError(
            f'{path} holds no results of a replay to compare; record some with '
            'muon-ad replay BAG --record OUT.mcap, or pytest --update-goldens for those of a test'
        )
    _check_pictures(path, results)
    return Recording(path, about, results)


def _check_pictures(path: Path, results: dict[str, list[Recorded]]) -> None:
    for topic, recorded in results.items():
        try:
            recorded[0].value       # noqa: B018 - decodes it
        except ImageError as error:
            raise ReplayError(f'{path}: {topic} is not a picture: {error}') from error


def _read_about(path: Path) -> dict | None:
    """Return what a Recorder said about its file; None where none did."""
    try:
        with path.open('rb') as stream:
            records = [
                record.metadata.get('serialized_metadata', '')
                for record in make_reader(stream).iter_metadata() if record.name == 'rosbag2'
            ]
        custom = (yaml.safe_load(records[-1]) if records else {}).get('custom_data') or {}
        return json.loads(custom[ABOUT]) if ABOUT in custom else None
    except (OSError, McapError, yaml.YAMLError, AttributeError, json.JSONDecodeError):
        return None         # a bag of another kind or maker: the caller says what was expected

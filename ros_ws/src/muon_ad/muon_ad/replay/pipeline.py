"""Lock-step: every image of a bag through the networks, in order, however long it takes."""

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np

from muon_ad.bags import Bag
from muon_ad.bags import Message
from muon_ad.faults import FaultPlan
from muon_ad.faults import FaultyMessages
from muon_ad.images import ImageError
from muon_ad.images import ImageMessage
from muon_ad.images import to_rgb
from muon_ad.replay import messages
from muon_ad.replay.networks import Networks
from muon_ad.replay.part import part_of
from muon_ad.replay.topics import Stream
from muon_ad.runtime.engine import EngineError
from muon_ad.runtime.positions import DepthError
from muon_ad.runtime.surroundings import DepthPairing
from muon_ad.runtime.surroundings import locate_all
from muon_ad.runtime.surroundings import Surroundings
from muon_ad.stamps import nanoseconds

# An image waits for its depth and calibration no longer than this, in time of the bag: drivers
# send them within a frame or two.
WAIT_NS = 500_000_000


@dataclass
class Frame:
    """One image and what became of it.

    `number` counts the images of the stream from 0; `stamp_ns` is that of its header, `time_ns`
    when it was recorded, `frame_id` the camera's frame. `rgb` and `stylised` are uint8 [H, W, 3];
    `detections` is a muon_ad_msgs/DetectionArray. Results are None for a task that was not run,
    and all of them where `dropped` says why the image cannot be used. `stages_ms` has the times
    of the stages. `again` tells the second of two frames that a fault made of one image.
    """

    stream: Stream
    number: int
    time_ns: int
    stamp_ns: int
    frame_id: str = ''
    dropped: str = ''
    again: bool = False
    rgb: np.ndarray | None = None
    stylised: np.ndarray | None = None
    detections: Any = None
    stages_ms: dict[str, float] = field(default_factory=dict)

    @property
    def latency_ms(self) -> float:
        """Time of all stages."""
        return sum(self.stages_ms.values())


@dataclass
class Replay:
    """A run of `networks` over the `streams` of a bag.

    From `start_s` seconds after the begin of the bag, for `duration_s` seconds (None: to its end).
    `faults` are done to the messages at their time in the bag, `at` counted from `start_s`; the
    streams of a camera are color, color_info and aligned. Depth may be `depth_tolerance_ms` away
    from its image. `notes` gathers what people should know, each line once.

    Raises ReplayError for a part that is not in the bag, FaultError for a fault on a stream that
    no camera has.
    """

    bag: Bag
    streams: list[Stream]
    networks: Networks
    start_s: float = 0.0
    duration_s: float | None = None
    faults: FaultPlan | None = None
    depth_tolerance_ms: float = 20.0
    notes: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._part_ns = part_of(self.bag, self.start_s, self.duration_s)
        if self.faults is not None:
            self.faults.expect_streams(
                {role for stream in self.streams for role in _roles(stream).values()}
            )

    @property
    def images(self) -> int:
        """How many images there are to look at; of the whole bag, whatever its part."""
        return sum(self.bag.counts.get(stream.image, 0) for stream in self.streams)

    def frames(self) -> Iterator[Frame]:
        """Yield every image with its results, in the order of the bag."""
        cameras = [_Camera(stream, self) for stream in self.streams]
        topics = {topic for stream in self.streams for topic in stream.topics}
        last_ns = self._part_ns[0]
        for message in self.bag.messages(topics, *self._part_ns):
            last_ns = message.time_ns
            for camera in cameras:
                camera.take(message)
                yield from camera.ready(message.time_ns)
        for camera in cameras:
            camera.release()
            yield from camera.ready(None)
        if self.faults is not None:
            end_s = (last_ns - self._part_ns[0]) * 1e-9
            self.notes.update(dict.fromkeys(self.faults.idle(end_s)))


@dataclass
class _Waiting:
    """An image that waits for its depth; `problem` says why it cannot be used."""

    number: int
    time_ns: int
    stamp_ns: int
    image: ImageMessage | None
    problem: str = ''
    decode_ms: float = 0.0
    again: bool = False


def _roles(stream: Stream) -> dict[str, str]:
    """Return what the topics of a camera are, by the names that faults know."""
    named = {
        stream.image: 'color', stream.depth: 'aligned', stream.camera_info: 'color_info',
    }
    return {topic: role for topic, role in named.items() if topic}


class _Camera:
    """One stream: pairs its images with depth, and runs the networks on them."""

    def __init__(self, stream: Stream, run: Replay) -> None:
        self.stream = stream
        self._run = run
        self._pairing = DepthPairing(kept=64)
        self._waiting: deque[_Waiting] = deque()
        self._newest_depth_ns = 0
        self._images = 0
        self._now_s = 0.0
        self._now_ns = 0
        self._faults = None
        if run.faults is not None:
            self._faults = FaultyMessages(run.faults, lambda: self._now_s)
        self._actions: dict[str, Callable[[Any], None]] = {
            'color': self._add_image, 'aligned': self._add_depth, 'color_info': self._add_info,
        }
        self._roles = _roles(stream)
        self._newest_image: Any = None

    def take(self, message: Message) -> None:
        """Take a message of the bag, where it is of this camera."""
        role = self._roles.get(message.topic)
        if role is None:
            return
        self._now_ns = message.time_ns
        self._now_s = (message.time_ns - self._run.bag.start_ns) * 1e-9 - self._run.start_s
        data = message.data
        if self._faults is not None:
            self._take_held(self._faults.due())
        if role == 'aligned':
            data = self._decoded_depth(data, message.type)
        if data is not None:
            for one in self._passed(role, data):
                self._actions[role](one)

    def _passed(self, role: str, data: Any) -> list[Any]:
        """Return what faults leave of a message; an image that they take away is a drop."""
        if self._faults is None:
            return [data]
        before = self._faults.lost[role]
        passed = self._faults.apply(role, data)
        if role == 'color' and self._faults.lost[role] > before:
            self._queue(nanoseconds(data.header.stamp), None, 'lost by a fault')
        return passed

    def release(self) -> None:
        """Take what faults still hold back: the bag is over, and no frame is to be lost."""
        if self._faults is not None:
            self._take_held(self._faults.rest())

    def _take_held(self, held: list[tuple[str, Any]]) -> None:
        for role, message in held:
            self._actions[role](message)

    def ready(self, now_ns: int | None) -> Iterator[Frame]:
        """Yield the results of images that need not wait any longer; None: of all."""
        while self._waiting and (now_ns is None or self._complete(self._waiting[0], now_ns)):
            yield self._work(self._waiting.popleft())

    def _complete(self, waiting: _Waiting, now_ns: int) -> bool:
        if waiting.problem or now_ns - waiting.time_ns > WAIT_NS:
            return True
        depth_there = not self.stream.depth or self._newest_depth_ns >= waiting.stamp_ns
        info_there = not self.stream.camera_info or self._pairing.camera_info is not None
        return depth_there and info_there

    def _add_image(self, message: Any) -> None:
        begun = time.perf_counter()
        image, problem = None, ''
        try:
            image = messages.as_image(message, self._run.bag.topics[self.stream.image])
        except ImageError as error:
            problem = str(error)
        spent = _ms_since(begun)
        again = message is self._newest_image       # a fault doubles a message without copying it
        self._newest_image = message
        self._queue(nanoseconds(message.header.stamp), image, problem, spent, again)

    def _queue(
        self, stamp_ns: int, image: ImageMessage | None, problem: str, decode_ms: float = 0.0,
        again: bool = False,
    ) -> None:
        number = self._images - again
        self._images = number + 1
        self._waiting.append(
            _Waiting(number, self._now_ns, stamp_ns, image, problem, decode_ms, again)
        )

    def _decoded_depth(self, message: Any, type_name: str) -> ImageMessage | None:
        try:
            # Before faults are done to it: they know what depth means, not how it is packed.
            return messages.as_image(message, type_name)
        except ImageError as error:
            self._note(f'a depth image is not usable: {error}')
            return None

    def _add_depth(self, message: ImageMessage) -> None:
        self._newest_depth_ns = nanoseconds(message.header.stamp)
        self._pairing.depths.append(message)

    def _add_info(self, message: Any) -> None:
        self._pairing.camera_info = message

    def _work(self, waiting: _Waiting) -> Frame:
        frame = Frame(self.stream, waiting.number, waiting.time_ns, waiting.stamp_ns)
        frame.dropped, frame.again = waiting.problem, waiting.again
        if waiting.image is None:
            return frame
        frame.frame_id = waiting.image.header.frame_id
        begun = time.perf_counter()
        try:
            frame.rgb = to_rgb(waiting.image)
            frame.stages_ms['decode'] = waiting.decode_ms + _ms_since(begun)
            self._infer(frame, waiting.image)
        except (ImageError, EngineError) as error:
            frame.dropped = str(error)
            frame.rgb = frame.stylised = frame.detections = None
        return frame

    def _infer(self, frame: Frame, image: ImageMessage) -> None:
        styler, detector = self._run.networks.styler, self._run.networks.detector
        if styler is not None:
            begun = time.perf_counter()
            frame.stylised = styler.stylise(frame.rgb).copy()
            frame.stages_ms['style'] = _ms_since(begun)
        if detector is not None:
            begun = time.perf_counter()
            found = detector.detect(frame.rgb)
            frame.stages_ms['detect'] = _ms_since(begun)
            begun = time.perf_counter()
            size = (image.width, image.height)
            places = locate_all(found, size, self._surroundings(image))
            frame.detections = messages.detections(found, places, detector.classes, image)
            frame.stages_ms['locate'] = _ms_since(begun)

    def _surroundings(self, image: ImageMessage) -> Surroundings | None:
        try:
            return self._pairing.around(image, self._run.depth_tolerance_ms)
        except (ImageError, DepthError) as error:
            self._note(f'positions are left out: {error}')
            return None

    def _note(self, line: str) -> None:
        self._run.notes[f'{self.stream.image}: {line}'] = None


def _ms_since(begun: float) -> float:
    return (time.perf_counter() - begun) * 1e3

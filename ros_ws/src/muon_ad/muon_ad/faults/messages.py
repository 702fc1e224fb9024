"""Faults in messages: images, camera_info, and whatever else carries a header.

Messages are told apart by their fields, so that those of rclpy and those of `rosbags` are treated
alike: an image has an encoding and data (a compressed one a format), a camera_info has
`distortion_model`.
"""

import array
import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from muon_ad.faults.fault import Fault
from muon_ad.faults.fault import FaultError
from muon_ad.faults.line import Line
from muon_ad.faults.plan import FaultPlan
from muon_ad.images import DEPTH_ENCODINGS
from muon_ad.images import ENCODINGS
from muon_ad.images import ImageError
from muon_ad.images import to_array

_LOST = ('unplug', 'stall')


class FaultyMessages:
    """Passes messages on, as the faults of a plan leave them.

    `clock` gives the plan's time. `beside_source`: the messages are of a camera, whose own faults
    are done to its frames already (`Fault.of_source`). `lost` counts, by stream, the messages that
    a fault took away. Raises FaultError for a plan whose seed is negative.
    """

    def __init__(
        self, plan: FaultPlan, clock: Callable[[], float], beside_source: bool = False
    ) -> None:
        if plan.seed < 0:
            raise FaultError(f'seed is {plan.seed}; expected 0 or more')
        self._plan = plan
        self._clock = clock
        self._beside_source = beside_source
        self._chance = np.random.default_rng(plan.seed)
        self._lines: dict[str, Line[Any]] = {}
        self.lost: Counter[str] = Counter()

    def apply(self, stream: str, message: Any) -> list[Any]:
        """Return the messages of `stream` to send now, in order: none, one or several.

        A message is copied before it is changed. One that is held back is returned with a later
        one of its stream, by `due` or by `rest`.
        """
        now_s = self._clock()
        faults = [
            fault for fault in self._plan.active(now_s)
            if fault.concerns(stream) and not (self._beside_source and fault.of_source)
        ]
        line = self._lines.setdefault(stream, Line(self._plan.count))
        lost = [fault for fault in faults if _loses(fault, message)]
        if lost:
            self._plan.count(lost[0])
            self.lost[stream] += 1
        else:
            changed = self._shifted(stream, self._changed(message, faults), faults, now_s)
            held = [fault for fault in faults if _queues(fault, message)]
            line.put(changed, held, now_s)
        return _taken(line, now_s)

    @property
    def next_s(self) -> float | None:
        """When the next message that is held back is due; None where none waits for its time."""
        times = [line.next_s for line in self._lines.values() if line.next_s is not None]
        return min(times, default=None)

    def due(self) -> list[tuple[str, Any]]:
        """Return and forget the messages that are due, of all streams, with their streams."""
        now_s = self._clock()
        return [
            (name, message) for name, line in self._lines.items()
            for message in _taken(line, now_s)
        ]

    def rest(self) -> list[tuple[str, Any]]:
        """Return and forget the messages that are held back, with their streams."""
        return [(name, message) for name, line in self._lines.items() for message in line.rest()]

    def drop_rest(self) -> None:
        """Forget the messages that are held back, and count them as cut off."""
        self._plan.cut_off(len(self.rest()))

    def _changed(self, message: Any, faults: list[Fault]) -> Any:
        for fault in faults:
            change = _CHANGES.get(fault.kind)
            changed = change(message, fault, self._chance) if change else None
            if changed is not None:
                self._plan.count(fault)
                message = changed
        return message

    def _shifted(self, stream: str, message: Any, faults: list[Fault], now_s: float) -> Any:
        offset = self._plan.offset_ns(now_s, stream, self._beside_source)
        if not offset or not hasattr(message, 'header'):
            return message
        for fault in faults:
            if fault.kind in ('jump', 'drift', 'wrap'):
                self._plan.count(fault)
        message = copy.copy(message)
        message.header = copy.copy(message.header)
        stamp = message.header.stamp
        # A stamp has no time before its epoch.
        shifted = max(stamp.sec * 1_000_000_000 + stamp.nanosec + offset, 0)
        sec, nanosec = divmod(shifted, 1_000_000_000)
        message.header.stamp = type(stamp)(sec=sec, nanosec=nanosec)
        return message


def _taken(line: Line[Any], now_s: float) -> list[Any]:
    taken = []
    while (message := line.take(now_s)) is not None:
        taken.append(message)
    return taken


def _is_info(message: object) -> bool:
    return hasattr(message, 'distortion_model')


def _is_image(message: object) -> bool:
    return hasattr(message, 'data') and (
        hasattr(message, 'encoding') or hasattr(message, 'format')
    )


def _loses(fault: Fault, message: object) -> bool:
    return fault.kind in _LOST or (fault.kind == 'no_info' and _is_info(message))


def _queues(fault: Fault, message: object) -> bool:
    return fault.kind != 'late_info' or _is_info(message)


def _with_data(message: Any, data: np.ndarray) -> Any:
    """Return a copy of an image with other bytes, of the type that its library takes."""
    copied = copy.copy(message)
    copied.data = data if isinstance(message.data, np.ndarray) else array.array(
        'B', data.tobytes())
    return copied


def _bytes_of(message: Any) -> np.ndarray:
    return np.frombuffer(message.data, np.uint8)


def _corrupt(message: Any, fault: Fault, chance: np.random.Generator) -> Any | None:
    if not _is_image(message):
        return None
    data = _bytes_of(message).copy()
    where = chance.random(data.size, np.float32) < fault.amounts['percent'] * 1e-2
    data[where] = chance.integers(0, 256, int(where.sum()), np.uint8)
    return _with_data(message, data)


def _short(message: Any, fault: Fault, _chance: np.random.Generator) -> Any | None:
    if not _is_image(message):
        return None
    data = _bytes_of(message)
    return _with_data(message, data[:int(data.size * fault.amounts['percent'] * 1e-2)].copy())


def _encoding(message: Any, fault: Fault, _chance: np.random.Generator) -> Any | None:
    if not _is_image(message):
        return None
    copied = copy.copy(message)
    setattr(copied, 'encoding' if hasattr(message, 'encoding') else 'format', fault.amounts['as'])
    return copied


def _empty(message: Any, _fault: Fault, _chance: np.random.Generator) -> Any | None:
    if not _is_image(message):
        return None
    copied = _with_data(message, np.empty(0, np.uint8))
    if hasattr(copied, 'step'):
        copied.height = copied.width = copied.step = 0
    return copied


def _depth_of(message: Any) -> np.ndarray | None:
    if getattr(message, 'encoding', '') not in DEPTH_ENCODINGS:
        return None
    try:
        return to_array(message, DEPTH_ENCODINGS)
    except ImageError:      # another fault has been at it
        return None


def _with_depth(message: Any, depth: np.ndarray) -> Any:
    """Return a copy of a depth image with other pixels, without padding, in its byte order."""
    dtype, _ = ENCODINGS[message.encoding]
    order = '>' if message.is_bigendian else '<'
    pixels = np.ascontiguousarray(depth.astype(np.dtype(dtype).newbyteorder(order)))
    copied = _with_data(message, pixels.view(np.uint8).ravel())
    copied.step = pixels.strides[0]
    return copied


def _unknown(depth: np.ndarray) -> float:
    return np.nan if depth.dtype == np.float32 else 0


def _misaligned(message: Any, fault: Fault, _chance: np.random.Generator) -> Any | None:
    depth = _depth_of(message)
    if depth is None:
        return None
    by = int(np.clip(fault.amounts['px'], -depth.shape[1], depth.shape[1]))
    moved = np.full_like(depth, _unknown(depth))
    if by >= 0:
        moved[:, by:] = depth[:, :depth.shape[1] - by]
    else:
        moved[:, :by] = depth[:, -by:]
    return _with_depth(message, moved)


def _no_depth(message: Any, _fault: Fault, _chance: np.random.Generator) -> Any | None:
    depth = _depth_of(message)
    return None if depth is None else _with_depth(message, np.full_like(depth, _unknown(depth)))


_CHANGES = {
    'corrupt': _corrupt,
    'short': _short,
    'encoding': _encoding,
    'empty': _empty,
    'misaligned': _misaligned,
    'no_depth': _no_depth,
}

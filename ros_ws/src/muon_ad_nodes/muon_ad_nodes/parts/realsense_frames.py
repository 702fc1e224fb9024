"""From the SDK's framesets to frames of the suite: pictures, geometry, clock and metadata.

Every kind of RealSense camera, connected, simulated or recorded, delivers the SDK's own
framesets, so that aligning and reading intrinsics is the same code for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.realsense_sdk import DEPTH_UNIT_M
from muon_ad_nodes.parts.realsense_sdk import rs
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import FrameError
from muon_ad_nodes.parts.source import Metadata
from muon_ad_nodes.parts.source import Picture
from muon_ad_nodes.parts.source import SourceError

_ENCODINGS = {'rgb8': 'rgb8', 'bgr8': 'bgr8', 'y8': 'mono8', 'z16': '16UC1'}
_DISTORTION = {
    'brown_conrady': 'plumb_bob',
    'inverse_brown_conrady': 'plumb_bob',
    'modified_brown_conrady': 'plumb_bob',
    'none': 'plumb_bob',
    'kannala_brandt4': 'equidistant',
}


@dataclass(frozen=True)
class Extrinsics:
    """Carries a point of the depth camera to the colour camera: rotation 3x3 row by row, and
    translation in metres."""

    rotation: tuple[float, ...]
    translation: tuple[float, float, float]


class Framer:
    """Makes a Frame of each complete frameset, and knows the geometry since the first one.

    `streams` are those that a frameset must have: 'color', 'depth' or both; `align` adds
    'aligned', depth as the colour camera sees it.
    """

    def __init__(self, streams: tuple[str, ...], align: bool) -> None:
        self.streams = streams
        self._align = rs.align(rs.stream.color) if align else None
        self.calibrations: dict[str, Calibration] = {}
        self.extrinsics: Extrinsics | None = None

    def frame(
        self, frames: rs.composite_frame, arrival_ns: int, timed: bool = True
    ) -> Frame | None:
        """Return what the frameset shows, `timed` by the SDK or only by its arrival.

        None before the first complete set: the SDK is learning which streams run. Raises
        FrameError where a later set lacks a stream.
        """
        images = {'color': frames.get_color_frame(), 'depth': frames.get_depth_frame()}
        images = {name: images[name] for name in self.streams}
        lacking = [name for name in images if not images[name]]
        if lacking:
            if not self.calibrations:
                return None
            raise FrameError(f'the camera delivered a frameset without {" and ".join(lacking)}')
        if not self.calibrations:
            self._describe(frames, images)
        first = next(iter(images.values()))
        pictures, number = self._pictures(frames, images), first.get_frame_number()
        if not timed:
            return Frame(pictures, arrival_ns, number)
        domain = first.get_frame_timestamp_domain().name
        return Frame(pictures, arrival_ns, number, domain, round(first.get_timestamp() * 1e6))

    def forget(self) -> None:
        """Forget the geometry: another mode, or another camera, is about to stream."""
        self.calibrations = {}
        self.extrinsics = None

    def _pictures(
        self, frames: rs.composite_frame, images: dict[str, rs.video_frame]
    ) -> dict[str, Picture]:
        pictures = {}
        first = next(iter(images))
        for name, image in images.items():
            size = image.get_width(), image.get_height()
            pixels = partial(_pixels if name == 'color' else millimetres, image)
            metadata = partial(metadata_of, image, own=name != first)
            pictures[name] = Picture(_encoding(image), pixels, size, metadata)
        if self._align is not None:
            pixels = partial(self._aligned, frames)
            pictures['aligned'] = Picture('16UC1', pixels, pictures['color'].size)
        return pictures

    def _aligned(self, frames: rs.composite_frame) -> np.ndarray:
        return millimetres(self._align.process(frames).get_depth_frame())

    def _describe(self, frames: rs.composite_frame, images: dict[str, rs.video_frame]) -> None:
        self.calibrations = {name: calibration_of(image) for name, image in images.items()}
        if 'color' in images:
            self.calibrations['aligned'] = self.calibrations['color']
        if len(images) == 2:
            self.extrinsics = depth_to_color(frames)


def calibration_of(frame: rs.video_frame) -> Calibration:
    """Return the intrinsics that the SDK gives for this frame."""
    found = frame.profile.as_video_stream_profile().get_intrinsics()
    model = _DISTORTION.get(found.model.name)
    if model is None:
        raise SourceError(f'distortion model {found.model.name} has no equivalent in ROS')
    count = 4 if model == 'equidistant' else 5
    return Calibration.pinhole(
        (found.width, found.height), (found.fx, found.fy), (found.ppx, found.ppy),
        tuple(found.coeffs[:count]), model,
    )


def depth_to_color(frames: rs.composite_frame) -> Extrinsics:
    """Return the SDK's extrinsics between the two streams of a complete frameset."""
    color = frames.get_color_frame().profile
    found = frames.get_depth_frame().profile.get_extrinsics_to(color)
    # The SDK stores rotations column by column.
    rotation = np.reshape(found.rotation, (3, 3)).T.ravel().tolist()
    return Extrinsics(tuple(rotation), tuple(found.translation))


def metadata_of(frame: rs.video_frame, own: bool) -> Metadata:
    """Return what the camera tells of a picture, under the names of realsense-ros.

    With `own`, its number and time as well: those of Frame are another picture's.
    """
    metadata: Metadata = {}
    if own:
        metadata['frame_number'] = frame.get_frame_number()
        metadata['clock_domain'] = frame.get_frame_timestamp_domain().name
        metadata['frame_timestamp'] = frame.get_timestamp()
    for name, value in rs.frame_metadata_value.__members__.items():
        if frame.supports_frame_metadata(value):
            # The name is taken, by what the SDK made of it.
            key = 'hw_timestamp' if name == 'frame_timestamp' else name
            metadata[key] = frame.get_frame_metadata(value)
    return metadata


def millimetres(frame: rs.depth_frame) -> np.ndarray:
    """Return depth as uint16 [H, W] in millimetres; a view of the frame where that is its unit."""
    raw = _pixels(frame)
    scale = frame.get_units() / DEPTH_UNIT_M
    if abs(scale - 1) < 1e-6:
        return raw
    return np.clip(np.rint(raw * np.float32(scale)), 0, 65535).astype(np.uint16)


def _encoding(frame: rs.video_frame) -> str:
    name = frame.profile.format().name
    if name not in _ENCODINGS:
        raise SourceError(
            f'{frame.profile.stream_name()} comes as {name}; expected {", ".join(_ENCODINGS)}'
        )
    return _ENCODINGS[name]


def _pixels(frame: rs.video_frame) -> np.ndarray:
    return np.asanyarray(frame.get_data())

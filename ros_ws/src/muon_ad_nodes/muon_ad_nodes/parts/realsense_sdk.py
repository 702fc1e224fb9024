"""Intel's SDK for RealSense cameras, where it is installed, and what is asked of a camera."""

from __future__ import annotations

import re
from dataclasses import dataclass

from muon_ad_nodes.parts.source import SourceError

try:
    import pyrealsense2 as rs
except ImportError as error:
    rs = None
    _WHY_NOT = str(error)

DEPTH_UNIT_M = 0.001


@dataclass(frozen=True)
class Profile:
    """Size in pixels and frames a second of one stream."""

    width: int
    height: int
    fps: int

    def __str__(self) -> str:
        return f'{self.width}x{self.height}x{self.fps}'

    @classmethod
    def parse(cls, name: str, text: str) -> Profile:
        """Read `640x480x30`, as realsense-ros writes it; SourceError names parameter `name`."""
        found = re.fullmatch(r'(\d{1,5})[x,](\d{1,5})[x,](\d{1,3})', text.replace(' ', ''))
        profile = cls(*map(int, found.groups())) if found else None
        if profile is None or not (profile.width and profile.height and profile.fps):
            raise SourceError(
                f'parameter {name} is {text!r}; expected WIDTHxHEIGHTxFPS, such as 640x480x30'
            )
        return profile


@dataclass(frozen=True)
class Wishes:
    """What is asked of a camera; a stream that is None is not started."""

    color: Profile | None
    depth: Profile | None
    serial_no: str = ''
    emitter: int = 1
    auto_exposure: bool = True


def require_sdk() -> None:
    """Raise SourceError, with what to install, where the SDK cannot be imported."""
    if rs is None:
        raise SourceError(
            f'pyrealsense2 cannot be imported ({_WHY_NOT}); run: pip install pyrealsense2, and '
            'install the system package libusb-1.0-0'
        )

"""A camera's calibration, from a file in the format of ROS's camera calibrator."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.parse import urlparse

from ament_index_python.packages import get_package_share_directory
from ament_index_python.packages import PackageNotFoundError
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo

from muon_ad.documents import DocumentError
from muon_ad.documents import quoted
from muon_ad.documents import read_document
from muon_ad.paths import expanded
from muon_ad.paths import is_file

# Distortion models of sensor_msgs/distortion_models.hpp, with their numbers of coefficients.
COEFFICIENTS = {'plumb_bob': 5, 'rational_polynomial': 8, 'equidistant': 4}
# More than rounding to whole pixels explains.
ASPECT_TOLERANCE = 0.01
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


class CalibrationError(ValueError):
    """A calibration cannot be used: which file or size, what it holds and what was expected."""


@dataclass(frozen=True)
class Calibration:
    """What sensor_msgs/CameraInfo carries, for images of `width` x `height` pixels.

    `k` and `r` are 3x3, `p` is 3x4, row by row. All of them zero, and no `d`: uncalibrated
    (REP-104).
    """

    width: int
    height: int
    model: str = ''
    d: tuple[float, ...] = ()
    k: tuple[float, ...] = (0.0,) * 9
    r: tuple[float, ...] = (0.0,) * 9
    p: tuple[float, ...] = (0.0,) * 12

    @property
    def calibrated(self) -> bool:
        """Whether there is a calibration at all."""
        return self.k[0] != 0.0

    @classmethod
    def pinhole(
        cls,
        size: tuple[int, int],
        focal: tuple[float, float],
        centre: tuple[float, float],
        d: tuple[float, ...] = (0.0,) * 5,
        model: str = 'plumb_bob',
    ) -> 'Calibration':
        """Return the calibration of an unrectified camera; `focal` and `centre` in pixels."""
        (fx, fy), (cx, cy) = focal, centre
        k = (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0)
        p = (fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0)
        return cls(*size, model, d, k, _IDENTITY, p)

    def scaled(self, width: int, height: int) -> 'Calibration':
        """Return the calibration for the same picture at another size.

        K and P scale with the axes, distortion does not change (REP-104 and image_proc's resize).
        Raises CalibrationError where the aspect ratio differs: then the picture was cropped, by
        how much nobody knows.
        """
        if (width, height) == (self.width, self.height):
            return self
        if not self.calibrated:
            return Calibration(width, height)
        sx, sy = width / self.width, height / self.height
        if abs(sx / sy - 1) > ASPECT_TOLERANCE:
            raise CalibrationError(
                f'calibration is for {self.width}x{self.height}, images are {width}x{height}: '
                'another aspect ratio; calibrate at this size or choose another width and height'
            )
        rows = (sx, sy, 1.0)
        k = tuple(value * rows[index // 3] for index, value in enumerate(self.k))
        p = tuple(value * rows[index // 4] for index, value in enumerate(self.p))
        return Calibration(width, height, self.model, self.d, k, self.r, p)

    def message(self, stamp: Time, frame_id: str) -> CameraInfo:
        """Return a CameraInfo."""
        info = CameraInfo(width=self.width, height=self.height, distortion_model=self.model)
        info.header.stamp = stamp
        info.header.frame_id = frame_id
        info.d, info.k, info.r, info.p = list(self.d), self.k, self.r, self.p
        return info


def load_calibration(location: str) -> Calibration:
    """Read a calibration file, given as a path, `file:///path` or `package://name/path`.

    The format is that of camera_calibration_parsers (YAML). Raises CalibrationError where the
    file cannot be read, an entry is missing or has the wrong size, or a value makes no sense.
    """
    path = _path(location)
    if not is_file(path):
        raise CalibrationError(
            f'{path}: no such calibration file; expected a YAML file from the camera calibrator'
        )
    try:
        data = read_document(path)
    except DocumentError as error:
        raise CalibrationError(f'{path}: {error}') from error
    if not isinstance(data, dict):
        raise CalibrationError(f'{path}: expected a mapping with image_width, camera_matrix, ...')
    return _parse(path, data)


def _path(location: str) -> Path:
    try:
        url = urlparse(location)
        if url.scheme in ('', 'file'):
            return expanded(unquote(url.path) if url.scheme else location)
    except ValueError as error:
        raise CalibrationError(f'{location!r} is not understood: {error}') from error
    if url.scheme != 'package':
        raise CalibrationError(
            f'{location!r} is not understood; expected a path, file:///path or package://name/path'
        )
    try:
        return Path(get_package_share_directory(url.netloc)) / unquote(url.path).lstrip('/')
    except (PackageNotFoundError, LookupError, ValueError) as error:
        raise CalibrationError(f'{location!r}: no package of that name is installed') from error


def _parse(path: Path, data: dict[str, Any]) -> Calibration:
    size = [_count(path, data, key) for key in ('image_width', 'image_height')]
    model = data.get('distortion_model', 'plumb_bob')
    if not isinstance(model, str) or model not in COEFFICIENTS:
        raise CalibrationError(
            f'{path}: distortion_model is {quoted(model)}; expected one of {tuple(COEFFICIENTS)}'
        )
    k = _matrix(path, data, 'camera_matrix', 9)
    if k[0] <= 0 or k[4] <= 0 or k[6:] != (0.0, 0.0, 1.0):
        raise CalibrationError(
            f'{path}: camera_matrix is {list(k)}; expected fx > 0, fy > 0 and a last row of 0 0 1'
        )
    return Calibration(
        *size,
        model,
        _matrix(path, data, 'distortion_coefficients', COEFFICIENTS[model]),
        k,
        _matrix(path, data, 'rectification_matrix', 9),
        _matrix(path, data, 'projection_matrix', 12),
    )


def _count(path: Path, data: dict[str, Any], key: str) -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 32:
        raise CalibrationError(
            f'{path}: {key} is {quoted(value)}; expected a positive whole number'
        )
    return value


def _matrix(path: Path, data: dict[str, Any], key: str, count: int) -> tuple[float, ...]:
    entry = data.get(key)
    values = entry.get('data') if isinstance(entry, dict) else None
    good = (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        and all(abs(v) <= sys.float_info.max for v in values)   # not nan either
    )
    if not good:
        raise CalibrationError(
            f'{path}: {key} is {quoted(entry)}; expected a mapping whose data is a list of '
            f'{count} finite numbers'
        )
    return tuple(float(v) for v in values)

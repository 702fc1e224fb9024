"""Where a detected object is, from a depth image aligned with the colour image."""

from dataclasses import dataclass

import numpy as np


class DepthError(ValueError):
    """A depth image or a camera matrix cannot be used."""


@dataclass(frozen=True)
class Position:
    """A point in metres in the camera's optical frame (REP-103: x right, y down, z forward).

    `variance` of x, y and z in square metres, from the spread of the depth that was used. Where
    `valid` is false there was too little depth, and the rest means nothing.
    """

    valid: bool
    point: tuple[float, float, float] = (0.0, 0.0, 0.0)
    variance: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera: focal lengths and principal point, in pixels of the colour image."""

    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def from_matrix(cls, k: np.ndarray) -> 'Intrinsics':
        """Take the nine values of CameraInfo.k (REP-104); raises DepthError if uncalibrated."""
        k = np.asarray(k, np.float64).reshape(9)
        if not (np.isfinite(k).all() and k[0] > 0 and k[4] > 0):
            raise DepthError(f'camera matrix has fx = {k[0]}, fy = {k[4]}; expected a calibration')
        return cls(k[0], k[4], k[2], k[5])


def locate(
    depth: np.ndarray,
    box: np.ndarray,
    color_size: tuple[int, int],
    camera: Intrinsics,
    core: float = 0.5,
    minimum: int = 16,
) -> Position:
    """Locate the visible surface of the object in `box`.

    `depth` [H, W] is uint16 in millimetres or float32 in metres (REP-118), aligned with a colour
    image of `color_size` (width, height); it may be of another size. `box` is x_min, y_min, x_max,
    y_max in pixels of the colour image. The distance is the median of the valid depths (finite,
    above 0) in the central `core` of the box's width and height, so that neither the background at
    its border nor a few flying pixels count. At least `minimum` of them are needed, or all of a
    core that is smaller. Raises DepthError for a depth image that is neither of the two kinds.
    """
    metres = _metres(_core(depth, box, color_size, core))
    valid = metres[np.isfinite(metres) & (metres > 0)]
    if valid.size < max(1, min(minimum, metres.size)):
        return Position(valid=False)
    z = float(np.median(valid))
    # 1.4826 * median absolute deviation estimates the standard deviation of normal noise, and
    # leaves out the background that shows beside a person just as the median does.
    sigma = 1.4826 * float(np.median(np.abs(valid - z)))
    ray_x = ((box[0] + box[2]) / 2 - 0.5 - camera.cx) / camera.fx
    ray_y = ((box[1] + box[3]) / 2 - 0.5 - camera.cy) / camera.fy
    point = (float(ray_x * z), float(ray_y * z), z)
    variance = tuple(float(ray**2 * sigma**2) for ray in (ray_x, ray_y, 1.0))
    return Position(valid=True, point=point, variance=variance)


def _core(
    depth: np.ndarray, box: np.ndarray, color_size: tuple[int, int], core: float
) -> np.ndarray:
    """Cut the central part of the box, at least one pixel, out of the depth image."""
    if depth.ndim != 2 or 0 in depth.shape:
        raise DepthError(f'depth has shape {depth.shape}; expected [height, width], not empty')
    scale = np.array([depth.shape[1] / color_size[0], depth.shape[0] / color_size[1]])
    box = np.asarray(box, np.float64)
    centre = (box[:2] + box[2:]) / 2 * scale
    half = (box[2:] - box[:2]) / 2 * core * scale
    limit = np.array(depth.shape[::-1])
    low = np.clip(np.floor(centre - half), 0, limit - 1).astype(int)
    high = np.clip(np.ceil(centre + half), low + 1, limit).astype(int)
    return depth[low[1]:high[1], low[0]:high[0]]


def _metres(depth: np.ndarray) -> np.ndarray:
    if depth.dtype == np.uint16:
        return depth.astype(np.float32) / 1000
    if depth.dtype == np.float32:
        return depth
    raise DepthError(f'depth has dtype {depth.dtype}; expected uint16 (mm) or float32 (m)')

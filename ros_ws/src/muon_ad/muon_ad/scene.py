"""A gallery with a visitor and swinging pictures, rendered in colour and depth with ground truth.

It stands in for a room in front of a camera: `make demo`, the simulated RealSense and the tests
look at it. Every view of the scene sees the same world at the same time, so depth from one
camera aligned to another must agree with what the other one renders.

Cameras translate but never rotate and every object faces them. So each object has one depth and
its picture is an affine warp of a photograph, which keeps a frame within a few milliseconds.
Axes are those of an optical frame (REP-103): x right, y down, z forward; metres.
"""

import importlib.util
import math
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

WALL_Z = 5.0        # metres from the rig's resting place
FLOOR_Y = 1.15      # the camera's height above the floor
WALL_TOP = -2.9     # higher than any usual lens sees; beyond it the wall is mirrored
WALL_HALF_WIDTH = 4.5
_FLOOR_NEAR = 1.0
_WOOD = (62, 44, 32)        # RGB of picture frames
_STRING = (46, 42, 40)
_SHIFT = 4                  # fraction bits of the coordinates given to OpenCV's drawing functions


class SceneError(RuntimeError):
    """The photographs the scene is made of are not to be had."""


@dataclass(frozen=True)
class View:
    """A pinhole camera on the rig: size in pixels, K, and its position on the rig in metres."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def from_fov(
        cls,
        width: int,
        height: int,
        horizontal_deg: float,
        position: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> 'View':
        """Return a view with square pixels and the principal point in the middle."""
        focal = width / 2 / math.tan(math.radians(horizontal_deg) / 2)
        return cls(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2, position)


@dataclass(frozen=True)
class Swing:
    """Smooth motion about a resting place: amplitude (metres, or degrees for roll) and period."""

    x: tuple[float, float] = (0.0, 1.0)
    y: tuple[float, float] = (0.0, 1.0)
    z: tuple[float, float] = (0.0, 1.0)
    roll: tuple[float, float] = (0.0, 1.0)
    phase: float = 0.0

    def at(self, t: float) -> tuple[float, float, float, float]:
        """Return the offsets x, y, z (metres) and roll (radians) at `t` seconds."""
        def wave(motion: tuple[float, float]) -> float:
            return motion[0] * math.sin(2 * math.pi * t / motion[1] + self.phase)
        return wave(self.x), wave(self.y), wave(self.z), math.radians(wave(self.roll))


@dataclass(frozen=True)
class Billboard:
    """A flat object: a photograph `height` metres tall around `centre`, framed or cut out."""

    name: str
    label: str
    photo: str
    height: float
    centre: tuple[float, float, float]
    swing: Swing
    outline: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Truth:
    """What is in a frame: `box` is x_min, y_min, x_max, y_max in pixels, clipped to the image and
    hidden or not; `centre` is the object's middle in metres in the view's optical frame."""

    name: str
    label: str
    box: tuple[float, float, float, float]
    centre: tuple[float, float, float]


@dataclass(frozen=True)
class _Sprite:
    """A billboard's texture at the resolution of one view."""

    board: Billboard
    rgb: np.ndarray                     # uint8 [h, w, 3]
    alpha: np.ndarray | None            # float32 [h, w], 0 to 1; None: a full rectangle
    outline: np.ndarray                 # float64 [n, 2], polygon in texture pixels
    metres_per_pixel: float


@dataclass(frozen=True)
class _Placed:
    """A sprite at one time: its 2x3 warp from texture to image pixels, and its depth."""

    sprite: _Sprite
    warp: np.ndarray
    centre: tuple[float, float, float]

    def outline(self) -> np.ndarray:
        """Return the object's polygon in image pixels, float64 [n, 2]."""
        return self.sprite.outline @ self.warp[:, :2].T + self.warp[:, 2]


# The visitor's outline in the 512x512 photograph, traced once with GrabCut and by hand.
_ASTRONAUT = (
    (202, 24), (186, 39), (175, 44), (164, 52), (157, 59), (154, 69), (155, 91), (158, 103),
    (168, 114), (171, 115), (171, 120), (175, 127), (183, 131), (183, 148), (153, 152),
    (141, 159), (124, 179), (120, 196), (120, 205), (111, 207), (111, 214), (56, 264), (50, 270),
    (25, 360), (21, 396), (28, 437), (25, 481), (31, 511), (511, 511), (511, 461), (495, 455),
    (489, 425), (477, 399), (457, 374), (438, 359), (419, 349), (401, 345), (359, 347),
    (349, 331), (346, 280), (339, 263), (321, 246), (302, 234), (298, 220), (288, 204),
    (275, 190), (255, 175), (255, 162), (263, 148), (265, 136), (274, 133), (289, 116),
    (298, 97), (298, 73), (295, 66), (295, 59), (287, 44), (275, 32), (259, 25), (254, 23),
    (240, 17), (228, 17), (213, 23),
)

BILLBOARDS = (
    # Near enough that the lower edge of the half-length portrait stays below the image.
    Billboard('visitor', 'person', 'astronaut.png', 1.0, (0.0, 0.30, 1.55),
              Swing(x=(0.38, 9.0), y=(0.02, 3.0), z=(0.14, 13.0)), _ASTRONAUT),
    Billboard('cat', 'cat', 'chelsea.png', 0.50, (-0.80, -0.38, 2.4),
              Swing(x=(0.16, 5.0), z=(0.25, 8.0), roll=(3.0, 5.0))),
    Billboard('coffee', 'cup', 'coffee.png', 0.50, (0.95, -0.42, 2.75),
              Swing(x=(0.18, 6.0), z=(0.22, 10.0), roll=(2.5, 6.0), phase=1.3)),
    Billboard('photographer', 'person', 'camera.png', 0.95, (1.15, 0.42, 3.3),
              Swing(x=(0.22, 8.0), z=(0.2, 9.0), roll=(1.5, 8.0), phase=2.1)),
    Billboard('motorcycle', 'motorcycle', 'motorcycle_left.png', 0.9, (-1.15, 0.48, 3.7),
              Swing(x=(0.25, 7.0), z=(0.25, 11.0), roll=(1.5, 7.0), phase=4.0)),
)
_RIG = Swing(x=(0.10, 11.0), y=(0.025, 7.0), z=(0.08, 17.0), phase=0.5)


@dataclass
class Scene:
    """The gallery as one view sees it. Rendering is a pure function of the time in seconds."""

    view: View
    billboards: tuple[Billboard, ...] = BILLBOARDS
    _sprites: list[_Sprite] = field(init=False)

    def __post_init__(self) -> None:
        reach = WALL_Z - self.view.position[2] - _RIG.z[0]
        self._wall_scale = max(self.view.fx, self.view.fy) / reach      # pixels per metre
        # The boards' grain runs away from the camera, so few pixels do along it.
        self._floor_scale = 1.8 * self._wall_scale, 0.5 * self._wall_scale
        self._sprites = [_sprite(board, self.view) for board in self.billboards]

    def render(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Return `(rgb uint8 [H, W, 3], depth float32 [H, W] in metres)` at `t` seconds."""
        return self.rgb(t), self.depth(t)

    def rgb(self, t: float) -> np.ndarray:
        """Return the colour image, uint8 [H, W, 3], at `t` seconds."""
        image = self._background(t)
        for placed in self._placed(t):
            if placed.sprite.alpha is None:
                _draw_strings(image, placed)
            _paint(image, placed)
        return image

    def depth(self, t: float) -> np.ndarray:
        """Return the distance along the optical axis, float32 [H, W] in metres, at `t` seconds."""
        _, y, z = self._camera(t)
        rows = np.arange(self.view.height, dtype=np.float32)
        below = np.maximum(rows - np.float32(self.view.cy), np.float32(1e-3))
        floor = np.float32(self.view.fy * (FLOOR_Y - y)) / below
        depth = np.empty((self.view.height, self.view.width), np.float32)
        depth[:] = np.minimum(floor, np.float32(WALL_Z - z))[:, None]
        for placed in self._placed(t):
            cv2.fillPoly(depth, [_fixed(placed.outline())], placed.centre[2], shift=_SHIFT)
        return depth

    def truth(self, t: float) -> list[Truth]:
        """Return the objects inside the image at `t` seconds, nearest first."""
        found = []
        limit = np.array([self.view.width, self.view.height], float)
        for placed in reversed(self._placed(t)):
            edge = _dense(placed.outline()) + 0.5       # from pixel centres to corners
            edge = edge[((edge >= 0) & (edge <= limit)).all(axis=1)]
            if len(edge):
                box = (*edge.min(axis=0).tolist(), *edge.max(axis=0).tolist())
                board = placed.sprite.board
                found.append(Truth(board.name, board.label, box, placed.centre))
        return found

    # Made when first drawn: a view that is asked for depth alone does without.

    @cached_property
    def _wall(self) -> np.ndarray:
        return _wall_texture(self._wall_scale)

    @cached_property
    def _floor(self) -> np.ndarray:
        return _floor_texture(*self._floor_scale)

    def _camera(self, t: float) -> tuple[float, float, float]:
        moved = _RIG.at(t)
        x, y, z = (rest + move for rest, move in zip(self.view.position, moved, strict=False))
        return x, y, z

    def _placed(self, t: float) -> list[_Placed]:
        """Place every billboard; farthest first, as a painter works."""
        camera = self._camera(t)
        placed = [_place(sprite, self.view, camera, t) for sprite in self._sprites]
        return sorted(placed, key=lambda item: -item.centre[2])

    def _background(self, t: float) -> np.ndarray:
        view, (x, y, z) = self.view, self._camera(t)
        image = np.empty((view.height, view.width, 3), np.uint8)
        distance = WALL_Z - z
        edge = math.ceil(view.cy + view.fy * (FLOOR_Y - y) / distance)
        edge = min(max(edge, 0), view.height)
        metres = np.array([[distance / view.fx, 0, x - view.cx * distance / view.fx],
                           [0, distance / view.fy, y - view.cy * distance / view.fy]])
        wall = metres * self._wall_scale
        wall[:, 2] += np.array([WALL_HALF_WIDTH, -WALL_TOP]) * self._wall_scale - 0.5
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        if edge:
            image[:edge] = cv2.warpAffine(
                self._wall, wall, (view.width, edge), flags=how, borderMode=cv2.BORDER_REFLECT
            )
        if edge < view.height:
            floor = self._floor_warp(edge, (x, y, z))
            image[edge:] = cv2.warpPerspective(
                self._floor, floor, (view.width, view.height - edge), flags=how,
                borderMode=cv2.BORDER_REFLECT
            )
        return image

    def _floor_warp(self, first_row: int, camera: tuple[float, float, float]) -> np.ndarray:
        """Return the homography from image pixels below `first_row` to floor texture pixels."""
        view, (x, y, z) = self.view, camera
        height = FLOOR_Y - y
        # A pixel (u, v) sees the floor at depth d = fy * height / (v - cy), multiplied through.
        rise = np.array([0.0, 1.0, first_row - view.cy])
        reach = np.array([0.0, 0.0, view.fy * height])
        across = np.array([1.0, 0.0, -view.cx]) * view.fy * height / view.fx
        world_x = across + (x + WALL_HALF_WIDTH) * rise
        world_z = reach + (z - _FLOOR_NEAR) * rise
        across, along = self._floor_scale
        return np.stack([world_x * across, world_z * along, rise])


def _place(
    sprite: _Sprite, view: View, camera: tuple[float, float, float], t: float
) -> _Placed:
    *move, roll = sprite.board.swing.at(t)
    x, y, z = (
        rest + offset - eye
        for rest, offset, eye in zip(sprite.board.centre, move, camera, strict=True)
    )
    turn = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    linear = np.diag([view.fx, view.fy]) @ turn * sprite.metres_per_pixel / z
    middle = np.array([view.cx + view.fx * x / z, view.cy + view.fy * y / z])
    texture_middle = (np.array(sprite.rgb.shape[1::-1]) - 1) / 2
    warp = np.column_stack([linear, middle - linear @ texture_middle])
    return _Placed(sprite, warp, (x, y, z))


def _dense(polygon: np.ndarray) -> np.ndarray:
    """Return the polygon's edge as points about half a pixel apart, float64 [n, 2]."""
    following = np.roll(polygon, -1, axis=0)
    counts = np.ceil(np.abs(following - polygon).max(axis=1) * 2).astype(int) + 1
    return np.concatenate([
        np.linspace(start, end, count)
        for start, end, count in zip(polygon, following, counts, strict=True)
    ])


def _fixed(points: np.ndarray) -> np.ndarray:
    """Return points as the fixed-point integers of OpenCV's drawing functions."""
    return np.round(points * (1 << _SHIFT)).astype(np.int32)


def _paint(image: np.ndarray, placed: _Placed) -> None:
    """Draw the object into the image, in place."""
    outline = placed.outline()
    limit = np.array(image.shape[1::-1])
    low = np.clip(np.floor(outline.min(axis=0)) - 2, 0, limit).astype(int)
    high = np.clip(np.ceil(outline.max(axis=0)) + 3, 0, limit).astype(int)
    if (high <= low).any():
        return
    region = image[low[1]:high[1], low[0]:high[0]]
    warp = placed.warp.copy()
    warp[:, 2] -= low
    size = tuple((high - low).tolist())
    sprite = placed.sprite
    if sprite.alpha is None:
        region[:] = cv2.warpAffine(sprite.rgb, warp, size, region, cv2.INTER_LINEAR,
                                   cv2.BORDER_TRANSPARENT)
        # Smooths the edge, at a tenth of what blending the whole picture would cost.
        cv2.polylines(image, [_fixed(outline)], True, _WOOD, 1, cv2.LINE_AA, _SHIFT)
        return
    rgb = cv2.warpAffine(sprite.rgb, warp, size, None, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(sprite.alpha, warp, size)
    region[:] = cv2.blendLinear(rgb, region, alpha, 1 - alpha)


def _draw_strings(image: np.ndarray, placed: _Placed) -> None:
    """Draw the two strings that a framed picture hangs on, up to the ceiling."""
    left, right = placed.outline()[:2]
    for corner, inward in ((left, 0.2), (right, -0.2)):
        end = corner + inward * (right - left)
        start, end = _fixed(np.array([[end[0], -1.0], end])).tolist()
        cv2.line(image, start, end, _STRING, 1, cv2.LINE_AA, _SHIFT)


def _photograph(name: str) -> np.ndarray:
    """Read a photograph from scikit-image's own files, as RGB uint8; never downloads."""
    spec = importlib.util.find_spec('skimage')
    if spec is None or spec.origin is None:
        raise SceneError(
            'the scene is textured with the photographs inside scikit-image, which is not '
            'installed; run: pip install scikit-image'
        )
    # Pillow comes with scikit-image; OpenCV's reader warns about some of these files' profiles.
    from PIL import Image

    path = Path(spec.origin).parent / 'data' / name
    try:
        with Image.open(path) as picture:
            picture.draft('RGB', (512, 512))    # a large JPEG decodes faster at half its size
            return np.asarray(picture.convert('RGB'))
    except OSError as error:
        raise SceneError(
            f'{path}: not readable ({error}); the scene needs the complete scikit-image wheel: '
            'pip install --force-reinstall scikit-image'
        ) from error


def _sprite(board: Billboard, view: View) -> _Sprite:
    rgb = _photograph(board.photo) if board.outline else _framed(board.photo)
    # At most one texture pixel per image pixel where the object is nearest: little aliasing.
    nearest = board.centre[2] - board.swing.z[0] - _RIG.z[0] - view.position[2]
    scale = min(max(view.fx, view.fy) * board.height / nearest / rgb.shape[0], 1.0)
    size = round(rgb.shape[1] * scale), round(rgb.shape[0] * scale)
    shrunk = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    metres_per_pixel = board.height / size[1]
    if not board.outline:
        right, bottom = size[0] - 1, size[1] - 1
        corners = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], float)
        return _Sprite(board, shrunk, None, corners, metres_per_pixel)
    alpha = np.zeros(rgb.shape[:2], np.uint8)
    cv2.fillPoly(alpha, [np.array(board.outline, np.int32)], 255, cv2.LINE_AA)
    alpha = cv2.GaussianBlur(alpha, (5, 5), 1.0).astype(np.float32) / 255
    outline = (np.array(board.outline) + 0.5) * scale - 0.5
    return _Sprite(board, shrunk, cv2.resize(alpha, size, interpolation=cv2.INTER_AREA), outline,
                   metres_per_pixel)


def _framed(photo: str) -> np.ndarray:
    """Return the photograph with a mount and a dark wooden frame around it."""
    rgb = _photograph(photo)
    unit = max(rgb.shape[0] // 40, 2)
    rgb = cv2.copyMakeBorder(rgb, *(2 * unit,) * 4, cv2.BORDER_CONSTANT, value=(236, 232, 222))
    return cv2.copyMakeBorder(rgb, *(unit,) * 4, cv2.BORDER_CONSTANT, value=_WOOD)


def _floor_texture(across: float, along: float) -> np.ndarray:
    """Draw oak boards that run away from the camera; RGB uint8, x across, depth downwards.

    `across` and `along` are pixels per metre.
    """
    random = np.random.default_rng(7)
    width = round(2 * WALL_HALF_WIDTH * across)
    length = round((WALL_Z + 0.5 - _FLOOR_NEAR) * along)
    board = (np.arange(width) / (0.14 * across)).astype(int)
    tone = random.normal(0, 0.11, board[-1] + 1)[board]
    grain = random.standard_normal((length, width), np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.0055 * across, None, 0.23 * along)
    light = 1 + tone[None] + 0.06 * grain / grain.std()
    light *= np.where(np.diff(board, prepend=-1) > 0, 0.55, 1.0)[None]
    light *= np.linspace(0.8, 1.1, length)[:, None]     # brighter under the lamps at the wall
    return _shade(light, (158, 112, 74))


def _wall_texture(scale: float) -> np.ndarray:
    """Draw a painted brick wall with lamps, two pictures and a skirting board; RGB uint8."""
    size = round(2 * WALL_HALF_WIDTH * scale), round((FLOOR_Y - WALL_TOP) * scale)
    bricks = _bricks(scale, size)
    x = np.linspace(-WALL_HALF_WIDTH, WALL_HALF_WIDTH, size[0])[None]
    y = np.linspace(WALL_TOP, FLOOR_Y, size[1])[:, None]
    light = np.full((size[1], size[0]), 0.62)
    for lamp in (-2.7, -0.1, 2.5):
        spread = 0.55 + 0.32 * (y + 2.0)
        light += 0.75 * np.exp(-((x - lamp) / spread) ** 2) * np.exp(-((y + 0.9) / 1.3) ** 2)
    wall = _shade(bricks * light, (92, 128, 138), tint=(1.06, 1.0, 0.92), tint_by=light - 0.62)
    _hang(wall, scale, 'rocket.jpg', (-0.15, -0.75), 0.9)
    _hang(wall, scale, 'hubble_deep_field.jpg', (-2.35, -1.0), 0.8)
    _hang(wall, scale, 'retina.jpg', (2.45, -0.95), 0.85)
    skirting = round(0.12 * scale)
    wall[-skirting:] = _shade(np.linspace(1.1, 0.75, skirting)[:, None] * light[-skirting:],
                              (170, 165, 155))
    return wall


def _bricks(scale: float, size: tuple[int, int]) -> np.ndarray:
    """Return relative brightness float64 [height, width] of a wall laid from the brick photo."""
    photo = np.rot90(_photograph('brick.png')[:, :, 0], -1)
    corners = np.array([[0, 8.4], [511, 70.2], [511, 396.6], [0, 468]], np.float32)
    courses = 11 * 0.085 * scale                        # eleven courses of 85 mm
    tile = round(courses * 1.15), round(courses)
    target = np.array([[0, 0], [tile[0], 0], tile, [0, tile[1]]], np.float32)
    flat = cv2.warpPerspective(np.ascontiguousarray(photo),
                               cv2.getPerspectiveTransform(corners, target), tile)
    pair = np.hstack([flat, flat[:, ::-1]])             # mirrored, so that bricks meet
    repeat = -(-size[1] // pair.shape[0]), -(-size[0] // pair.shape[1])
    laid = np.tile(pair, repeat)[:size[1], :size[0]] / flat.mean()
    random = np.random.default_rng(3)
    cloud = random.normal(0, 1, (size[1] // 16 + 2, size[0] // 16 + 2))
    cloud = cv2.GaussianBlur(cloud, (0, 0), 1.5)
    cloud = cv2.resize(cloud / cloud.std(), size, interpolation=cv2.INTER_CUBIC)
    return laid * (1 + 0.05 * cloud)


def _hang(
    wall: np.ndarray, scale: float, photo: str, centre: tuple[float, float], height: float
) -> None:
    """Put a framed photograph with a soft shadow on the wall, in place."""
    picture = _framed(photo)
    shrink = height * scale / picture.shape[0]
    picture = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    rows, columns = picture.shape[:2]
    left = round((centre[0] + WALL_HALF_WIDTH) * scale - columns / 2)
    top = round((centre[1] - WALL_TOP) * scale - rows / 2)
    reach = max(round(0.05 * scale), 1)
    shadow = np.ones((rows + 4 * reach, columns + 4 * reach))
    shadow[2 * reach:-2 * reach, 2 * reach:-2 * reach] = 0.45
    shadow = cv2.GaussianBlur(shadow, (0, 0), reach / 2)[..., None]
    around = wall[top - reach:top + rows + 3 * reach, left - 2 * reach:left + columns + 2 * reach]
    around[:] = around * shadow
    wall[top:top + rows, left:left + columns] = picture


def _shade(
    light: np.ndarray,
    colour: tuple[int, int, int],
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0),
    tint_by: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Return `colour` under `light` [h, w]; the lamps' own `tint` grows with `tint_by`."""
    warm = 1 + np.asarray(tint_by)[..., None] * (np.array(tint) - 1) * 2
    shaded = light[..., None] * np.array(colour, float) * warm
    return np.clip(shaded, 0, 255).astype(np.uint8)

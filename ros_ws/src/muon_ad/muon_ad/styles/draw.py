"""Draws the built-in style images: one procedure per style, each with its own strokes and palette.

A style image is not a picture of something. It is a sheet of one technique, filled edge to edge,
with strokes of 4 to 14 pixels, because that is the scale at which the network repeats them.
The same seed, size and library versions give the same bytes.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

# Drawn at twice the size and reduced, which smooths every edge alike.
OVERSAMPLING = 2
Palette = np.ndarray  # [n, 3] float32, RGB in 0..255


def palette(*colours: str) -> Palette:
    """Return the colours, each written as 'rrggbb', as a float32 [n, 3] array in 0..255."""
    return np.array([list(bytes.fromhex(colour)) for colour in colours], np.float32)


def noise(rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
    """Return smooth noise, float32 [size, size] spread over 0..1, with features of `scale` pixels.

    Values are ranked, so that every level covers the same area whatever the draw.
    """
    cells = max(3, round(size / scale) + 3)
    coarse = rng.random((cells, cells), np.float32)
    field = cv2.resize(coarse, (size * 2, size * 2), interpolation=cv2.INTER_CUBIC)
    field = np.ascontiguousarray(field[size // 2:size // 2 + size, size // 2:size // 2 + size])
    ranks = np.empty(field.size, np.float32)
    ranks[np.argsort(field, axis=None, kind='stable')] = np.linspace(0, 1, field.size)
    return ranks.reshape(field.shape)


def pick(colours: Palette, level: float, rng: np.random.Generator, spread: float = 0.12) -> list:
    """Return a colour of the palette near `level` (0..1 along it), a little jittered."""
    at = np.clip(level + rng.normal(0, spread), 0, 0.999) * len(colours)
    return np.clip(colours[int(at)] + rng.normal(0, 10, 3), 0, 255).tolist()


def blend(colours: Palette, levels: np.ndarray) -> np.ndarray:
    """Interpolate the palette at `levels` (0..1, [h, w]); returns float32 [h, w, 3]."""
    at = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(levels, at, c) for c in colours.T], axis=-1).astype(np.float32)


def grid(size: int, step: float, jitter: float, rng: np.random.Generator) -> np.ndarray:
    """Return jittered points of a square grid, float32 [n, 2] as x, y, in random order."""
    axis = np.arange(-step, size + step, step)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    points = points + rng.uniform(-jitter, jitter, points.shape) * step
    return rng.permutation(points).astype(np.float32)


def at(field: np.ndarray, x: float, y: float) -> float:
    """Return the field's value at a point, clamped to the sheet."""
    h, w = field.shape
    return float(field[int(np.clip(y, 0, h - 1)), int(np.clip(x, 0, w - 1))])


def cells(size: int, points: np.ndarray) -> np.ndarray:
    """Return int32 [size, size]: which of the `points` is nearest to each pixel (Voronoi)."""
    seeds = np.full((size, size), 255, np.uint8)
    inside = points[((points >= 0) & (points < size)).all(axis=1)].astype(int)
    seeds[inside[:, 1], inside[:, 0]] = 0
    _, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    return labels


def borders(labels: np.ndarray, width: int) -> np.ndarray:
    """Return a boolean mask of the borders between labelled cells, `width` pixels wide."""
    kernel = np.ones((width, width), np.uint8)
    values = labels.astype(np.float32)
    return cv2.dilate(values, kernel) != cv2.erode(values, kernel)


def paint_cells(
    labels: np.ndarray, level: np.ndarray, colours: Palette, rng: np.random.Generator,
    spread: float,
) -> np.ndarray:
    """Fill each cell with one palette colour, chosen by the level at its centre."""
    count = labels.max() + 1
    area = np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    mean = np.bincount(labels.ravel(), level.ravel(), minlength=count) / area
    table = np.array([pick(colours, value, rng, spread) for value in mean], np.float32)
    return table[labels]


def stroke(
    sheet: np.ndarray, start: np.ndarray, angle: Callable[[float, float], float], length: float,
    width: float, colour: list,
) -> None:
    """Draw one brush stroke that follows the direction field `angle(x, y)` (radians)."""
    points = [start]
    for _ in range(8):
        x, y = points[-1]
        turn = angle(x, y)
        points.append(points[-1] + length / 8 * np.array([np.cos(turn), np.sin(turn)]))
    line = np.round(np.array(points) * 8).astype(np.int32)
    cv2.polylines(sheet, [line], False, colour, max(1, round(width)), cv2.LINE_AA, shift=3)


def bristles(sheet: np.ndarray, strength: float) -> np.ndarray:
    """Light the sheet as if its paint stood out: brightness edges become relief."""
    height = cv2.GaussianBlur(sheet.mean(axis=-1), (0, 0), 1.2)
    relief = cv2.Sobel(height, cv2.CV_32F, 1, 1, ksize=3)
    return sheet + strength * np.clip(relief, -60, 60)[..., None]


def mosaic(rng: np.random.Generator, size: int) -> np.ndarray:
    """Small square-ish tiles in dark grout: turquoise, gold, terracotta."""
    colours = palette('0b3c49', '12777f', '2fb5a8', 'f2e3bc', 'f0a830', 'c8502a', '7a1f1a')
    points = grid(size, 25, 0.22, rng)
    labels = cells(size, points)
    sheet = paint_cells(labels, noise(rng, size, 150), colours, rng, 0.08)
    sheet[borders(labels, 5)] = (38, 30, 30)
    return bristles(sheet, 0.15)


def woodcut(rng: np.random.Generator, size: int) -> np.ndarray:
    """Carved parallel lines that swell with the tone: black on cream, with one red block."""
    tone = noise(rng, size, 190)
    warp = 60 * noise(rng, size, 260)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    lean = np.where(noise(rng, size, 230) > 0.5, 0.35, 1.1)
    phase = np.abs(((y + lean * 0.3 * x + warp) / 17) % 1 - 0.5) * 2
    ink = phase < np.clip(1.25 * tone - 0.12, 0.06, 1.0)
    paper = np.where(noise(rng, size, 210)[..., None] > 0.72, palette('c8361d'), palette('f1e4c3'))
    sheet = np.where(ink[..., None], palette('17120f'), paper).astype(np.float32)
    return sheet


def ink_wash(rng: np.random.Generator, size: int) -> np.ndarray:
    """Diluted ink on pale paper, blue-grey pools with darker rims and a few wet strokes."""
    sheet = np.full((size, size, 3), palette('efe9dc')[0], np.float32)
    for scale, shade in ((210, '9fb0ba'), (150, '6d8390'), (110, '3a4c5c')):
        field = noise(rng, size, scale) + 0.06 * noise(rng, size, 12)
        pool = np.clip((field - 0.66) / 0.05, 0, 1)
        rim = np.exp(-((field - 0.69) / 0.02) ** 2) * 0.45
        cover = np.clip(0.6 * pool + rim, 0, 1)[..., None]
        sheet = sheet * (1 - cover) + palette(shade)[0] * cover
    lean = noise(rng, size, 240)
    for start in grid(size, 74, 0.5, rng):
        mark = np.zeros((size, size), np.float32)
        stroke(mark, start, lambda x, y: 5 * at(lean, x, y), rng.uniform(90, 200),
               rng.uniform(8, 20), [1.0])
        dry = np.clip(0.5 + noise(rng, size, 7), 0.5, 1)
        cover = (0.85 * cv2.GaussianBlur(mark, (0, 0), 1.5) * dry)[..., None]
        sheet = sheet * (1 - cover) + palette('11161d')[0] * cover
    return sheet


def swirls(rng: np.random.Generator, size: int) -> np.ndarray:
    """Thick oil strokes along whirling currents: ultramarine, cobalt, white, cadmium yellow."""
    colours = palette('0d1b4c', '1c3f94', '2f74c0', '79b4d9', 'dfe8d0', 'f6d743', 'ee9f1e')
    sheet = np.full((size, size, 3), colours[0], np.float32)
    centres = rng.uniform(0, size, (7, 2))
    spins = rng.choice([-1, 1], 7)

    def angle(x: float, y: float) -> float:
        offset = np.array([x, y]) - centres
        pull = spins / (offset ** 2).sum(axis=1).clip(400)
        return float(np.arctan2((pull * offset[:, 0]).sum(), -(pull * offset[:, 1]).sum()))

    level = noise(rng, size, 140)
    for step, width in ((15, 15), (13, 9)):
        for start in grid(size, step, 0.5, rng):
            stroke(sheet, start, angle, rng.uniform(32, 64), width,
                   pick(colours, at(level, *start), rng, 0.13))
    return bristles(sheet, 0.35)


def pointillism(rng: np.random.Generator, size: int) -> np.ndarray:
    """Separate round dabs of complementary colours on light ground."""
    colours = palette('4b2e83', '2a6fb0', '3fa66b', 'b9d34c', 'f7e06e', 'f79d5c', 'd94a5d')
    sheet = np.full((size, size, 3), palette('f3ead2')[0], np.float32)
    level = noise(rng, size, 150)
    for start in grid(size, 9.5, 0.45, rng):
        value = at(level, *start)
        # Every fifth dab takes the opposite end of the palette, as the pointillists mixed by eye.
        value = 1 - value if rng.random() < 0.2 else value
        radius = rng.uniform(4.5, 7.5)
        centre = np.round(start * 8).astype(int)
        cv2.circle(sheet, centre.tolist(), round(radius * 8), pick(colours, value, rng, 0.1), -1,
                   cv2.LINE_AA, shift=3)
    return sheet


def stained_glass(rng: np.random.Generator, size: int) -> np.ndarray:
    """Large glowing panes between black lead lines."""
    colours = palette('2b1a8f', '0f62c4', '0aa6a0', '2fbf4a', 'ffd21f', 'ff7a1a', 'e0163c',
                      '9a1583')
    labels = cells(size, grid(size, 62, 0.42, rng))
    sheet = paint_cells(labels, noise(rng, size, 120), colours, rng, 0.2)
    lead = borders(labels, 9)
    depth = cv2.distanceTransform((~lead).astype(np.uint8), cv2.DIST_L2, 5)
    glow = np.clip(0.62 + depth / 34, 0, 1.25)[..., None]
    sheet = sheet * glow + 14 * (noise(rng, size, 9)[..., None] - 0.5)
    sheet[lead] = (10, 9, 12)
    return sheet


def halftone(rng: np.random.Generator, size: int) -> np.ndarray:
    """Comic print: dots that grow with the tone, flat areas, thick black contours."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    tone = noise(rng, size, 150)
    area = noise(rng, size, 170)
    names = ('ffe600', '00a8e8', 'ff2e93', 'fffdf5')
    flat = palette(*names)[(area * 3.999).astype(int)]
    dots = palette('ff2e93', 'ffe600', 'ffffff', 'e3242b')[(area * 3.999).astype(int)]
    pitch = 15.0
    u, v = (x + y) / pitch / np.sqrt(2), (x - y) / pitch / np.sqrt(2)
    away = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
    sheet = np.where((away < 0.52 * tone)[..., None], dots, flat).astype(np.float32)
    contour = borders((area * 3.999).astype(np.int32), 9) | borders((tone > 0.93).astype(int), 7)
    sheet[contour] = (12, 12, 16)
    return sheet


def waves(rng: np.random.Generator, size: int) -> np.ndarray:
    """Rows of overlapping scales in the manner of indigo prints, with vermilion accents."""
    rings = palette('f4ecd8', '1f2f6b', 'e8dcc0', '2f5aa0', 'f4ecd8', '16224f')
    sheet = np.full((size, size, 3), rings[1], np.float32)
    step = 84
    for row, y in enumerate(np.arange(-step, size + 2 * step, step / 2.6)):
        for x in np.arange(-step + (row % 2) * step / 2, size + step, step):
            centre = (round(x + rng.uniform(-2, 2)), round(y))
            accent = rng.random() < 0.16
            for index, share in enumerate((1.0, 0.88, 0.7, 0.55, 0.38, 0.24)):
                colour = palette('d8412f')[0] if accent and index in (1, 5) else rings[index]
                cv2.circle(sheet, centre, round(step * 0.58 * share), colour.tolist(), -1,
                           cv2.LINE_AA)
    return sheet * (0.8 + 0.3 * noise(rng, size, 190)[..., None])


def knife(rng: np.random.Generator, size: int) -> np.ndarray:
    """Broad flat slabs of paint laid with a knife: magenta, orange, violet, ivory."""
    colours = palette('2d0f41', '6d1a6b', 'b3206d', 'e8433f', 'f98a2b', 'fbc766', 'fdf0d5')
    sheet = np.full((size, size, 3), colours[1], np.float32)
    level = noise(rng, size, 150)
    lean = noise(rng, size, 200)
    for start in grid(size, 21, 0.5, rng):
        turn = 0.4 + 2.4 * at(lean, *start) + rng.normal(0, 0.2)
        box = cv2.boxPoints((start.tolist(), (rng.uniform(40, 80), rng.uniform(14, 26)),
                             float(np.degrees(turn))))
        colour = pick(colours, at(level, *start), rng, 0.13)
        points = np.round(box * 8).astype(np.int32)
        cv2.fillPoly(sheet, [points], colour, cv2.LINE_AA, shift=3)
        ridge = np.clip(np.array(colour) * 1.25 + 25, 0, 255).tolist()
        cv2.line(sheet, points[0].tolist(), points[1].tolist(), ridge, 3, cv2.LINE_AA, shift=3)
    return bristles(sheet, 0.2)


STYLES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    function.__name__: function
    for function in (mosaic, woodcut, ink_wash, swirls, pointillism, stained_glass, halftone,
                     waves, knife)
}


def draw(name: str, size: int = 256, seed: int = 0) -> np.ndarray:
    """Draw one style image; returns uint8 [size, size, 3] RGB.

    Raises ValueError for a name that is not in STYLES or a size outside 64 to 2048.
    """
    if name not in STYLES:
        raise ValueError(f'no style {name!r} to draw; there are {sorted(STYLES)}')
    if not 64 <= size <= 2048:
        raise ValueError(f'size is {size}; expected 64 to 2048 pixels')
    rng = np.random.default_rng([seed, *name.encode()])
    big = size * OVERSAMPLING
    sheet = np.clip(STYLES[name](rng, big), 0, 255).astype(np.float32)
    small = cv2.resize(sheet, (size, size), interpolation=cv2.INTER_AREA)
    return np.round(small).astype(np.uint8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `muon-ad styles draw`."""
    parser.add_argument('out', type=Path, help='folder for the PNG files; made where missing')
    parser.add_argument('--size', type=int, default=256, help='pixels a side (default 256)')
    parser.add_argument('--seed', type=int, default=0, help='another seed, another sheet')
    parser.add_argument('--names', nargs='+', choices=sorted(STYLES), default=list(STYLES),
                        help='which styles (default: all)')


def run(args: argparse.Namespace) -> int:
    """Draw the styles asked for into `args.out`; returns the exit code."""
    args.out.mkdir(parents=True, exist_ok=True)
    for name in tqdm(args.names, desc='drawing styles'):
        image = cv2.cvtColor(draw(name, args.size, args.seed), cv2.COLOR_RGB2BGR)
        path = args.out / f'{name}.png'
        if not cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
            raise OSError(f'{path}: cannot be written')
    return 0

"""Measures a style package (distances, flicker, speed) beside MicroAST and the bare photograph."""

import argparse
import json
import time
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from tqdm import tqdm

from muon_ad.metrics.style import flicker
from muon_ad.metrics.style import Judge
from muon_ad.metrics.style import similarity
from muon_ad.metrics.style import Stylise
from muon_ad.networks.microast import MicroAST
from muon_ad.picture_files import write_picture
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.style import read_style
from muon_ad.runtime.style import StyleModel
from muon_ad.train.images import load_images


class Peer:
    """MicroAST as a function of a frame, with the style it was given last."""

    def __init__(self, network: MicroAST, sheet: np.ndarray) -> None:
        self._network = network
        self._sheet = self._tensor(sheet)

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        result = self._network(self._tensor(image), self._sheet)[0].clamp(0, 1)
        return (result.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)

    @staticmethod
    def _tensor(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255


def frames(sources: Sequence[Path], width: int, height: int) -> list[np.ndarray]:
    """Read photographs as uint8 [height, width + 1, 3]: a frame and one column to move by."""
    return [cv2.resize(image, (width + 1, height), interpolation=cv2.INTER_AREA)
            for image in load_images(sources, max(width, height), frames=4)]


def judged(
    judge: Judge, stylise: Stylise, photos: Sequence[np.ndarray], sheet: np.ndarray,
) -> dict[str, float]:
    """Return the means of distances, SSIM to the photograph and flicker over the photographs."""
    found = []
    for photo in photos:
        frame = np.ascontiguousarray(photo[:, :-1])
        result = stylise(frame).copy()
        found.append((judge.style_distance(result, sheet), judge.content_distance(result, frame),
                      similarity(result, frame),
                      flicker(lambda image: stylise(image).copy(), photo)))
    names = ('style_distance', 'content_distance', 'ssim', 'flicker')
    return {name: round(float(value), 3)
            for name, value in zip(names, np.mean(found, axis=0), strict=True)}


def compare(
    package: ModelPackage, judge: Judge, photos: Sequence[np.ndarray], peer: MicroAST | None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Return {style: {who: figures}} for the variants of the package that are as large as its
    default, MicroAST if given, and the photograph.
    """
    models = models_of(package)
    found = {}
    for name, path in tqdm(package.styles.items(), desc='judging styles'):
        sheet = read_style(path)
        row = found[name] = {}
        for variant, model in models.items():
            model.set_style(name)
            row[variant] = judged(judge, model.stylise, photos, sheet)
        if peer is not None:
            row['microast'] = judged(judge, Peer(peer, sheet), photos, sheet)
        row['photograph'] = judged(judge, lambda image: image, photos, sheet)
    return found


def models_of(package: ModelPackage) -> dict[str, StyleModel]:
    """Return a model for each variant that is as large as the default one."""
    default = package.variant()
    return {name: StyleModel(package, name) for name, variant in package.variants.items()
            if (variant.width, variant.height) == (default.width, default.height)}


def draw_sheet(package: ModelPackage, photos: Sequence[np.ndarray]) -> np.ndarray:
    """Return a picture, uint8 RGB: a row a style, a column a variant, photographs in turn."""
    models = models_of(package)
    rows = []
    for index, (name, path) in enumerate(package.styles.items()):
        frame = np.ascontiguousarray(photos[index % len(photos)][:, :-1])
        side = frame.shape[0]
        row = [cv2.resize(read_style(path), (side, side), interpolation=cv2.INTER_AREA), frame]
        for variant, model in models.items():
            model.set_style(name)
            row.append(cv2.putText(model.stylise(frame).copy(), variant, (6, 16),
                                   cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1,
                                   cv2.LINE_AA))
        rows.append(np.hstack(row))
    return np.vstack(rows)


def mean_figures(table: Mapping) -> dict[str, dict[str, float]]:
    """Average `compare`'s table over the styles: {who: figures}."""
    whos = next(iter(table.values()))
    return {who: {key: round(float(np.mean([row[who][key] for row in table.values()])), 3)
                  for key in whos[who]} for who in whos}


def speed(package: ModelPackage, seconds: float = 2.0) -> dict[str, float]:
    """Return frames a second, keyed `<variant>_<n>_threads`.

    By the time that a tenth of the frames beat: on a machine with other work the median tells of
    that work.
    """
    found = {}
    for variant in package.variants.values():
        for threads in (1, 2):
            model = StyleModel(package, variant.name, EngineOptions(threads=threads))
            frame = np.random.default_rng(0).integers(
                0, 255, (variant.height, variant.width, 3), np.uint8)
            times: list[float] = []
            while sum(times) < seconds:
                begin = time.perf_counter()
                model.stylise(frame)
                times.append(time.perf_counter() - begin)
            rate = 1 / float(np.percentile(times, 10))
            found[f'{variant.name}_{threads}_threads'] = round(rate, 1)
    return found


def write_quality(package: ModelPackage, quality: Mapping) -> None:
    """Put the figures into the package's model.yaml."""
    path = package.folder / 'model.yaml'
    data = yaml.safe_load(path.read_text(encoding='utf-8'))
    data['quality'] = {**data.get('quality', {}), **quality}
    path.write_text(yaml.safe_dump(data, sort_keys=False, width=99), encoding='utf-8')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `muon-ad evaluate style`."""
    parser.add_argument('package', type=Path, help='folder of the style package')
    parser.add_argument('--photos', type=Path, nargs='+', required=True,
                        help='photographs to stylise, best some that were not trained on')
    parser.add_argument('--judge', type=Path, required=True,
                        help='SqueezeNet 1.0 weights as .npz (songhan/SqueezeNet_compressed)')
    parser.add_argument('--microast', type=Path,
                        help='folder with microast_*.pth, to judge MicroAST as well')
    parser.add_argument('--out', type=Path, help='JSON file for the whole table')
    parser.add_argument('--picture', type=Path, help='file for a picture of every style by every '
                        'variant')
    parser.add_argument('--write', action='store_true', help='put the means into model.yaml')


def run(args: argparse.Namespace) -> int:
    """Measure, print and write what was asked for; returns the exit code."""
    torch.set_num_threads(1)
    package = load_package(args.package)
    judge = Judge.load(args.judge)
    peer = MicroAST.load(args.microast) if args.microast else None
    size = package.variant()
    photos = frames(args.photos, size.width, size.height)
    table = compare(package, judge, photos, peer)
    quality = {**mean_figures(table), 'fps': speed(package)}
    width = max(map(len, mean_figures(table)))
    print(f'{"style":14} {"by":{width}} {"style":>7} {"content":>8} {"SSIM":>6} {"flicker":>8}')
    for name, row in [*table.items(), ('mean', mean_figures(table))]:
        for who, figures in row.items():
            print(f'{name:14} {who:{width}} {figures["style_distance"]:7.3f} '
                  f'{figures["content_distance"]:8.3f} {figures["ssim"]:6.3f} '
                  f'{figures["flicker"]:8.2f}')
    for name, value in quality['fps'].items():
        print(f'{name:32} {value:6.1f} frames/s')
    if args.out:
        args.out.write_text(json.dumps({'styles': table, **quality}, indent=2) + '\n')
    if args.picture:
        write_picture(args.picture, draw_sheet(package, photos))
    if args.write:
        write_quality(package, quality)
    return 0

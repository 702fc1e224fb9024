"""`muon-ad quantize unet`: the denoiser of a diffusers folder with weights of 4 or 8 bits."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import skimage.data
import torch
from rich.table import Table

from muon_ad.distill.devices import choose_device
from muon_ad.distill.diffusion import DiffusionBackbone
from muon_ad.distill.folders import check_layout
from muon_ad.distill.quantise.tensor import BITS
from muon_ad.distill.quantise.weights import FILE
from muon_ad.distill.quantise.weights import GROUP
from muon_ad.distill.quantise.weights import quantise
from muon_ad.distill.quantise.weights import Report
from muon_ad.distill.quantise.weights import save_quantised
from muon_ad.picture_files import read_picture
from muon_ad.runtime.installed import find_package
from muon_ad.screen import screen

TIMES = 4       # time-steps of each picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('folder', metavar='FOLDER', help='diffusers folder, such as Stable '
                        'Diffusion XL, or the name of the shipped one')
    parser.add_argument('-o', '--out', type=Path, required=True,
                        help='folder to write: loads wherever FOLDER does')
    parser.add_argument('--bits', type=int, choices=BITS, default=8, help='of a weight')
    parser.add_argument('--group', type=int, default=GROUP, metavar='N',
                        help=f'inputs that share a scale (default: {GROUP})')
    parser.add_argument('--rounding', choices=('gptq', 'nearest'), default='gptq',
                        help='gptq (default): calibrated on pictures; nearest: at once')
    parser.add_argument('--pictures', type=Path, nargs='+', default=[], metavar='FILE',
                        help='to calibrate on (default: photographs of scikit-image)')
    parser.add_argument('--size', type=int, default=128, metavar='PIXELS',
                        help='sides of the pictures (default: 128)')
    parser.add_argument('--seed', type=int, default=0, help='of the noise')


def run(args: argparse.Namespace) -> int:
    """Quantise, measure and write; returns the exit status."""
    folder = find_package(args.folder)
    if args.out.resolve() == folder.resolve():
        raise ValueError(f'--out is {args.out}, the folder itself; expected another one')
    backbone = DiffusionBackbone.load(folder, choose_device('cpu'))
    pictures = [read_picture(path) for path in args.pictures] or [
        skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    *known, unseen = _noisy_latents(backbone, pictures, args.size, args.seed)
    before = _predictions(backbone, unseen)
    report = quantise(
        backbone.denoiser, args.bits, args.group,
        (lambda: [_predictions(backbone, some) for some in known]) if args.rounding == 'gptq'
        else None,
    )
    _write(folder, args.out, backbone)
    _show(report, _error(before, _predictions(backbone, unseen)))
    return 0


def _noisy_latents(
    backbone: DiffusionBackbone, pictures: Sequence[np.ndarray], size: int, seed: int,
) -> list[list[tuple[torch.Tensor, int | float]]]:
    """Return the latents of each picture at several time-steps, and other noise of the last.

    The extra item is what the error is measured on, and what nothing is calibrated on.
    """
    if size < 1 or size % backbone.multiple:
        raise ValueError(f'--size is {size}; expected a multiple of {backbone.multiple}')
    noise = torch.Generator().manual_seed(seed)
    latents = []
    for picture in (*pictures, pictures[-1]):
        side = min(picture.shape[0], picture.shape[1])
        image = torch.from_numpy(picture[:side, :side].copy()).permute(2, 0, 1)[None].float() / 255
        image = torch.nn.functional.interpolate(image, (size, size), mode='area')
        clean = backbone.encode(image).detach()
        latents.append([
            (backbone.add_noise(clean, torch.randn(clean.shape, generator=noise), time), time)
            for time in backbone.timesteps(TIMES)
        ])
    return latents


@torch.no_grad()
def _predictions(
    backbone: DiffusionBackbone, latents: Sequence[tuple[torch.Tensor, int | float]],
) -> torch.Tensor:
    return torch.cat([backbone.denoise(some, time) for some, time in latents])


def _error(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Return the root mean square of the difference over that of what was expected."""
    return float((found - expected).norm() / expected.norm())


def _write(folder: Path, out: Path, backbone: DiffusionBackbone) -> None:
    """Copy the folder, but for the denoiser's weights, which are replaced."""
    part = check_layout(folder)
    shutil.copytree(folder, out, dirs_exist_ok=True, ignore=lambda where, names: [
        name for name in names
        if Path(where) == folder / part and name != 'config.json'
    ])
    save_quantised(backbone.denoiser, out / part / FILE)


def _show(report: Report, error: float) -> None:
    table = Table(show_header=False)
    for name, value in (
        ('bits', str(report.bits)), ('inputs a scale', str(report.group)),
        ('layers by GPTQ', str(report.calibrated)),
        ('layers to nearest', str(report.nearest)),
        ('layers in floating point', str(report.kept)),
        ('MB before', f'{report.bytes_before / 1e6:.2f}'),
        ('MB after', f'{report.bytes_after / 1e6:.2f} '
                     f'({report.bytes_before / report.bytes_after:.2f} times smaller)'),
        ('error of the prediction', f'{error:.2%} of its size, on noise not calibrated on'),
    ):
        table.add_row(name, value)
    screen(highlight=False).print(table)

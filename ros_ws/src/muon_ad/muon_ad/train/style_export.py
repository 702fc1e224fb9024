"""Turns a checkpoint of train/style.py into a model package: two ONNX files and model.yaml."""

import argparse
import copy
import shutil
import warnings
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from muon_ad.networks.style import STYLE_SIZE
from muon_ad.networks.style import StyleConfig
from muon_ad.networks.style import StyleEncoder
from muon_ad.networks.style import StyleStudent
from muon_ad.runtime.package import sha256_of

SIZES = ((320, 240), (640, 480))
OPSET = 17


class ExportedStudent(nn.Module):
    """The student with pixels in and out: uint8 [1, H, W, 3] and style [1, S] to the same."""

    def __init__(self, student: StyleStudent) -> None:
        super().__init__()
        self.student = copy.deepcopy(student).eval().requires_grad_(False)
        self.student.fine = self.student.fine.plain()
        self.student.last = self.student.last.plain()

    def forward(self, image: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Stylise; rounds to the nearest grey level."""
        result = self.student(image.permute(0, 3, 1, 2).float() / 255, style)
        return (result * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1)


class ExportedEncoder(nn.Module):
    """The encoder with pixels in: uint8 [1, 256, 256, 3] to float32 [1, S]."""

    def __init__(self, encoder: StyleEncoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).eval().requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Encode one style image."""
        return self.encoder(image.permute(0, 3, 1, 2).float() / 255)


def load_checkpoint(path: Path) -> tuple[StyleStudent, StyleEncoder, dict]:
    """Rebuild both networks, in fp32; also returns the checkpoint's step and recipe.

    Raises FileNotFoundError, or ValueError where the file is not such a checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint; `muon-ad train style` writes it')
    state = torch.load(path, map_location='cpu', weights_only=True)
    if not isinstance(state, dict) or not {'config', 'student', 'encoder'} <= state.keys():
        raise ValueError(f'{path}: not a checkpoint of `muon-ad train style`')
    config = StyleConfig.from_dict(state['config'])
    student, encoder = StyleStudent(config), StyleEncoder(config)
    student.load_state_dict(state['student'])
    encoder.load_state_dict(state['encoder'])
    return student, encoder, {'steps': state['step'], **state['recipe']}


def export_onnx(student: StyleStudent, encoder: StyleEncoder, folder: Path) -> tuple[Path, Path]:
    """Write `transfer.onnx` and `encoder.onnx` into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    transfer, encoding = folder / 'transfer.onnx', folder / 'encoder.onnx'
    frame = torch.zeros(1, 240, 320, 3, dtype=torch.uint8)
    sheet = torch.zeros(1, STYLE_SIZE, STYLE_SIZE, 3, dtype=torch.uint8)
    vector = torch.zeros(1, student.config.style_length)
    plane = {1: 'height', 2: 'width'}
    _export(ExportedStudent(student), (frame, vector), transfer, ('image', 'style'), 'stylised',
            {'image': plane, 'stylised': plane})
    _export(ExportedEncoder(encoder), (sheet,), encoding, ('image',), 'style', {})
    return transfer, encoding


def _export(
    module: nn.Module, arguments: tuple, path: Path, inputs: Sequence[str], output: str,
    dynamic: dict[str, dict[int, str]],
) -> None:
    with warnings.catch_warnings():
        # The exporter without onnxscript is deprecated, yet the one that writes the plainer graph.
        warnings.simplefilter('ignore', DeprecationWarning)
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        warnings.filterwarnings('ignore', module=r'torch\.onnx')
        torch.onnx.export(module.eval(), arguments, str(path), input_names=list(inputs),
                          output_names=[output], dynamic_axes=dynamic, opset_version=OPSET,
                          dynamo=False)


def gflops(student: StyleStudent, width: int, height: int) -> float:
    """Return the billions of floating-point operations (two per multiply-add) of one frame."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        student(torch.zeros(1, 3, height, width), torch.zeros(1, student.config.style_length))
    return counter.get_total_flops() / 1e9


def write_package(
    student: StyleStudent, encoder: StyleEncoder, training: Mapping, styles: Path, folder: Path,
    default: str = '',
) -> Path:
    """Write the whole package, with a copy of every PNG in `styles`; returns model.yaml's path.

    `default` is the style to start with (empty: the first). A `quality` section that is already in
    the folder's model.yaml is dropped, since it was measured on another network.
    """
    images = sorted(styles.glob('*.png'))
    if not images:
        raise FileNotFoundError(f'{styles}: no PNG in it; `muon-ad styles draw` makes them')
    names = [path.stem for path in images]
    if default and default not in names:
        raise ValueError(f'default style is {default!r}; expected one of {names}')
    transfer, encoding = export_onnx(student, encoder, folder)
    (folder / 'styles').mkdir(exist_ok=True)
    for path in images:
        if path.parent.resolve() != (folder / 'styles').resolve():
            shutil.copyfile(path, folder / 'styles' / path.name)
    count = sum(p.numel() for p in student.parameters())
    data = {
        'name': folder.name, 'task': 'style', 'licence': 'Apache-2.0',
        'summary': f'Streaming style transfer, {count // 1000}k parameters, {len(images)} '
                   'built-in styles and any image',
        'input': {'color': 'rgb', 'layout': 'nhwc', 'dtype': 'uint8', 'resize': 'fit'},
        'default_variant': 'dense_{}x{}'.format(*SIZES[0]),
        'variants': {
            f'dense_{width}x{height}': {
                **_file(transfer, folder), 'width': width, 'height': height, 'precision': 'fp32',
                'pruned': 0.0, 'parameters': count,
                'gflops': round(gflops(student, width, height), 3),
            } for width, height in SIZES
        },
        'style': {
            'encoder': _file(encoding, folder),
            'images': {path.stem: _file(folder / 'styles' / path.name, folder)
                       for path in images},
            'default': default or names[0],
        },
        'training': dict(training),
    }
    path = folder / 'model.yaml'
    path.write_text(yaml.safe_dump(data, sort_keys=False, width=99), encoding='utf-8')
    return path


def _file(path: Path, folder: Path) -> dict[str, str]:
    return {'file': path.relative_to(folder).as_posix(), 'sha256': sha256_of(path)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `muon-ad export style`."""
    parser.add_argument('checkpoint', type=Path, help='checkpoint.pt of `muon-ad train style`')
    parser.add_argument('out', type=Path, help='folder of the package')
    parser.add_argument('--styles', type=Path, required=True, help='folder of built-in PNG styles')
    parser.add_argument('--default', default='', help='style to start with (default: the first)')


def run(args: argparse.Namespace) -> int:
    """Export as asked; returns the exit code."""
    student, encoder, training = load_checkpoint(args.checkpoint)
    path = write_package(student, encoder, training, args.styles, args.out.resolve(), args.default)
    print(path)
    return 0

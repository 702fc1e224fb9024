"""Turns trained style networks into a model package: ONNX files, weights and model.yaml.

The weights in the package (`weights/*.safetensors`) are the source of everything else in it: one
file a variant and one of the encoder, from which the ONNX files are made anew each time.
"""

import argparse
import copy
import shutil
import warnings
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from muon_ad.deploy.rebuilt import agreement
from muon_ad.documents import read_document
from muon_ad.networks.style import frame_statistics
from muon_ad.networks.style import STRIDE
from muon_ad.networks.style import STYLE_SIZE
from muon_ad.networks.style import StyleEncoder
from muon_ad.networks.style import StyleStudent
from muon_ad.networks.style import UpConv
from muon_ad.networks.weights import save_network
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import sha256_of
from muon_ad.runtime.style import read_style
from muon_ad.train.checkpoint import load_checkpoint
from muon_ad.train.style_weights import ENCODER
from muon_ad.train.style_weights import load_encoder
from muon_ad.train.style_weights import load_networks
from muon_ad.train.style_weights import load_student
from muon_ad.train.style_weights import STUDENT
from muon_ad.train.style_weights import weights_file

SIZES = ((320, 240), (640, 480))
OPSET = 17
# INT8 kernels of CPUs are fast for outputs in multiples of it, and slower than fp32 for others.
LANES = 16


class ExportedStudent(nn.Module):
    """The student with pixels in and out: uint8 [1, H, W, 3] and style [1, S] to the same.

    Pixels are bytes with their channels last wherever they are only moved, which is where moving
    is cheap, also in INT8. Evening out the frame is part of the first scale and shift.
    """

    def __init__(self, student: StyleStudent) -> None:
        super().__init__()
        self.student = student = copy.deepcopy(student).eval().requires_grad_(False)
        stem = student.stem
        stem.weight.data = _channels_last(stem.weight.transpose(0, 1), STRIDE).transpose(0, 1)
        by_colour = stem.weight.unflatten(1, (-1, 3)).sum((1, 3, 4))
        self.register_buffer('by_colour', by_colour)
        self.register_buffer('bias', stem.bias.data.clone())
        stem.bias.data.zero_()
        stem.weight.data /= 255
        self.fine, self.last = _plain(student.fine), _plain(student.last)
        _fill_up(self.last)
        places = student.fine_style
        places.scale, places.shift = places.scale.repeat(4), places.shift.repeat(4)
        student.fine = student.last = None

    def forward(self, image: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Stylise; rounds to the nearest grey level."""
        student = self.student
        x = _unshuffled(image, STRIDE).permute(0, 3, 1, 2).float()
        scale, shift = self._evening(image, style)
        x = student.body(F.relu(student.stem(x) * scale + shift), style)
        x = F.relu(student.fine_style(self.fine(x), style))
        x = _shuffled(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = (torch.sigmoid(self.last(x)) * 255 + 0.5).to(torch.uint8)
        return _shuffled(x.permute(0, 2, 3, 1)[..., :12])

    def _evening(
        self, image: torch.Tensor, style: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale and shift [1, C, 1, 1] of what the stem makes of a frame's bytes.

        With n = (image - mean) / (2 deviation) and stem(n) = W n + b, scale * stem(n) + shift is
        as well (scale / (2 deviation)) * W image + scale * (b - W mean / (2 deviation)) + shift.
        """
        mean, deviation = frame_statistics(image.permute(0, 3, 1, 2), peak=255.0)
        places = self.student.style
        scale, shift = style[:, places.scale], style[:, places.shift]
        contrast = 2 * deviation.flatten(1)
        offset = self.bias - (self.by_colour * mean.flatten(1)).sum(1) / contrast
        scale, shift = scale / contrast, scale * offset + shift
        return scale[:, :, None, None], shift[:, :, None, None]


def _plain(up: UpConv) -> nn.Conv2d:
    """Return the convolution in an up-convolution, with outputs in the order of `_shuffled`."""
    conv = up.plain()
    conv.weight.data = _channels_last(conv.weight, 2)
    conv.bias.data = _channels_last(conv.bias, 2)
    return conv


def _channels_last(x: torch.Tensor, stride: int) -> torch.Tensor:
    """Reorder the first dimension from (channel, row, column) to (row, column, channel)."""
    return x.unflatten(0, (-1, stride, stride)).movedim(0, 2).flatten(0, 2).contiguous()


def _fill_up(conv: nn.Conv2d) -> None:
    """Add outputs of zeros up to a multiple of LANES."""
    missing = -len(conv.bias) % LANES
    conv.weight.data = F.pad(conv.weight, (0, 0) * 3 + (0, missing))
    conv.bias.data = F.pad(conv.bias, (0, missing))


def _unshuffled(x: torch.Tensor, stride: int) -> torch.Tensor:
    """[N, H, W, C] -> [N, H / stride, W / stride, stride * stride * C]."""
    count, height, width, channels = x.shape
    rows, columns = height // stride, width // stride
    x = x.reshape(count, rows, stride, columns, stride * channels)
    return x.transpose(2, 3).reshape(count, rows, columns, stride * stride * channels)


def _shuffled(x: torch.Tensor) -> torch.Tensor:
    """[N, H, W, 4 C] -> [N, 2 H, 2 W, C]."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height, width, 2, channels // 2).transpose(2, 3)
    return x.reshape(count, 2 * height, 2 * width, channels // 4)


class ExportedEncoder(nn.Module):
    """The encoder with pixels in: uint8 [1, 256, 256, 3] to float32 [1, S]."""

    def __init__(self, encoder: StyleEncoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).eval().requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Encode one style image."""
        return self.encoder(image.permute(0, 3, 1, 2).float() / 255)


def export_student(student: StyleStudent, style_length: int, path: Path) -> None:
    """Write the student as ONNX, for frames of any size and style vectors of `style_length`."""
    frame = torch.zeros(1, 240, 320, 3, dtype=torch.uint8)
    plane = {1: 'height', 2: 'width'}
    _export(ExportedStudent(student), (frame, torch.zeros(1, style_length)), path,
            ('image', 'style'), 'stylised', {'image': plane, 'stylised': plane})


def export_encoder(encoder: StyleEncoder, path: Path) -> None:
    """Write the encoder as ONNX."""
    sheet = torch.zeros(1, STYLE_SIZE, STYLE_SIZE, 3, dtype=torch.uint8)
    _export(ExportedEncoder(encoder), (sheet,), path, ('image',), 'style', {})


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
        student.eval()(torch.zeros(1, 3, height, width),
                       torch.zeros(1, student.config.style_length))
    return counter.get_total_flops() / 1e9


def parameters(student: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in student.parameters())


def add_checkpoint(path: Path, folder: Path, variant: str) -> dict[str, Any]:
    """Copy both networks of a training's checkpoint into a package; return how they were made.

    Raises what `add_encoder` does.
    """
    student, encoder = load_networks(path)
    state = load_checkpoint(path, {})
    add_encoder(encoder, folder, variant)
    save_network(weights_file(folder, variant), student, STUDENT, student.config.to_dict())
    return {'steps': state['step'], **state['recipe']}


def add_student(path: Path, folder: Path, variant: str) -> None:
    """Copy a student, such as `muon-ad prune` leaves, into a package, with the encoder beside it.

    Raises what `add_encoder` does.
    """
    load_student(path)      # or the package would be broken by a broken file
    beside = path.with_name('encoder.safetensors')
    if beside.is_file():
        add_encoder(load_encoder(beside), folder, variant)
    target = weights_file(folder, variant)
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.resolve() != target.resolve():
        shutil.copyfile(path, target)


def add_encoder(encoder: StyleEncoder, folder: Path, variant: str) -> None:
    """Put the encoder of a variant into a package, whose other variants read its vectors as well.

    One that also has tokens, for an attentive student, does for those without. Raises ValueError
    where the others were made for another encoder.
    """
    target = weights_file(folder, 'encoder')
    others = sorted(file.stem for file in folder.glob('weights/*.safetensors')
                    if file.stem not in ('encoder', variant))
    if target.is_file() and others:
        have, new = load_encoder(target).state_dict(), encoder.state_dict()
        if not all(torch.equal(have[name], new[name]) for name in have.keys() & new.keys()):
            raise ValueError(
                f'the style encoder of {variant} is not the one in {folder}, for which '
                f'{", ".join(others)} were made; expected another folder, or those removed from '
                f'{target.parent}')
        if have.keys() >= new.keys():
            return
    save_network(target, encoder, ENCODER, encoder.config.to_dict())


def add_styles(styles: Path, folder: Path) -> None:
    """Copy the built-in styles, every PNG in `styles`, into a package."""
    images = sorted(styles.glob('*.png'))
    if not images:
        raise FileNotFoundError(f'{styles}: no PNG in it; `muon-ad styles draw` makes them')
    (folder / 'styles').mkdir(parents=True, exist_ok=True)
    for path in images:
        if path.parent.resolve() != (folder / 'styles').resolve():
            shutil.copyfile(path, folder / 'styles' / path.name)


def build_package(folder: Path, default: str = '', training: Mapping | None = None) -> Path:
    """Make the ONNX files and model.yaml of a package from its weights and styles.

    `default` is the style to start with (empty: as before, or the first); `training` tells, by
    variant, how those that are new were made. What was measured
    (`quality`) and the quantised variants stay where the network they belong to is the same as
    before. Returns the path of model.yaml. Raises DisagreementError where an ONNX file does not do
    on the style images what its network does.
    """
    path = folder / 'model.yaml'
    before = read_document(path) if path.is_file() else {}
    images = sorted((folder / 'styles').glob('*.png'))
    names = [image.stem for image in images]
    default = default or before.get('style', {}).get('default', '') or next(iter(names), '')
    if default not in names:
        raise ValueError(f'default style is {default!r}; expected one of {names}')
    encoder = load_encoder(weights_file(folder, 'encoder'))
    export_encoder(encoder, folder / 'encoder.onnx')
    students = {file.stem: load_student(file)
                for file in sorted(folder.glob('weights/*.safetensors'), key=_best_first)
                if file.stem != 'encoder'}
    variants = {}
    for name, student in students.items():
        export_student(student, encoder.config.style_length, folder / f'{name}.onnx')
        variants |= _entries(name, student, folder, students.get('dense', student))
    known = {entry.get('sha256') for entry in before.get('variants', {}).values()}
    same = all(entry['sha256'] in known for entry in variants.values())
    kept = {name: entry for name, entry in before.get('variants', {}).items()
            if _made_from(name, variants, before)}
    data = {
        'name': folder.name, 'task': 'style', 'licence': 'Apache-2.0',
        'summary': f'Streaming style transfer, {len(students)} networks from '
                   f'{min(map(parameters, students.values())) // 1000}k to '
                   f'{max(map(parameters, students.values())) // 1000}k parameters, '
                   f'{len(images)} built-in styles and any image',
        'input': {'color': 'rgb', 'layout': 'nhwc', 'dtype': 'uint8', 'resize': 'fit'},
        'default_variant': '{}_{}x{}'.format(
            'dense' if 'dense' in students else next(iter(students)), *SIZES[0]),
        'variants': variants | kept,
        'style': {
            'encoder': _file(folder / 'encoder.onnx', folder),
            'images': {image.stem: _file(image, folder) for image in images},
            'default': default,
        },
        'weights': {file.stem: _file(file, folder)
                    for file in sorted(folder.glob('weights/*.safetensors'))},
        'training': {**before.get('training', {}), **(training or {})},
    }
    if same and 'quality' in before:
        data['quality'] = before['quality']
    path.write_text(yaml.safe_dump(data, sort_keys=False, width=99), encoding='utf-8')
    package = load_package(folder)
    pictures = [read_style(image) for image in images[:3]]
    for name in students:
        variant = package.variant('{}_{}x{}'.format(name, *SIZES[0]))
        apart = agreement(package, variant, weights_file(folder, name), pictures)
        print(f'{variant.name}: {apart} from torch')
    return path


def _best_first(path: Path) -> tuple[int, str]:
    """Sort key: attention, dense, then more and more pruned."""
    order = ('attention', 'dense')
    return (order.index(path.stem) if path.stem in order else len(order), path.stem)


def _entries(
    name: str, student: StyleStudent, folder: Path, dense: StyleStudent,
) -> dict[str, dict[str, Any]]:
    """Return the variants of one network, one for each size."""
    count = parameters(student)
    return {
        f'{name}_{width}x{height}': {
            **_file(folder / f'{name}.onnx', folder), 'width': width, 'height': height,
            'precision': 'fp32', 'pruned': max(0.0, round(1 - count / parameters(dense), 3)),
            'parameters': count, 'gflops': round(gflops(student, width, height), 3),
        } for width, height in SIZES
    }


def _made_from(name: str, variants: Mapping, before: Mapping) -> bool:
    """Tell whether a variant is a quantised one of a network that is the same as before."""
    source = name.replace('_int8', '').replace('_fp16', '')
    return (source != name and source in variants and source in before['variants']
            and variants[source]['sha256'] == before['variants'][source]['sha256'])


def _file(path: Path, folder: Path) -> dict[str, str]:
    return {'file': path.relative_to(folder).as_posix(), 'sha256': sha256_of(path)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `muon-ad export style`."""
    parser.add_argument('source', type=Path, help='checkpoint.pt of `muon-ad train style`, or '
                        '.safetensors of `muon-ad prune style`')
    parser.add_argument('out', type=Path, help='folder of the package, which may be there already')
    parser.add_argument('--variant', default='dense',
                        help='what to call the network: dense (default), attention, p40, p60, ...')
    parser.add_argument('--styles', type=Path, help='folder of built-in PNG styles')
    parser.add_argument('--default', default='', help='style to start with (default: the first)')


def run(args: argparse.Namespace) -> int:
    """Export as asked; returns the exit code."""
    folder = args.out.resolve()
    training = None
    if args.source.suffix == '.safetensors':
        add_student(args.source, folder, args.variant)
    else:
        training = {args.variant: add_checkpoint(args.source, folder, args.variant)}
    if args.styles:
        add_styles(args.styles, folder)
    print(build_package(folder, args.default, training))
    return 0

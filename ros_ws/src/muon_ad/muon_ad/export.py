"""From PyTorch to model packages: torchvision's detectors (`muon-ad models import`), and parts."""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
import yaml
from torch import nn
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from muon_ad.runtime.detection import Preparation
from muon_ad.runtime.engine import Engine
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import sha256_of

OPSET = 17
LICENCE = 'BSD-3-Clause (torchvision); for the weights see where they come from'


class ExportError(ValueError):
    """A model cannot be exported; the message names what is missing and what to do."""


def size(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT; raises argparse.ArgumentTypeError for anything else."""
    width, _, height = text.partition('x')
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f'{text!r} is not WIDTHxHEIGHT, for example 320x320')
    return int(width), int(height)


def torchvision_model(
    name: str, weights: Path | None = None, random_weights: bool = False
) -> tuple[nn.Module, list[str]]:
    """Build a torchvision detection model, in evaluation mode; returns it and its class names.

    Weights come from the file, or from torchvision's cache; nothing is downloaded. Raises
    ExportError for a name that does not exist, a file that is missing, or one of another model.
    """
    known = torchvision.models.list_models(module=torchvision.models.detection)
    if name not in known:
        raise ExportError(f'model {name!r} is not known to torchvision; expected one of {known}')
    default = torchvision.models.get_model_weights(name).DEFAULT
    classes = list(default.meta['categories'])
    model = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=len(classes)
    )
    if not random_weights:
        cache = Path(torch.hub.get_dir()) / 'checkpoints' / default.url.rsplit('/', 1)[1]
        _load_weights(model, weights or cache, default.url)
    return model.eval(), classes


def _load_weights(model: nn.Module, path: Path, url: str) -> None:
    if not path.is_file():
        raise ExportError(
            f'{path}: no such file; download {url} there, or name your own with --weights'
        )
    try:
        model.load_state_dict(torch.load(path, map_location='cpu', weights_only=True))
    except Exception as error:  # noqa: BLE001 - unpickling raises nearly anything
        raise ExportError(f'{path}: not the weights of this model: {error}') from error


class FixedRows(nn.Module):
    """A torchvision detector that takes a camera's pixels and returns a fixed number of rows.

    A number of rows that changes from frame to frame would not fit buffers that are bound once;
    those to spare have score 0.
    """

    def __init__(self, model: nn.Module, rows: int) -> None:
        super().__init__()
        self.model = model
        self.rows = rows

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [1, H, W, 3] RGB -> boxes [rows, 4] in pixels, scores [rows], labels [rows]."""
        found = self.model([image[0].permute(2, 0, 1).float() / 255])[0]
        return tuple(
            torch.cat([found[key], found[key].new_zeros(self.rows, *shape)])[: self.rows]
            .reshape(self.rows, *shape)
            for key, shape in (('boxes', (4,)), ('scores', ()), ('labels', ()))
        )


def export_torchvision(
    model: nn.Module,
    name: str,
    classes: Sequence[str],
    folder: Path,
    input_size: tuple[int, int] | None = None,
    rows: int = 100,
) -> ModelPackage:
    """Write a torchvision detection model as a package that decodes and suppresses by itself."""
    fixed = getattr(model.transform, 'fixed_size', None)
    width, height = input_size or fixed or _usual_size(model.transform.min_size[0])
    folder.mkdir(parents=True, exist_ok=True)
    wrapped = FixedRows(model, rows).eval()
    to_onnx(wrapped, folder / f'{name}.onnx', width, height, ['boxes', 'scores', 'labels'])
    return write_package(folder, {
        'name': name,
        'task': 'detection',
        'licence': LICENCE,
        'summary': f'{name} as exported from torchvision {torchvision.__version__}',
        # Where the model itself scales to a fixed size, it was trained with stretched images.
        'input': {'resize': 'stretch' if fixed else 'letterbox'},
        'variants': {f'dense_{width}x{height}': {
            'file': f'{name}.onnx', 'width': width, 'height': height,
            'parameters': parameters(model),
        }},
        'decoder': {'name': 'torchvision'},
        'classes': list(classes),
    })


def _usual_size(short: int) -> tuple[int, int]:
    """Return a 4:3 size with the short side the model scales to, in multiples of 32."""
    return round(short * 4 / 3 / 32) * 32, short


def check_against_torch(
    package: ModelPackage, name: str, model: nn.Module, pictures: Sequence[np.ndarray],
    tolerance: float = 1e-4,
) -> float:
    """Compare a variant with the network that it was exported from; return the largest difference.

    Both look at each of the pictures, uint8 [H, W, 3] RGB, as the runtime prepares it. A
    difference is relative where an output exceeds 1. Raises ExportError where one is larger than
    `tolerance`.
    """
    variant = package.variant(name)
    engine, prepare = Engine(variant.file), Preparation(package.input, variant)
    worst = 0.0
    for picture in pictures:
        feed, _ = prepare(picture)
        with torch.no_grad():
            wanted = model(torch.from_numpy(feed.copy())).numpy()
        found = engine.run({next(iter(engine.inputs)): feed})[0]
        worst = max(worst, float(np.max(np.abs(found - wanted) / np.maximum(1, np.abs(wanted)))))
    if not worst <= tolerance:
        raise ExportError(f'{variant.file}: differs from the PyTorch network by {worst:.2g}; '
                          f'expected {tolerance:g} at most')
    return worst


def write_package(folder: Path, data: dict[str, Any]) -> ModelPackage:
    """Write `model.yaml`, with the hash of each variant's file filled in, and read it back."""
    for entry in data['variants'].values():
        entry['sha256'] = sha256_of(folder / entry['file'])
    data.setdefault('default_variant', next(iter(data['variants'])))
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=99)
    (folder / 'model.yaml').write_text(text, encoding='utf-8')
    return load_package(folder)


def record_quality(folder: Path, measured: dict[str, Any]) -> None:
    """Add measurements to the `quality` of a package's `model.yaml`."""
    path = folder / 'model.yaml'
    data = yaml.safe_load(path.read_text(encoding='utf-8'))
    data['quality'] = {**data.get('quality', {}), **measured}
    write_package(folder, data)


def to_onnx(model: nn.Module, path: Path, width: int, height: int, outputs: list[str]) -> None:
    """Write a network that takes uint8 [1, height, width, 3], `image`, as ONNX."""
    image = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    # Not the newer exporter: it cannot follow torchvision's suppression, whose size depends on
    # the data, and one exporter for all is simpler.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of tracing: the export is compared with the original
        torch.onnx.export(
            model, (image,), str(path), input_names=['image'], output_names=outputs,
            opset_version=OPSET, dynamo=False,
        )


def parameters(model: nn.Module) -> int:
    """Return how many numbers a network has learnt."""
    return sum(parameter.numel() for parameter in model.parameters())


def gflops(model: nn.Module, width: int, height: int) -> float:
    """Return billions of operations for a frame, a multiplication with addition counted as two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    return round(counter.get_total_flops() / 1e9, 3)

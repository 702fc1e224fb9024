"""`muon-ad models import`: a detector of others as a model package of ours.

Torchvision's models are built by name and exported; a detector that is an ONNX file already is
copied, with a model.yaml that says how to feed and to decode it. Either is a teacher for
`muon-ad train detector --teacher`, and a drop-in `model` of the node object_detector.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from muon_ad.deploy.graph import read_graph
from muon_ad.export import export_torchvision
from muon_ad.export import ExportError
from muon_ad.export import size
from muon_ad.export import torchvision_model
from muon_ad.export import write_package
from muon_ad.models.pull import HashError
from muon_ad.runtime.decoders import DECODERS
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.package import InputSpec
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import sha256_of
from muon_ad.train.teacher import COCO

# How the authors of each format export it; all of it can be said otherwise.
_USUAL_INPUT = {
    'yolox': {'color': 'bgr', 'layout': 'nchw', 'dtype': 'float32', 'resize': 'letterbox'},
    'fastestdet': {'color': 'bgr', 'layout': 'nchw', 'dtype': 'float32', 'resize': 'stretch',
                   'std': [255.0, 255.0, 255.0]},
    'torchvision': {'color': 'rgb', 'layout': 'nhwc', 'dtype': 'uint8', 'resize': 'stretch'},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('model', help='torchvision detector, such as '
                        'ssdlite320_mobilenet_v3_large or fasterrcnn_mobilenet_v3_large_320_fpn, '
                        'or FILE.onnx')
    parser.add_argument('out', type=Path, help='folder of the model package to write')
    parser.add_argument('--sha256', metavar='HASH',
                        help='what the file of the weights, or FILE.onnx, must have')
    torchvision = parser.add_argument_group('a torchvision detector')
    source = torchvision.add_mutually_exclusive_group()
    source.add_argument('--weights', type=Path, metavar='FILE',
                        help="state dict; default: the model's own in torch's cache, where "
                        '`muon-ad models pull` puts them')
    source.add_argument('--random-weights', action='store_true',
                        help='untrained: for trying the path and the speed')
    torchvision.add_argument('--size', type=size, metavar='WIDTHxHEIGHT',
                             help="input size; default: the model's own")
    torchvision.add_argument('--detections', type=int, default=100,
                             help='rows that the model returns (default: 100)')
    onnx = parser.add_argument_group('an ONNX file')
    onnx.add_argument('--decoder', choices=sorted(DECODERS), default='yolox',
                      help='format of its output (default: yolox)')
    onnx.add_argument('--classes', default='coco', metavar='coco|FILE|NAME,NAME',
                      help='names in order: those of COCO (default), one a line, or with commas')
    for name, choices in InputSpec.CHOICES.items():
        usual = choices if name != 'resize' else ('stretch', 'letterbox')
        onnx.add_argument(f'--{name}', choices=usual,
                          help="of its input; default: as the format's authors export it")
    onnx.add_argument('--licence', default='', help='of the model, for the package')


def run(args: argparse.Namespace) -> int:
    """Make the package as asked, and run it once; returns the exit status."""
    if Path(args.model).suffix == '.onnx':
        package = import_onnx(args)
    else:
        if args.weights:
            check_hash(args.weights, args.sha256)
        elif args.sha256:
            raise ValueError('--sha256 is for a file: give --weights FILE or FILE.onnx')
        model, classes = torchvision_model(args.model, args.weights, args.random_weights)
        package = export_torchvision(model, args.model, classes, args.out, args.size,
                                     args.detections)
    detector = Detector(package)        # looks at a blank frame, so that a wrong format shows here
    variant = detector.variant
    print(f'{args.out}: {package.name}, {variant.width}x{variant.height}, '
          f'{len(package.classes)} classes, {variant.parameters / 1e6:.1f} M parameters')
    return 0


def check_hash(path: Path, expected: str | None) -> None:
    """Raise HashError where the file's SHA-256 is not the one expected, if any is."""
    if expected is None or not path.is_file():
        return
    found = sha256_of(path)
    if found != expected.lower():
        raise HashError(f'{path}: sha256 is {found}; expected {expected}: the file was changed, '
                        'is incomplete or is another one')


def import_onnx(args: argparse.Namespace) -> ModelPackage:
    """Copy a detector's ONNX file into a package.

    Raises ExportError where the file is missing or its input is no image, HashError.
    """
    path = Path(args.model)
    if not path.is_file():
        raise ExportError(f'{path}: no such file; expected a detector in ONNX')
    check_hash(path, args.sha256)
    given = {name: getattr(args, name) for name in InputSpec.CHOICES if getattr(args, name)}
    spec: dict[str, Any] = {**_USUAL_INPUT[args.decoder], **given}
    width, height, parameters, operations = _measured(path, spec['layout'])
    classes = _classes(args.classes)
    args.out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, args.out / path.name)
    return write_package(args.out, {
        'name': path.stem, 'task': 'detection', 'licence': args.licence,
        'summary': f'{path.name}, imported', 'input': spec,
        'variants': {f'dense_{width}x{height}': {
            'file': path.name, 'width': width, 'height': height, 'parameters': parameters,
            'gflops': round(operations / 1e9, 3),
        }},
        'decoder': {'name': args.decoder}, 'classes': classes,
    })


def _measured(path: Path, layout: str) -> tuple[int, int, int, int]:
    """Return width and height of the input, the number of weights, and operations a frame."""
    layers = read_graph(path)
    made = {value.name for layer in layers for value in layer.outputs}
    sources = {value.name: value.shape for layer in layers for value in layer.data
               if value.name not in made}
    shape = next(iter(sources.values()), None)
    channels = 3 if layout == 'nhwc' else 1
    if len(sources) != 1 or shape is None or len(shape) != 4 or shape[channels] != 3:
        raise ExportError(f'{path}: inputs are {sources}; expected one image, {layout}, of 3 '
                          'channels')
    height, width = shape[1:3] if layout == 'nhwc' else shape[2:]
    weights = {value.name: value.constant.size for layer in layers for value in layer.inputs
               if value.constant is not None and value.dtype.startswith('float')}
    return width, height, sum(weights.values()), sum(layer.operations() for layer in layers)


def _classes(text: str) -> list[str]:
    if text == 'coco':
        return list(COCO)
    if Path(text).is_file():
        lines = Path(text).read_text(encoding='utf-8').splitlines()
        return [line.strip() for line in lines if line.strip()]
    return [name.strip() for name in text.split(',')]

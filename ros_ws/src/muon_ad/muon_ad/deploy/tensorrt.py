"""`muon-ad export tensorrt`: how TensorRT builds a model, as a command and as our engine asks it.

The command is for trtexec, to look at an engine's layers and times by itself. The suite builds its
engines through ONNX Runtime, with the provider options that are shown, and keeps them in the
folder of the key that is shown (runtime/engine_cache.py).
"""

import argparse
import json
import shlex
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

import onnx

from muon_ad.deploy.graph import open_sizes
from muon_ad.deploy.model_file import add_model_arguments
from muon_ad.deploy.model_file import model_file
from muon_ad.paths import write_whole
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.engine import tensorrt_options
from muon_ad.runtime.engine_cache import EngineIdentity
from muon_ad.runtime.engine_cache import this_machine
from muon_ad.runtime.package import sha256_of

PRECISIONS = ('fp32', 'fp16', 'int8')


@dataclass(frozen=True)
class Build:
    """One way to build a model: trtexec's command, ONNX Runtime's options, the cache's key."""

    command: list[str]
    provider_options: dict[str, str]
    key: str
    ingredients: dict[str, object]
    notes: list[str]


def plan_build(path: Path, size: tuple[int, int] | None, options: EngineOptions) -> Build:
    """Return how to build the model in `path` for frames of `size` as `options` ask.

    Raises GraphError where the file is not ONNX, or leaves sizes open and `size` is None;
    ValueError for a DLA core with precision fp32, which it has not.
    """
    if options.dla_core >= 0 and options.precision == 'fp32':
        raise ValueError('precision is fp32; a DLA works in fp16 or int8')
    model = onnx.load(path)
    shapes = _shapes(model, open_sizes(model, path, size))
    chosen = tensorrt_options(options)
    identity = EngineIdentity(sha256_of(path), chosen, size or (0, 0), this_machine())
    quantised = any(node.op_type == 'QuantizeLinear' for node in model.graph.node)
    return Build(_command(path, shapes, options), chosen, identity.key(), identity.described(),
                 _notes(options, quantised))


def _shapes(model: onnx.ModelProto, sizes: dict[str, int]) -> str:
    """Return the inputs that leave sizes open as trtexec takes them; empty where none does."""
    spelled = []
    for value in model.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if any(d.dim_param in sizes for d in dimensions):
            numbers = [str(sizes.get(d.dim_param, d.dim_value)) for d in dimensions]
            spelled.append(f'{value.name}:{"x".join(numbers)}')
    return ','.join(spelled)


def _command(path: Path, shapes: str, options: EngineOptions) -> list[str]:
    engine = path.with_suffix(f'.{options.precision}.engine').name
    command = ['trtexec', f'--onnx={path}', f'--saveEngine={engine}']
    if options.precision in ('fp16', 'int8'):
        command.append('--fp16')
    if options.precision == 'int8':
        command.append('--int8')
    if shapes:
        # All three alike: the DLA takes no range of sizes, and a camera has one.
        command += [f'--{name}Shapes={shapes}' for name in ('min', 'opt', 'max')]
    if options.memory_limit_mb:
        command.append(f'--memPoolSize=workspace:{options.memory_limit_mb}M')
    if options.dla_core >= 0:
        command += [f'--useDLACore={options.dla_core}', '--allowGPUFallback']
    return command


def _notes(options: EngineOptions, quantised: bool) -> list[str]:
    notes = []
    if options.precision == 'int8' and not quantised:
        notes.append('the model has no scales: give an int8 variant, or calibrate (--calib for '
                     'trtexec)')
    if options.dla_core >= 0 and quantised:
        notes.append("the DLA takes no Q/DQ pairs: NVIDIA's qdq-translator turns them into a "
                     'calibration cache and a model without them')
    if options.dla_core >= 0:
        notes.append('DLA: up to TensorRT 10.7 (JetPack 6); `muon-ad export dla` tells what falls '
                     'back to the GPU')
    return notes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `muon-ad export tensorrt`."""
    add_model_arguments(parser)
    parser.add_argument('--precision', choices=PRECISIONS, default='fp16',
                        help='what TensorRT may use (default: fp16)')
    parser.add_argument('--dla-core', type=int, choices=(-1, 0, 1), default=-1, metavar='N',
                        help='DLA core 0 or 1; -1 (default): the GPU')
    parser.add_argument('--memory-limit-mb', type=int, default=0, metavar='N',
                        help="workspace in MiB; 0 (default): TensorRT's choice")
    parser.add_argument('-o', '--out', type=Path, metavar='FILE',
                        help='write the command as a shell script, too')
    parser.add_argument('--json', action='store_true', help='print JSON')


def run(args: argparse.Namespace) -> int:
    """Print how to build; returns the exit status."""
    path, size = model_file(args.model, args.variant, args.size)
    options = EngineOptions(('tensorrt',), memory_limit_mb=args.memory_limit_mb,
                            precision=args.precision, dla_core=args.dla_core)
    build = plan_build(path, size, options)
    command = shlex.join(build.command)
    if args.out:
        write_whole(args.out, f'#!/bin/sh\nexec {command}\n'.encode())
        args.out.chmod(0o755)
    if args.json:
        print(json.dumps(asdict(build), indent=2))
        return 0
    print(command)
    print('\nONNX Runtime, TensorrtExecutionProvider:')
    for name, value in build.provider_options.items():
        print(f'  {name}={value}')
    print(f'\nengine cache key on this machine: {build.key}')
    for name, value in build.ingredients.items():
        if name != 'options':
            print(f'  {name}: {value}')
    for note in build.notes:
        print(f'note: {note}')
    return 0

"""`muon-ad models show`: all about one package: variants, input and output, operators, quality."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

import onnxruntime as ort
from rich.table import Table

from muon_ad.models.listing import listed
from muon_ad.runtime.installed import find_package
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import Variant
from muon_ad.screen import screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('package', metavar='NAME|FOLDER', help='model package')
    parser.add_argument('--variant', default='', help='show this one alone')
    parser.add_argument('--json', action='store_true', help='print JSON instead of tables')


def run(args: argparse.Namespace) -> int:
    """Print all about a package; returns the exit status."""
    package = load_package(find_package(args.package))
    chosen = [package.variant(args.variant)] if args.variant else [*package.variants.values()]
    about = described(package, chosen)
    if args.json:
        print(json.dumps(about, indent=2, default=str))
    else:
        _show(about)
    return 0


def described(package: ModelPackage, variants: list[Variant]) -> dict[str, object]:
    """Return all about a package and some of its variants, as JSON takes it."""
    about = listed(package)
    shown = {variant.name: {
        **about['variants'][variant.name], 'file': variant.file.name, 'sha256': variant.sha256,
        **_network(variant),
    } for variant in variants}
    return {
        **about, 'summary': package.summary, 'default_variant': package.default_variant,
        'input': asdict(package.input), 'decoder': package.decoder,
        'classes': list(package.classes), 'styles': list(package.styles),
        'default_style': package.default_style, 'quality': package.quality, 'variants': shown,
    }


def _network(variant: Variant) -> dict[str, object]:
    """Return inputs, outputs and, where the package onnx is installed, operators of a file."""
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(variant.file), settings,
                                   providers=['CPUExecutionProvider'])
    found = {
        'inputs': {node.name: f'{node.type} {node.shape}' for node in session.get_inputs()},
        'outputs': {node.name: f'{node.type} {node.shape}' for node in session.get_outputs()},
    }
    try:
        import onnx
    except ModuleNotFoundError:
        return {**found, 'operators': 'not known: needs the package onnx'}
    nodes = onnx.load(variant.file).graph.node
    return {**found, 'operators': dict(Counter(node.op_type for node in nodes).most_common())}


def _show(about: dict) -> None:
    console = screen(highlight=False)
    table = _table(about['name'])
    for name in ('summary', 'task', 'licence', 'folder', 'default_variant', 'input', 'decoder',
                 'classes', 'styles', 'default_style'):
        if about[name]:
            table.add_row(name.replace('_', ' '), _text(about[name]))
    for name, value in _flat(about['quality']):
        table.add_row(f'quality: {name}', str(value))
    console.print(table)
    for name, variant in about['variants'].items():
        table = _table(name)
        for key, value in variant.items():
            table.add_row(key, _text(value))
        console.print(table)


def _table(title: str) -> Table:
    table = Table(show_header=False, title=title, title_justify='left')
    table.add_column(max_width=36)
    return table


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ', '.join(f'{key} {item}' for key, item in value.items())
    if isinstance(value, list | tuple):
        return ', '.join(map(str, value))
    return f'{value:,}' if isinstance(value, int) else str(value)


def _flat(data: dict, before: str = '') -> Iterator[tuple[str, object]]:
    """Yield the figures of nested mappings with their path."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f'{before}{key}, ')
        else:
            yield f'{before}{key}', value

"""`muon-ad export dla`: which layers of a network a Jetson's DLA runs, told from the file alone.

TensorRT cuts a network into one loadable for each stretch of layers that the DLA runs; between
them work the GPU's kernels, and each crossing costs a reformatting and a wait.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from muon_ad.deploy.dla_rules import FOLDED
from muon_ad.deploy.dla_rules import LOADABLES
from muon_ad.deploy.dla_rules import PRECISIONS
from muon_ad.deploy.dla_rules import why_not
from muon_ad.deploy.graph import Layer
from muon_ad.deploy.graph import read_graph
from muon_ad.deploy.model_file import add_model_arguments
from muon_ad.deploy.model_file import model_file
from muon_ad.screen import screen


@dataclass(frozen=True)
class Placed:
    """A layer and where it runs: `loadable` counts the DLA's parts from 0, None is the GPU."""

    layer: Layer
    loadable: int | None
    reason: str


@dataclass(frozen=True)
class Placement:
    """Where every layer of a network runs, in order of execution."""

    layers: tuple[Placed, ...]

    @property
    def loadables(self) -> int:
        """Number of stretches on the DLA."""
        return len({placed.loadable for placed in self.layers} - {None})

    @property
    def transitions(self) -> int:
        """Number of tensors that cross from one device to the other, or between loadables."""
        made = {value.name: placed for placed in self.layers for value in placed.layer.outputs}
        return len({
            (value.name, placed.loadable)
            for placed in self.layers for value in placed.layer.data
            if value.name in made and made[value.name].loadable != placed.loadable
        })

    @property
    def share(self) -> float:
        """Part of the floating-point operations that the DLA carries out, 0 to 1."""
        total = sum(placed.layer.operations() for placed in self.layers)
        there = sum(placed.layer.operations() for placed in self.layers
                    if placed.loadable is not None)
        return there / total if total else 0.0

    def summary(self) -> dict[str, object]:
        """Return the figures as JSON takes them."""
        there = sum(placed.loadable is not None for placed in self.layers)
        return {
            'layers': len(self.layers), 'on_dla': there, 'on_gpu': len(self.layers) - there,
            'loadables': self.loadables, 'loadables_allowed': LOADABLES,
            'transitions': self.transitions, 'share_of_operations': round(self.share, 4),
            'fall_back': dict(Counter(placed.layer.operator for placed in self.layers
                                      if placed.loadable is None)),
        }


def place(layers: Sequence[Layer], precision: str) -> Placement:
    """Place every layer that the builder keeps; `precision` is one of PRECISIONS.

    A layer joins the loadable of one that it reads from, unless a path between them leads over
    the GPU, which would make each wait for the other.
    """
    if precision not in PRECISIONS:
        raise ValueError(f'precision is {precision!r}; the DLA has {PRECISIONS}')
    kept = _without_folded(layers)
    reasons = [why_not(layer, precision) for layer in kept]
    maker = {value.name: index for index, layer in enumerate(kept) for value in layer.outputs}
    sources = [[maker[value.name] for value in layer.data if value.name in maker]
               for layer in kept]
    stages: list[int] = []      # how often the path from the input has changed the device
    groups = list(range(len(kept)))
    for index, before in enumerate(sources):
        stages.append(max((stages[other] + (bool(reasons[other]) != bool(reasons[index]))
                           for other in before), default=0))
        for other in before:
            if not reasons[index] and not reasons[other] and stages[other] == stages[index]:
                _join(groups, other, index)
    roots = [_root(groups, index) for index in range(len(kept))]
    numbers = {root: number for number, root in enumerate(
        dict.fromkeys(root for root, why in zip(roots, reasons, strict=True) if not why))}
    return Placement(tuple(
        Placed(layer, None if why else numbers[root], why)
        for layer, root, why in zip(kept, roots, reasons, strict=True)
    ))


def _without_folded(layers: Sequence[Layer]) -> list[Layer]:
    """Leave out what the builder folds, and let its readers read what it read."""
    renamed: dict[str, object] = {}
    kept = []
    for layer in layers:
        inputs = tuple(renamed.get(value.name, value) for value in layer.inputs)
        layer = Layer(layer.name, layer.operator, layer.attributes, inputs, layer.outputs)
        if layer.operator in FOLDED:
            renamed[layer.outputs[0].name] = inputs[0]
        else:
            kept.append(layer)
    return kept


def _root(groups: list[int], index: int) -> int:
    while groups[index] != index:
        index = groups[index]
    return index


def _join(groups: list[int], one: int, other: int) -> None:
    groups[_root(groups, other)] = _root(groups, one)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `muon-ad export dla`."""
    add_model_arguments(parser)
    parser.add_argument('--precision', choices=PRECISIONS, default='fp16',
                        help='what the engine is built for (default: fp16)')
    parser.add_argument('--all', action='store_true', help='show the layers on the DLA, too')
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')


def run(args: argparse.Namespace) -> int:
    """Print where the layers run; returns 1 where there are more loadables than a core holds."""
    path, size = model_file(args.model, args.variant, args.size)
    placement = place(read_graph(path, size), args.precision)
    if args.json:
        layers = [{'name': placed.layer.name, 'operator': placed.layer.operator,
                   'loadable': placed.loadable, 'operations': placed.layer.operations(),
                   'reason': placed.reason} for placed in placement.layers]
        print(json.dumps({'file': str(path), 'precision': args.precision,
                          **placement.summary(), 'placement': layers}, indent=2))
    else:
        _show(placement, f'{path.parent.name}/{path.name}, {args.precision}', args.all)
    return int(placement.loadables > LOADABLES)


def _show(placement: Placement, title: str, everything: bool) -> None:
    console = screen(highlight=False)
    table = Table('layer', 'operator', 'runs on', 'why', title=title, title_justify='left')
    for placed in placement.layers:
        if everything or placed.loadable is None:
            where = 'GPU' if placed.loadable is None else f'DLA {placed.loadable}'
            table.add_row(placed.layer.name, placed.layer.operator, where, placed.reason)
    if table.row_count:
        console.print(table)
    figures = placement.summary()
    console.print('{on_dla} of {layers} layers and {share:.1%} of the operations run on the DLA; '
                  'loadables: {loadables} (a core holds {loadables_allowed}), transitions: '
                  '{transitions}'.format(share=placement.share, **figures))

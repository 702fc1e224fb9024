"""What pruning took away: parameters and operations of each part of a network."""

from collections.abc import Iterator
from pathlib import Path

import torch
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and module of each part: the children, and those of lists of layers."""
    for name, module in network.named_children():
        if isinstance(module, nn.ModuleList):
            yield from ((f'{name}.{index}', each) for index, each in enumerate(module))
        else:
            yield name, module


def flops(network: nn.Module, example: tuple) -> dict[str, float]:
    """Return billions of operations (two per multiply-add) of each part, and of all as ''."""
    training = network.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(*example)
    network.train(training)
    whole = type(network).__name__
    counted = {name: sum(kinds.values()) / 1e9
               for name, kinds in counter.get_flop_counts().items()}
    found = {name: counted.get(f'{whole}.{name}', 0.0) for name, _ in parts(network)}
    return {**found, '': counter.get_total_flops() / 1e9}


def parameters(network: nn.Module) -> dict[str, int]:
    """Return the number of parameters of each part, and of all as ''."""
    found = {name: sum(each.numel() for each in module.parameters())
             for name, module in parts(network)}
    return {**found, '': sum(each.numel() for each in network.parameters())}


def comparison(before: nn.Module, after: nn.Module, example: tuple, size: str) -> Table:
    """Return a table of both networks; `size` says what `example` is, for the title."""
    table = Table('part', 'parameters', 'after', 'less', 'GFLOP', 'after', 'less',
                  title=f'before and after, GFLOP for {size}', title_justify='left')
    counts = parameters(before), parameters(after)
    works = flops(before, example), flops(after, example)
    for name, number in counts[0].items():
        if not number:
            continue
        left, work, work_left = counts[1].get(name, 0), works[0][name], works[1].get(name, 0.0)
        table.add_row(name or 'all', f'{number:,}', f'{left:,}', _less(number, left),
                      f'{work:.3f}', f'{work_left:.3f}', _less(work, work_left),
                      end_section=not name)
    return table


def outcome(before: nn.Module, after: nn.Module, asked: float, path: Path) -> str:
    """Return a line for the end of a run: thresholds and floors may not let it reach its ratio."""
    removed = 1 - parameters(after)[''] / parameters(before)['']
    return f'{path}: {removed:.1%} fewer parameters ({asked:.0%} asked)'


def _less(before: float, after: float) -> str:
    return f'{1 - after / before:.0%}' if before else '-'

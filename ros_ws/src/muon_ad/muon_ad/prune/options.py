"""The options that the commands `muon-ad prune style` and `prune detector` share."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from muon_ad.prune.plan import METHODS
from muon_ad.prune.plan import Plan
from muon_ad.prune.plan import THRESHOLDS
from muon_ad.prune.scores import SCORES


def add_arguments(parser: argparse.ArgumentParser, rates: Mapping[str, float]) -> None:
    """Declare them; `rates` is the default learning rate by optimiser."""
    parser.add_argument('--ratio', type=float, default=Plan.ratio,
                        help='share of the parameters to remove (default %(default)s)')
    parser.add_argument('--method', choices=METHODS, default=Plan.method,
                        help='gradual: ours; the others are baselines (default %(default)s)')
    parser.add_argument('--score', choices=tuple(SCORES), default=Plan.score,
                        help='what a channel is worth (default %(default)s)')
    parser.add_argument('--threshold', choices=THRESHOLDS, default=Plan.threshold,
                        help='global: the cheapest of all layers; sigma: below mu + k s of a '
                        "layer by the curriculum's phase; tau: below --tau (default %(default)s)")
    parser.add_argument('--tau', type=float, help='score below which channels go')
    parser.add_argument('--keep', type=float, default=Plan.keep,
                        help='least share of the channels of a layer (default %(default)s)')
    parser.add_argument('--multiple', type=int, default=Plan.multiple,
                        help='keep numbers of channels in multiples of this (default %(default)s)')
    parser.add_argument('--steps', type=int, default=Plan.steps,
                        help='training steps, the last quarter without cuts (default %(default)s)')
    parser.add_argument('-o', '--out', type=Path, required=True,
                        help='folder for the weights, checkpoint and log')
    parser.add_argument('--resume', action='store_true',
                        help='continue from the checkpoint in OUT')
    parser.add_argument('--checkpoint-every', type=int, default=200, metavar='STEPS')
    # Not torch-muon: it keeps copies of what it trains, which cannot be cut.
    names = tuple(name for name in rates if name != 'torch-muon')
    parser.add_argument('--optimizer', choices=names, default=names[0])
    defaults = ', '.join(f'{name} {rates[name]:g}' for name in names)
    parser.add_argument('--rate', type=float, help=f'peak learning rate (default: {defaults})')
    parser.add_argument('--seed', type=int, default=Plan.seed)
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default 1)')


def plan(args: argparse.Namespace) -> Plan:
    """Return what the options ask for. Raises ValueError for what makes no sense."""
    return Plan(args.steps, args.ratio, args.method, args.score, args.threshold, args.tau,
                args.keep, args.multiple, args.seed)

"""`muon-ad quantize memory`: what Stable Diffusion XL, or another model, takes."""

import argparse
import json
from dataclasses import asdict

from rich.table import Table

from muon_ad.distill.quantise.memory import Memory
from muon_ad.distill.quantise.memory import memory_of
from muon_ad.distill.quantise.memory import read_configuration
from muon_ad.distill.quantise.weights import GROUP
from muon_ad.screen import screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('model', metavar='sdxl|FOLDER|CONFIG.json',
                        help='Stable Diffusion XL base 1.0 by its published configuration, a '
                        'diffusers folder (its weights are not needed), or a U-Net config.json')
    parser.add_argument('--pixels', type=int, default=0, metavar='N',
                        help="sides of the pictures (default: the model's own)")
    parser.add_argument('--group', type=int, default=GROUP, metavar='N',
                        help=f'inputs that share a scale (default: {GROUP})')
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')


def run(args: argparse.Namespace) -> int:
    """Compute and print; returns the exit status."""
    memory = memory_of(read_configuration(args.model), args.pixels, args.group)
    if args.json:
        rows = [{**asdict(row), 'total': row.total} for row in memory.footprints]
        print(json.dumps({**asdict(memory), 'footprints': rows}, indent=2))
    else:
        _show(memory)
    return 0


def _show(memory: Memory) -> None:
    console = screen(highlight=False)
    console.print(f'{memory.source}\n' + ', '.join(
        f'{name} {count / 1e6:,.1f} M parameters' for name, count in memory.parameters.items()))
    table = Table(title=f'GB for latents of {memory.pixels} x {memory.pixels} pixels',
                  title_justify='left')
    for name in ('weights', 'denoiser', 'autoencoder', 'latents', 'activations',
                 'with checkpointing', 'total'):
        table.add_column(name, justify='right')
    for row in memory.footprints:
        table.add_row(row.precision, *(f'{count / 1e9:.2f}' for count in (
            row.denoiser, row.autoencoder, row.optimiser, row.activations, row.checkpointed,
            row.total)))
    console.print(table)
    console.print('total: with gradient checkpointing. Activations are in bf16 but for fp32. Not '
                  'counted: text encoders, needed once for the empty prompt, and the pass of the '
                  'autoencoder at the beginning and at the end.')

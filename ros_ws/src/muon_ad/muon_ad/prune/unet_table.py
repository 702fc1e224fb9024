"""`muon-ad prune table`: parameters and FLOPs of U-Nets by part, as in Muon-AD's Table I."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from muon_ad.distill.prompts import needs_time_ids
from muon_ad.distill.prompts import pooled_width
from muon_ad.networks.dynamic_conv import DynamicConv
from muon_ad.networks.light_unet import attentions
from muon_ad.networks.light_unet import LightError
from muon_ad.networks.light_unet import LightUNet
from muon_ad.networks.light_unet import skips
from muon_ad.networks.slicing import SlicingError
from muon_ad.paths import is_file
from muon_ad.prune.unet_plan import parameters_by_part
from muon_ad.prune.unet_plan import part_of
from muon_ad.prune.unet_plan import PARTS
from muon_ad.prune.unet_plan import plan_light
from muon_ad.prune.unet_plan import PlanError
from muon_ad.prune.unet_plan import Shares
from muon_ad.screen import screen

# Of the parts above them: attention layers with what replaced them, and what reads skips.
WITHIN = ('attention', 'skips')
ROWS = (*PARTS, *WITHIN, 'total')
TOKENS = 77     # of a prompt of Stable Diffusion
KINDS = {'UNet2DConditionModel': UNet2DConditionModel, 'LightUNet': LightUNet}


@dataclass(frozen=True)
class Cost:
    """Parameters, and FLOPs of one pass (a multiplication and an addition are two)."""

    parameters: int
    flops: int


def costs(model: UNet2DConditionModel, size: int | None = None) -> dict[str, Cost]:
    """Return the cost of each of ROWS, of one picture of `size` x `size` latents.

    `size` is what the configuration says (64 where it says nothing) by default. The model must be
    on the device 'meta': there, attention is counted as well, and nothing is computed.
    """
    parameters = parameters_by_part(model)
    inside = attentions(model) | {name: part for name, part in model.named_modules()
                                  if isinstance(part, DynamicConv)}
    parameters['attention'] = sum(p.numel() for part in inside.values() for p in part.parameters())
    flops, by_module = _flops(model, size or latent_size(model))
    flops['attention'] = sum(by_module[name] for name in inside)
    parameters['skips'], flops['skips'] = _of_skips(model, by_module)
    for found in (parameters, flops):
        found['total'] = sum(found[part] for part in PARTS)
    return {row: Cost(parameters[row], round(flops[row])) for row in ROWS}


def latent_size(model: UNet2DConditionModel) -> int:
    """Return the sides of the latents that a configuration speaks of; 64 where of none."""
    size = model.config.sample_size or 64
    return size if isinstance(size, int) else max(size)


def _flops(
    model: UNet2DConditionModel, size: int,
) -> tuple[dict[str, float], dict[str, int]]:
    """Return the FLOPs of each of PARTS, and of each module."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(**_inputs(model, size))
    prefix = f'{type(model).__name__}.'
    counted = {name.removeprefix(prefix): sum(operations.values())
               for name, operations in counter.get_flop_counts().items()}
    by_module = {name: counted.get(name, 0) for name, _ in model.named_modules()}
    found = dict.fromkeys(PARTS, 0)
    for name, _ in model.named_modules():
        leads = name in ('mid_block', 'conv_in', 'conv_out', 'time_embedding', 'add_embedding')
        if leads or name.rpartition('.')[0] in ('down_blocks', 'up_blocks'):
            found[part_of(model, name)] += by_module[name]
    return found, by_module


def _inputs(model: UNet2DConditionModel, size: int) -> dict:
    config = model.config
    width = config.cross_attention_dim
    width = width if isinstance(width, int) else width[0]
    with torch.device('meta'):
        found = {'sample': torch.zeros(1, config.in_channels, size, size),
                 'timestep': torch.zeros(1),
                 'encoder_hidden_states': torch.zeros(1, TOKENS, width)}
        if needs_time_ids(model):
            found['added_cond_kwargs'] = {'text_embeds': torch.zeros(1, pooled_width(model)),
                                          'time_ids': torch.zeros(1, 6)}
    return found


def _of_skips(model: UNet2DConditionModel, flops: Mapping[str, int]) -> tuple[int, float]:
    """Return parameters and FLOPs of what reads the skip connections' channels."""
    numbers, work = 0, 0.0
    for name, (hidden, skip) in skips(model).items():
        resnet = model.get_submodule(name)
        share = skip / (hidden + skip)
        numbers += 2 * skip     # of the norm before
        for part in ('conv1', 'conv_shortcut'):
            if getattr(resnet, part) is not None:
                numbers += round(share * getattr(resnet, part).weight.numel())
                work += share * flops[f'{name}.{part}']
    return numbers, work


def load_shape(path: Path) -> UNet2DConditionModel:
    """Return a U-Net without weights, on the device 'meta', from its configuration.

    `path` is a diffusers pipeline with unet/, a folder with config.json, or such a file. Raises
    PlanError.
    """
    file = next((each for each in (path / 'unet' / 'config.json', path / 'config.json', path)
                 if is_file(each)), None)
    if file is None:
        raise PlanError(f'{path}: there is no U-Net; expected a diffusers pipeline with unet/, a '
                        'folder with config.json, or a config.json')
    try:
        config = json.loads(file.read_text(encoding='utf-8'))
        kind = KINDS[config['_class_name']]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError(f'{file}: is no configuration of a U-Net ({error!r}); expected JSON with '
                        f'a _class_name of {" or ".join(KINDS)}') from error
    try:
        with torch.device('meta'):
            return kind.from_config(config).eval()
    except (LightError, SlicingError):
        raise
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise PlanError(f'{file}: diffusers can make no U-Net of it: {error}') from error


def light_shape(dense: UNet2DConditionModel, shares: Shares) -> LightUNet:
    """Return what `muon-ad prune unet` would make of a U-Net, without weights."""
    plan = plan_light(dense, shares)
    with torch.device('meta'):
        return LightUNet.from_config(dict(dense.config), light=plan.to_dict()).eval()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('unets', type=Path, nargs='+', metavar='FOLDER',
                        help='diffusers pipelines, folders of U-Nets, or bare config.json files; '
                        'of a dense one alone, the light one that `prune unet` would make of it '
                        'is shown beside it, else the first is what the others are held against')
    parser.add_argument('--size', type=int, metavar='N',
                        help="sides of the latents (default: the first U-Net's own)")
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')


def run(args: argparse.Namespace) -> int:
    """Print parameters and FLOPs; returns the exit status."""
    if args.size is not None and args.size < 1:
        raise PlanError(f'--size is {args.size}; expected 1 or more')
    models = {str(path): load_shape(path) for path in args.unets}
    first = next(iter(models.values()))
    if len(models) == 1 and not isinstance(first, LightUNet):
        models['light (planned)'] = light_shape(first, Shares())
    size = args.size or latent_size(first)
    found = {name: costs(model, size) for name, model in models.items()}
    if args.json:
        print(json.dumps({'size': size, 'unets': {
            name: {row: vars(cost) for row, cost in each.items()}
            for name, each in found.items()}}, indent=2))
    else:
        show(found, size)
    return 0


def show(found: Mapping[str, Mapping[str, Cost]], size: int) -> None:
    """Print a table of costs, against the first."""
    table = Table('part', title=f'parameters, and GFLOPs of a pass over {size}x{size} latents')
    for name in found:
        table.add_column(f'{name}: parameters', justify='right', overflow='fold')
        table.add_column('GFLOPs', justify='right')
    reference = next(iter(found.values()))
    for row in ROWS:
        cells = [f'of which {row}' if row in WITHIN else row]
        for each in found.values():
            cost, dense = each[row], None if each is reference else reference[row]
            cells += [_cell(f'{cost.parameters:,}', cost.parameters, dense and dense.parameters),
                      _cell(f'{cost.flops / 1e9:.3g}', cost.flops, dense and dense.flops)]
        table.add_row(*cells, end_section=row in (PARTS[-1], WITHIN[-1]))
    screen().print(table)


def _cell(text: str, value: int, reference: int | None) -> str:
    return f'{text} ({value / reference - 1:+.0%})' if reference else text

"""`muon-ad prune unet`: a diffusers folder with a lighter U-Net, which imitates the dense one."""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from muon_ad.distill.devices import choose_device
from muon_ad.distill.devices import DEVICES
from muon_ad.distill.diffusion import DiffusionBackbone
from muon_ad.distill.folders import check_layout
from muon_ad.networks.light_unet import LightUNet
from muon_ad.paths import is_folder
from muon_ad.paths import write_whole
from muon_ad.prune.denoising import Batch
from muon_ad.prune.denoising import generated_pictures
from muon_ad.prune.denoising import mean_loss
from muon_ad.prune.denoising import noisy_batches
from muon_ad.prune.layers import kept_layers
from muon_ad.prune.layers import layer_scores
from muon_ad.prune.layers import RULES
from muon_ad.prune.unet import choose
from muon_ad.prune.unet import convert
from muon_ad.prune.unet import Kept
from muon_ad.prune.unet_plan import plan_light
from muon_ad.prune.unet_plan import PlanError
from muon_ad.prune.unet_plan import Shares
from muon_ad.prune.unet_recovery import RATE
from muon_ad.prune.unet_recovery import recovery_recipe
from muon_ad.prune.unet_recovery import RecoveryPart
from muon_ad.prune.unet_scores import HEAD_SCORES
from muon_ad.prune.unet_scores import head_scores
from muon_ad.prune.unet_scores import measure
from muon_ad.prune.unet_table import costs
from muon_ad.prune.unet_table import latent_size
from muon_ad.prune.unet_table import load_shape
from muon_ad.prune.unet_table import show
from muon_ad.train.backbone import Learning
from muon_ad.train.backbone import SIDE
from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.images import hold_out
from muon_ad.train.images import load_images
from muon_ad.train.loop import learn

REPORT = 'pruning.json'
BATCHES = 8         # to measure on, and as many held-out ones to judge by
LATENTS = 24        # sides of the latents of a crop


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shares = Shares()
    parser.add_argument('folder', type=Path, help='diffusers pipeline with a unet/')
    parser.add_argument('-o', '--out', type=Path, required=True, metavar='FOLDER',
                        help='pipeline to write; recovery keeps its log and checkpoint in '
                        'FOLDER.recovery')
    what = parser.add_argument_group('what goes')
    what.add_argument('--heads', type=float, default=shares.heads, metavar='SHARE',
                      help=f'share of the heads to keep (default {shares.heads:g})')
    what.add_argument('--score', choices=HEAD_SCORES, default=HEAD_SCORES[0],
                      help=f'which heads to keep (default {HEAD_SCORES[0]})')
    what.add_argument('--rule', choices=RULES,
                      help='drop self-attention layers outside the middle block, too (those in it '
                      'always become dynamic convolutions)')
    what.add_argument('--layers', type=int, metavar='N',
                      help='how many of them the rule keeps (default: as its threshold says)')
    what.add_argument('--replace', choices=('dynamic', 'none'), default='dynamic',
                      help='what comes in the place of dropped layers: depthwise dynamic '
                      'convolutions (default), or nothing')
    for name, text in (('shallow', 'of parameters at the finest scale'),
                       ('deep', 'at the coarsest'), ('total', 'in all')):
        value = getattr(shares, name)
        what.add_argument(f'--{name}', type=float, default=value, metavar='SHARE',
                          help=f'share to remove {text} (default {value:g})')
    what.add_argument('--skips', type=int, default=shares.skips, metavar='N',
                      help=f'scales that keep their skip connections (default {shares.skips})')
    how = parser.add_argument_group('recovery')
    how.add_argument('--recover', type=int, default=200, metavar='STEPS',
                     help='steps of distillation from the dense U-Net (default 200)')
    how.add_argument('--images', type=Path, nargs='+', metavar='PATH',
                     help='folders, pictures and videos to measure on and learn from (default: '
                     'drawn textures and rendered scenes)')
    how.add_argument('--batch', type=int, default=4)
    how.add_argument('--crop', type=int, metavar='PIXELS',
                     help=f'sides of the crops (default: {LATENTS} latents)')
    how.add_argument('--rate', type=float, default=RATE, help=f'learning rate (default {RATE:g})')
    how.add_argument('--seed', type=int, default=0)
    how.add_argument('--resume', action='store_true', help='go on from the checkpoint')
    how.add_argument('--device', choices=DEVICES, default='auto')
    how.add_argument('--threads', type=int, default=1)


@dataclass(frozen=True)
class Cut:
    """A backbone with a light U-Net, and what was kept of the dense one."""

    backbone: DiffusionBackbone
    kept: Kept
    layers: dict[str, float]


def run(args: argparse.Namespace) -> int:
    """Prune, recover and write; returns the exit status."""
    shares = Shares(args.shallow, args.deep, args.total, args.heads, args.skips)
    _check(args)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    dense = DiffusionBackbone.load(args.folder, choose_device(args.device))
    crop = args.crop or -(-LATENTS * dense.downscale // dense.multiple) * dense.multiple
    if crop % dense.multiple:
        raise PlanError(f'--crop is {crop}; expected a multiple of {dense.multiple}')
    pictures = load_images(args.images, SIDE) if args.images else generated_pictures(args.seed)
    if len(pictures) < 2:
        raise PlanError(f'--images has {len(pictures)} picture; expected 2 or more, as one of '
                        'eight, or the last, is held out to judge by')
    learnt, held = hold_out(pictures)
    batches, judged = (noisy_batches(dense, each, BATCHES, args.batch, crop, args.seed)
                       for each in (learnt, held))
    cut = prune(dense, batches, shares, args)
    losses = {'dense': mean_loss(dense, judged), 'pruned': mean_loss(cut.backbone, judged)}
    light = recover(dense, cut, learnt, args, crop) if args.recover else cut.backbone.denoiser
    losses['recovered'] = mean_loss(dense.with_denoiser(light), judged)
    write(light, args, shares, cut, losses)
    tell(args, losses)
    return 0


def _check(args: argparse.Namespace) -> None:
    for name, least in (('recover', 0), ('batch', 1), ('threads', 1)):
        value = getattr(args, name)
        if value < least:
            raise PlanError(f'--{name} is {value}; expected {least} or more')
    if args.rate <= 0:
        raise PlanError(f'--rate is {args.rate}; expected a number above 0')
    if args.layers is not None and args.rule is None:
        raise PlanError(f'--layers is {args.layers} without a --rule; expected one of '
                        f'{", ".join(RULES)} to choose them')
    if check_layout(args.folder) != 'unet':
        raise PlanError(f'{args.folder}: has a transformer/; expected a pipeline with a unet/')
    if is_folder(args.out) and any(args.out.iterdir()):
        raise PlanError(f'{args.out}: is there already; give another folder with --out')


def prune(
    dense: DiffusionBackbone, batches: Sequence[Batch], shares: Shares, args: argparse.Namespace,
) -> Cut:
    """Measure, plan and cut."""
    outside = [name for name in dense.layers if not name.startswith('mid_block.')]
    if args.layers is not None and not 1 <= args.layers <= len(outside):
        raise PlanError(f'--layers is {args.layers}; expected 1 to {len(outside)}, the number of '
                        'self-attention layers outside the middle block')
    measured, layers, dropped = measure(dense, batches), {}, []
    if args.rule:
        layers = layer_scores(args.rule, dense, outside, measured, batches)
        kept = kept_layers(args.rule, layers, args.layers)
        dropped = [name for name in outside if name not in kept]
    plan = plan_light(dense.denoiser, shares, dropped, args.replace)
    scores = {**head_scores(args.score, dense.denoiser, measured, args.seed),
              **measured.groups, **measured.features}
    chosen = choose(plan, scores)
    light = convert(dense.denoiser, plan, chosen)
    return Cut(dense.with_denoiser(light), chosen, layers)


def recover(
    dense: DiffusionBackbone, cut: Cut, pictures: Sequence[np.ndarray], args: argparse.Namespace,
    crop: int,
) -> LightUNet:
    """Return the light U-Net after distillation."""
    part = RecoveryPart(dense, cut.backbone.denoiser, cut.kept)
    recipe = recovery_recipe(args.recover, args.batch, crop, args.rate, args.seed)
    learning = Learning(part, list(pictures), recipe)
    out = args.out.with_name(f'{args.out.name}.recovery')
    if args.resume:
        learning.load(out / CHECKPOINT)
    learn(learning, args.recover, out, ('rate', 'total', *part.COLUMNS), log_every=10)
    return learning.result()


def write(
    light: LightUNet, args: argparse.Namespace, shares: Shares, cut: Cut, losses: dict[str, float],
) -> None:
    """Write the pipeline: all parts of the dense one, but the U-Net."""
    shutil.copytree(args.folder, args.out, dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns('unet', '*.md'))
    # Not diffusers' own `to`, which warns of each dtype.
    nn.Module.to(light, _stored_dtype(args.folder / 'unet')).save_pretrained(args.out / 'unet')
    report = {'from': args.folder.name, 'shares': asdict(shares), 'head score': args.score,
              'rule': args.rule, 'layers': cut.layers, 'recovery steps': args.recover,
              'denoising loss': losses}
    write_whole(args.out / REPORT, (json.dumps(report, indent=2) + '\n').encode())


def _stored_dtype(folder: Path) -> torch.dtype:
    """Return the dtype of a folder's weights."""
    file = min(folder.glob('*.safetensors'))
    with safe_open(file, 'pt') as weights:
        return weights.get_tensor(next(iter(weights.keys()))).dtype


def tell(args: argparse.Namespace, losses: dict[str, float]) -> None:
    """Print what it came to."""
    shapes = {str(path): load_shape(path) for path in (args.folder, args.out)}
    size = latent_size(next(iter(shapes.values())))
    show({name: costs(model, size) for name, model in shapes.items()}, size)
    print('denoising loss on held-out pictures: ' + ', '.join(
        f'{name} {loss:.4f}' for name, loss in losses.items()))
    print(f'{args.out}: use it with `muon-ad stylize --backbone {args.out} --attention denoiser`')

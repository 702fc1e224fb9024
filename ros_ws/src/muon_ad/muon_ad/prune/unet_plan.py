"""How much of which part of a U-Net goes, from its configuration alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from muon_ad.distill.processors import self_attention_layers
from muon_ad.networks.dynamic_conv import BASES
from muon_ad.networks.light_unet import attentions
from muon_ad.networks.light_unet import feed_forwards
from muon_ad.networks.light_unet import level
from muon_ad.networks.light_unet import Light
from muon_ad.networks.light_unet import LightUNet
from muon_ad.networks.light_unet import residual_blocks
from muon_ad.networks.light_unet import skips
from muon_ad.networks.slicing import group_width

PARTS = ('shallow', 'middle', 'deep')
LEAST = 0.25        # of a part's groups or features: that much stays
MULTIPLE = 8        # what numbers of features are rounded to, where there are more


class PlanError(ValueError):
    """A U-Net or what is asked of it cannot be planned."""


@dataclass(frozen=True)
class Shares:
    """The shares of parameters to remove, and of heads to keep: the paper's by default.

    `shallow` of the finest scale, `deep` of the coarsest with the middle block, `total` of all.
    What the scales between lose follows from these, but is no less than the finest and no more
    than the coarsest lose: where the three figures contradict each other, the total gives way.
    `heads` are kept of every attention layer, 8 of 16, one or more. `skips` is the number of
    scales, the finest ones, whose skip connections stay.
    """

    shallow: float = 0.25
    deep: float = 0.55
    total: float = 0.40
    heads: float = 0.5
    skips: int = 3

    def __post_init__(self) -> None:
        for name in ('shallow', 'deep', 'total'):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise PlanError(f'{name} is {value}; expected 0 or more and below 1: the share of '
                                'parameters to remove')
        if self.shallow > self.deep:
            raise PlanError(f'shallow is {self.shallow} and deep is {self.deep}; expected no more '
                            'to be removed from shallow layers than from deep ones')
        if not 0 < self.heads <= 1:
            raise PlanError(f'heads is {self.heads}; expected above 0 and up to 1: the share of '
                            'heads to keep')
        if self.skips < 1:
            raise PlanError(f'skips is {self.skips}; expected 1 or more scales')


def part_of(model: UNet2DConditionModel, name: str) -> str:
    """Return which of PARTS a module or parameter belongs to; a U-Net of two scales has no middle.
    """
    at, coarsest = level(model, name), len(model.config.block_out_channels) - 1
    return 'shallow' if at == 0 else 'deep' if at == coarsest else 'middle'


def parameters_by_part(model: UNet2DConditionModel) -> dict[str, int]:
    """Return the number of parameters in each of PARTS."""
    found = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        found[part_of(model, name)] += parameter.numel()
    return found


def plan_light(
    dense: UNet2DConditionModel, shares: Shares, dropped: Sequence[str] = (),
    replacement: str = 'dynamic',
) -> Light:
    """Return the plan of a light U-Net; `dense` may be on the device 'meta'.

    Self-attention in the middle block becomes dynamic depthwise convolution. So do the layers in
    `dropped`, or they are removed where `replacement` is 'none'. Heads and skips go as `shares`
    says; then residual blocks and feed-forward parts of each scale are narrowed alike, until the
    scale has lost its share. Raises PlanError.
    """
    if isinstance(dense, LightUNet):
        raise PlanError('the U-Net is a light one already; expected the dense one')
    structure = _structure(dense, shares, dropped, replacement)
    with torch.device('meta'):
        thinner = LightUNet.from_config(dict(dense.config), light=structure.to_dict())
    before, now = parameters_by_part(dense), parameters_by_part(thinner)
    groups, features = {}, {}
    for part, share in _shares_by_part(before, shares).items():
        excess = now[part] - (1 - share) * before[part]
        _narrow(thinner, part, excess, groups, features)
    return replace(structure, groups=groups, features=features)


def _structure(
    dense: UNet2DConditionModel, shares: Shares, dropped: Sequence[str], replacement: str,
) -> Light:
    """Return the plan without narrower blocks."""
    layers = self_attention_layers(dense)
    unknown = sorted(set(dropped) - set(layers))
    if unknown:
        raise PlanError(f'layers to drop are {unknown}; expected some of {layers}')
    if replacement not in ('dynamic', 'none'):
        raise PlanError(f"replacement is {replacement!r}; expected 'dynamic' or 'none'")
    middle = [name for name in layers if name.startswith('mid_block.')]
    others = [name for name in dropped if name not in middle]
    if len(middle) + len(others) == len(layers):
        raise PlanError(f'no self-attention layer of {layers} would be left; expected one or more')
    dynamic = middle + (others if replacement == 'dynamic' else [])
    removed = others if replacement == 'none' else []
    gone = {*dynamic, *removed}
    heads = {name: max(1, round(shares.heads * part.heads))
             for name, part in attentions(dense).items() if name not in gone}
    return Light(
        heads=heads, dynamic=dict.fromkeys(dynamic, BASES), removed=removed,
        without_skip={name: hidden for name, (hidden, _) in skips(dense).items()
                      if level(dense, name) >= shares.skips},
    )


def _shares_by_part(before: dict[str, int], shares: Shares) -> dict[str, float]:
    """Return the share of its parameters that each part is to lose."""
    rest = shares.total * sum(before.values())
    rest -= shares.shallow * before['shallow'] + shares.deep * before['deep']
    between = rest / before['middle'] if before['middle'] else 0.0
    between = min(shares.deep, max(shares.shallow, between))
    return {'shallow': shares.shallow, 'middle': between, 'deep': shares.deep}


def _narrow(
    model: LightUNet, part: str, excess: float, groups: dict[str, int], features: dict[str, int],
) -> None:
    """Plan narrower blocks of a part, so that it loses about `excess` parameters.

    Every block loses about the same share; what rounding leaves over is passed to the next.
    """
    units = [_Unit(name, each.norm2.num_groups, _group_cost(each), 1, groups)
             for name, each in residual_blocks(model).items() if part_of(model, name) == part]
    units += [_Unit(name, each.net[2].in_features, _feature_cost(each), MULTIPLE, features)
              for name, each in feed_forwards(model).items() if part_of(model, name) == part]
    possible = sum(unit.count * unit.cost for unit in units)
    if excess <= 0 or not possible:
        return
    share, owed = min(1 - LEAST, excess / possible), 0.0
    for unit in units:
        owed += share * unit.count * unit.cost
        kept = unit.keep(owed / unit.cost)
        owed -= (unit.count - kept) * unit.cost
        if kept < unit.count:
            unit.plan[unit.name] = kept


@dataclass(frozen=True)
class _Unit:
    """A block of `count` parts, each of `cost` parameters; what is kept of it goes to `plan`."""

    name: str
    count: int
    cost: int
    multiple: int
    plan: dict[str, int]

    def keep(self, unwanted: float) -> int:
        """Return how many to keep where about `unwanted` parts shall go."""
        multiple = self.multiple if self.count >= 4 * self.multiple else 1
        kept = round((self.count - unwanted) / multiple) * multiple
        return min(self.count, max(kept, round(LEAST * self.count), 1))


def _group_cost(resnet: ResnetBlock2D) -> int:
    """Return the parameters that a group between a block's convolutions takes."""
    layers = [resnet.conv1, resnet.norm2] + [resnet.time_emb_proj] * (
        resnet.time_emb_proj is not None)
    written = sum(each.weight.numel() + _numel(each.bias) for each in layers)
    return group_width(resnet) * (written + resnet.conv2.weight.numel()) // (
        resnet.norm2.num_channels)


def _feature_cost(part: FeedForward) -> int:
    """Return the parameters that a feature of a feed-forward part takes."""
    first, second = part.net[0].proj, part.net[2]
    return (first.weight.numel() + _numel(first.bias) + second.weight.numel()) // (
        second.in_features)


def _numel(bias: nn.Parameter | None) -> int:
    return 0 if bias is None else bias.numel()

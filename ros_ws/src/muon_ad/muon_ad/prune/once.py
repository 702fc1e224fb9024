"""Baselines that choose channels from the weights alone, once, before any further training."""

import copy
from collections.abc import Mapping
from collections.abc import Sequence

import torch_pruning
from torch import nn

from muon_ad.prune.graph import channel_groups
from muon_ad.prune.graph import ChannelGroup
from muon_ad.prune.graph import PRUNERS
from muon_ad.prune.graph import ROOTS
from muon_ad.prune.graph import traceable
from muon_ad.prune.scores import Magnitude
from muon_ad.prune.select import Budget
from muon_ad.prune.select import Limits
from muon_ad.prune.select import uniform
from muon_ad.prune.shapes import budget

HALVINGS = 7    # of the interval that a ratio of channels is searched in: to a hundredth


def static_l1(
    network: nn.Module, groups: Sequence[ChannelGroup], limits: Limits, target: int,
) -> dict[str, list[int]]:
    """Return the channels of least L1 norm, the same share of every group (Li et al., 2017,
    arXiv:1608.08710), so that about `target` parameters remain.
    """
    score = Magnitude()
    scores = {group.name: score.of(group, network).double().numpy() for group in groups}
    dense = {group.name: group.channels for group in groups}
    return uniform(scores, dense, limits, budget(network, groups), target)


def torch_pruning_default(
    network: nn.Module, example: tuple, ignored: Sequence[str], limits: Limits, target: int,
) -> dict[str, list[int]]:
    """Return what torch-pruning's own pruner removes by default: MagnitudeImportance, the same
    ratio of channels in every group, so that about `target` parameters remain.

    The ratio, which is of channels there, is found by halving. It knows no least share of a layer;
    of `limits` it takes the multiple. Groups made of our own kinds of layers alone have no score
    by its importance, and stay whole.
    """
    groups = channel_groups(network, example, ignored)
    costs = budget(network, groups)
    low, high = 0.0, 1.0
    best: dict[str, list[int]] = {}
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = _removed(copy.deepcopy(network), example, ignored, limits, middle, groups)
        if _missed(found, costs, target) < _missed(best, costs, target):
            best = found
        if costs.parameters(_counts(found)) > target:
            low = middle
        else:
            high = middle
    return best


def _removed(
    network: nn.Module, example: tuple, ignored: Sequence[str], limits: Limits, ratio: float,
    groups: Sequence[ChannelGroup],
) -> dict[str, list[int]]:
    with traceable(network):
        pruner = torch_pruning.pruner.MagnitudePruner(
            network, example, importance=torch_pruning.importance.MagnitudeImportance(),
            pruning_ratio=ratio, round_to=limits.multiple, customized_pruners=PRUNERS,
            ignored_layers=[network.get_submodule(name) for name in ignored],
            root_module_types=ROOTS)
    roots = {network.get_submodule(group.name): group.name for group in groups}
    found = {}
    for group in pruner.step(interactive=True):
        # Its group may begin at another of the layers that ours does.
        for dep, channels in group:
            if dep.target.module in roots and pruner.DG.is_out_channel_pruning_fn(dep.handler):
                found[roots[dep.target.module]] = sorted(channels)
    return found


def _counts(removed: Mapping[str, Sequence[int]]) -> dict[str, int]:
    return {name: len(channels) for name, channels in removed.items()}


def _missed(removed: Mapping[str, Sequence[int]], costs: Budget, target: int) -> int:
    return abs(costs.parameters(_counts(removed)) - target)

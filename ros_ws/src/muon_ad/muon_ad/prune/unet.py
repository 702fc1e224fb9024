"""From a dense U-Net to a light one: the most important parts, with the weights that they have."""

import copy

from diffusers import UNet2DConditionModel
from torch import nn

from muon_ad.networks.light_unet import Light
from muon_ad.networks.light_unet import LightUNet
from muon_ad.networks.light_unet import shrink
from muon_ad.prune.unet_scores import Scores

Kept = dict[str, list[int]]     # indices of what stays, by the path of the module


def choose(light: Light, scores: Scores) -> Kept:
    """Return the best-scored heads, groups and features of every module that a plan cuts."""
    counts = {**light.heads, **light.groups, **light.features}
    return {name: sorted(scores[name].topk(count).indices.tolist())
            for name, count in counts.items()}


def convert(dense: UNet2DConditionModel, light: Light, kept: Kept) -> LightUNet:
    """Return a light U-Net with the dense one's weights; new convolutions begin at zero.

    Its dtype, device and mode are the dense one's, which stays as it is. Raises LightError and
    SlicingError where plan and U-Net do not fit.
    """
    cut = copy.deepcopy(dense)
    shrink(cut, light, kept)
    made = LightUNet.from_config(dict(dense.config), light=light.to_dict())
    # Not diffusers' own `to`, which warns of each dtype.
    nn.Module.to(made, dense.device, dense.dtype).train(dense.training)
    made.load_state_dict(cut.state_dict())
    return made

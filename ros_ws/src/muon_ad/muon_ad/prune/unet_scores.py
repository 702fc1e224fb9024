"""How much each part of a U-Net matters: heads, groups of channels, features, measured on latents.

Scores of a kind compare parts of one module, never of two. Higher is more important.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from tqdm import tqdm

from muon_ad.distill.diffusion import DiffusionBackbone
from muon_ad.distill.processors import capture
from muon_ad.networks.light_unet import attentions
from muon_ad.networks.light_unet import feed_forwards
from muon_ad.networks.light_unet import residual_blocks
from muon_ad.prune.denoising import Batch
from muon_ad.prune.denoising import denoising_loss
from muon_ad.prune.entropy import head_entropy

HEAD_SCORES = ('taylor', 'entropy', 'inverse', 'magnitude', 'random')

Scores = dict[str, torch.Tensor]    # one number a part, by the path of the module


@dataclass(frozen=True)
class Measured:
    """What was seen of a dense U-Net on some batches; all float32 on the CPU.

    `entropy` [heads] of self-attention layers (`entropy.head_entropy`) and the number of `keys`
    that each had, `heads` the Taylor scores [heads] of all attention layers, `groups` and
    `features` those of residual blocks and feed-forward parts.
    """

    entropy: Scores
    keys: dict[str, int]
    heads: Scores
    groups: Scores
    features: Scores


def measure(backbone: DiffusionBackbone, batches: Sequence[Batch]) -> Measured:
    """Measure a backbone's U-Net by its denoising loss; its weights and settings stay.

    Heads are scored as in Michel et al. (arXiv 1905.10650), |sum of output * gradient|, mean over
    samples; channels and features by group Taylor, |sum of weight * gradient| over all weights
    that read or write them (Molchanov et al., CVPR 2019), mean over batches.
    """
    model = backbone.denoiser
    found = Measured({}, {}, {}, {}, {})
    trained = [each for each in model.parameters() if not each.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(True)
    try:
        for batch in tqdm(batches, desc='measuring', unit='batch', disable=None):
            _measure_batch(backbone, batch, found, 1 / len(batches))
    finally:
        for parameter in trained:
            parameter.requires_grad_(False).grad = None
    return found


def _measure_batch(
    backbone: DiffusionBackbone, batch: Batch, found: Measured, share: float,
) -> None:
    model = backbone.denoiser
    model.zero_grad(set_to_none=True)
    outputs: dict[str, torch.Tensor] = {}
    hooks = [part.to_out[0].register_forward_pre_hook(partial(_keep, outputs, name))
             for name, part in attentions(model).items()]
    try:
        with capture(model, backbone.layers) as captured:
            denoising_loss(backbone, batch).backward()
    finally:
        for hook in hooks:
            hook.remove()
    for name in backbone.layers:
        _add(found.entropy, name, share * head_entropy(captured[name]))
        found.keys[name] = captured[name].key.shape[2]
    for name, part in attentions(model).items():
        slope = (outputs[name] * outputs[name].grad).unflatten(2, (part.heads, -1))
        _add(found.heads, name, share * slope.sum(dim=(1, 3)).abs().mean(dim=0))
    for name, part in residual_blocks(model).items():
        _add(found.groups, name, share * _by_group(part).abs())
    for name, part in feed_forwards(model).items():
        _add(found.features, name, share * _by_feature(part).abs())


def _keep(outputs: dict[str, torch.Tensor], name: str, _layer: nn.Module, inputs: tuple) -> None:
    inputs[0].retain_grad()
    outputs[name] = inputs[0]


def _add(scores: Scores, name: str, value: torch.Tensor) -> None:
    scores[name] = scores.get(name, 0) + value.detach().float().cpu()


def _slope(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach() * weight.grad


def _by_group(resnet: ResnetBlock2D) -> torch.Tensor:
    """Sum over the weights that write and read each group between a block's convolutions."""
    written, read = _slope(resnet.conv1.weight), _slope(resnet.conv2.weight)
    channels = written.sum(dim=(1, 2, 3)) + read.sum(dim=(0, 2, 3))
    return channels.unflatten(0, (resnet.norm2.num_groups, -1)).sum(dim=1)


def _by_feature(part: FeedForward) -> torch.Tensor:
    """Sum over the weights that write (value and gate) and read each feature."""
    width = part.net[2].in_features
    written = _slope(part.net[0].proj.weight).sum(dim=1).unflatten(0, (-1, width)).sum(dim=0)
    return written + _slope(part.net[2].weight).sum(dim=0)


def head_scores(kind: str, model: nn.Module, measured: Measured, seed: int = 0) -> Scores:
    """Return the scores [heads] of all attention layers, by one of HEAD_SCORES.

    'entropy' keeps the heads that look everywhere, as the code of Muon-AD's authors does,
    'inverse' those that select. Neither says anything of the attention to an empty prompt, whose
    heads are scored by 'taylor' then. 'magnitude' is the square of all weights of a head. Raises
    ValueError for another kind.
    """
    if kind not in HEAD_SCORES:
        raise ValueError(f'head score is {kind!r}; expected one of {", ".join(HEAD_SCORES)}')
    if kind == 'taylor':
        return measured.heads
    if kind in ('entropy', 'inverse'):
        sign = 1 if kind == 'entropy' else -1
        return measured.heads | {name: sign * each for name, each in measured.entropy.items()}
    if kind == 'magnitude':
        return {name: _magnitude(part) for name, part in attentions(model).items()}
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(part.heads, generator=generator)
            for name, part in attentions(model).items()}


def _magnitude(part: Attention) -> torch.Tensor:
    rows = sum(each.weight.detach().float().square().sum(dim=1)
               for each in (part.to_q, part.to_k, part.to_v))
    numbers = rows + part.to_out[0].weight.detach().float().square().sum(dim=0)
    return numbers.unflatten(0, (part.heads, -1)).sum(dim=1).cpu()

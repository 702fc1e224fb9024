"""Scores of heads, channels and features: what they measure; and measuring leaves no trace."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from muon_ad.distill.backbone import Attention
from muon_ad.distill.backbone import load_backbone
from muon_ad.networks.light_unet import attentions
from muon_ad.networks.light_unet import Light
from muon_ad.prune.denoising import denoising_loss
from muon_ad.prune.denoising import mean_loss
from muon_ad.prune.denoising import noisy_batches
from muon_ad.prune.entropy import head_entropy
from muon_ad.prune.unet import choose
from muon_ad.prune.unet_scores import HEAD_SCORES
from muon_ad.prune.unet_scores import head_scores
from muon_ad.prune.unet_scores import measure

SEEN = np.random.default_rng(0).integers(0, 255, (2, 60, 80, 3), np.uint8)


@pytest.fixture(scope='module')
def backbone(backbone_folder):
    return load_backbone(backbone_folder('plain'))


@pytest.fixture(scope='module')
def batches(backbone):
    return noisy_batches(backbone, list(SEEN), count=2, size=3, crop=32, seed=0)


@pytest.fixture(scope='module')
def measured(backbone, batches):
    return measure(backbone, batches)


def seen(query: torch.Tensor, key: torch.Tensor) -> Attention:
    return Attention('layer', query, key, key, query)


def test_entropy_is_that_of_the_maps_in_nats():
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 10, 4), torch.randn(2, 3, 7, 4)
    maps = (query.double() @ key.double().mT / 2).softmax(-1)
    expected = -(maps * maps.log()).sum(-1).mean(dim=(0, 2))
    for chunk in (3, 256):
        torch.testing.assert_close(head_entropy(seen(query, key), chunk), expected.float())


def test_entropy_spans_from_one_place_to_everywhere():
    key = torch.eye(5)[None, None]
    selecting = head_entropy(seen(1000 * key, key))
    diffuse = head_entropy(seen(torch.zeros(1, 1, 5, 5), key))
    assert selecting.item() == pytest.approx(0, abs=1e-6)
    assert diffuse.item() == pytest.approx(math.log(5), abs=1e-6)
    assert head_entropy(seen(key[..., :1, :], key[..., :1, :])).item() == 0


def test_batches_are_the_same_for_the_same_seed_and_hold_what_the_schedule_says(backbone):
    first, again, other = (noisy_batches(backbone, list(SEEN), 1, 2, 32, seed)[0]
                           for seed in (1, 1, 2))
    assert torch.equal(first.noisy, again.noisy) and torch.equal(first.target, again.target)
    assert not torch.equal(first.noisy, other.noisy)
    for noisy, target, time in zip(first.noisy, first.target, first.times.tolist(), strict=True):
        latents, noise = backbone.noise.split(noisy, target, time)
        torch.testing.assert_close(backbone.noise.add_noise(latents, noise, time), noisy)
        torch.testing.assert_close(backbone.noise.target(latents, noise, time), target)


def test_every_part_gets_a_score(backbone, measured):
    model = backbone.denoiser
    assert set(measured.entropy) == set(backbone.layers)
    for scores in (measured.entropy, measured.heads, measured.groups, measured.features):
        assert all((each >= 0).all() and each.isfinite().all() for each in scores.values())
    assert {name: len(each) for name, each in measured.heads.items()} == {
        name: part.heads for name, part in attentions(model).items()}
    assert measured.groups['mid_block.resnets.0'].shape == (4,)
    name = 'mid_block.attentions.0.transformer_blocks.0.ff'
    assert measured.features[name].shape == (64,)


def test_measuring_leaves_the_network_as_it_was(backbone, batches, measured):
    assert all(not each.requires_grad and each.grad is None
               for each in backbone.denoiser.parameters())
    assert all(not part.to_out[0]._forward_pre_hooks
               for part in attentions(backbone.denoiser).values())


def test_a_heads_taylor_score_is_the_slope_of_the_loss_along_it(backbone, batches):
    """Scaling a head's output by 1 - e changes the loss by about -e times the score's inside."""
    name = backbone.layers[0]
    part = attentions(backbone.denoiser)[name]
    single = [type(batch)(batch.noisy[:1], batch.times[:1], batch.target[:1])
              for batch in batches[:1]]
    scores = measure(backbone, single).heads[name]

    def loss_with(scale: float, head: int) -> float:
        def hook(_layer, inputs):
            heads = inputs[0].unflatten(2, (part.heads, -1)).clone()
            heads[:, :, head] *= scale
            return (heads.flatten(2),)
        handle = part.to_out[0].register_forward_pre_hook(hook)
        try:
            with torch.no_grad():
                found = backbone.predict(single[0].noisy, single[0].times)
                return F.mse_loss(found.double(), single[0].target.double()).item()
        finally:
            handle.remove()

    for head in range(part.heads):
        slope = (loss_with(1.1, head) - loss_with(0.9, head)) / 0.2
        assert scores[head].item() == pytest.approx(abs(slope), rel=0.05, abs=1e-7)


def test_scores_of_heads_by_name(backbone, measured):
    model = backbone.denoiser
    found = {kind: head_scores(kind, model, measured) for kind in HEAD_SCORES}
    sizes = {name: part.heads for name, part in attentions(model).items()}
    for scores in found.values():
        assert {name: len(each) for name, each in scores.items()} == sizes
    name = backbone.layers[0]
    assert torch.equal(found['inverse'][name], -found['entropy'][name])
    text = name.replace('attn1', 'attn2')
    assert torch.equal(found['entropy'][text], measured.heads[text])
    part = attentions(model)[name]
    first = sum(each.weight[:part.inner_dim // 2].square().sum()
                for each in (part.to_q, part.to_k, part.to_v))
    first += part.to_out[0].weight[:, :part.inner_dim // 2].square().sum()
    assert found['magnitude'][name][0].item() == pytest.approx(first.item(), rel=1e-5)
    assert torch.equal(found['random'][name], head_scores('random', model, measured)[name])
    other = head_scores('random', model, measured, seed=1)
    assert not torch.equal(found['random'][name], other[name])
    with pytest.raises(ValueError, match="head score is 'rank'; expected one of taylor"):
        head_scores('rank', model, measured)


def test_the_best_are_chosen_in_order():
    scores = {'a': torch.tensor([0.1, 0.5, 0.3, 0.4]), 'b': torch.tensor([2.0, 1.0])}
    light = Light(heads={'a': 3}, features={'b': 1})
    assert choose(light, scores) == {'a': [1, 2, 3], 'b': [0]}


def test_loss_is_the_mean_over_batches(backbone, batches):
    with torch.no_grad():
        losses = [denoising_loss(backbone, batch).item() for batch in batches]
    assert mean_loss(backbone, batches) == pytest.approx(sum(losses) / 2)

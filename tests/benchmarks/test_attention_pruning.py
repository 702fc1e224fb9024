"""The benchmark of attention pruning: its cases, and what it says of a network that is not cut."""

import attention_pruning as benchmark
import numpy as np
import pytest

from muon_ad.distill.backbone import load_backbone
from muon_ad.networks.light_unet import attentions
from muon_ad.prune.denoising import mean_loss
from muon_ad.prune.denoising import noisy_batches
from muon_ad.prune.layers import layer_scores
from muon_ad.prune.layers import RULES
from muon_ad.prune.unet import convert
from muon_ad.prune.unet_scores import measure


@pytest.fixture(scope='module')
def made(backbone_folder):
    dense = load_backbone(backbone_folder('plain'))
    pictures = list(np.random.default_rng(0).integers(0, 255, (2, 70, 80, 3), np.uint8))
    batches = noisy_batches(dense, pictures, 1, 2, 32, 0)
    return benchmark.Bench(dense, pictures, batches, batches, measure(dense, batches))


@pytest.fixture(scope='module')
def cases(made):
    scores = {rule: layer_scores(rule, made.dense, made.dense.layers, made.measured,
                                 made.batches) for rule in RULES}
    found = list(benchmark.cases(made, scores, benchmark.Scope(kept=2)))
    return {case.name: case for case in found}


def test_rules_are_compared_at_equal_numbers_of_layers(made, cases):
    layers = [case for name, case in cases.items() if name.startswith('layers_')]
    assert len(layers) == 2 * (len(RULES) + 1)
    gone = len(made.dense.layers) - 2
    assert all(len(case.plan.removed) + len(case.plan.dynamic) == gone for case in layers)
    for name in ('entropy', 'inverse', 'loss', 'random'):
        assert cases[f'layers_{name}_removed'].plan.removed == list(
            cases[f'layers_{name}_dynamic'].plan.dynamic)


def test_scores_are_compared_at_half_of_the_heads(made, cases):
    heads = [case for name, case in cases.items() if name.startswith('heads_')]
    assert all(case.plan == heads[0].plan for case in heads)
    light = convert(made.dense.denoiser, heads[0].plan, heads[0].kept)
    whole = attentions(made.dense.denoiser)
    assert {name: 2 * part.heads for name, part in attentions(light).items()} == {
        name: part.heads for name, part in whole.items()}


def test_nothing_cut_is_nothing_lost(made, cases):
    before, after = benchmark.outcome(made, cases['dense'], steps=1, seed=0)
    assert before == mean_loss(made.dense, made.judged)
    assert after != before and after == pytest.approx(before, rel=0.2)


def test_only_the_weights_of_the_losses_differ_between_ways_to_recover(cases):
    light = cases['light']
    for name in ('light_without_maps', 'light_denoising_only'):
        assert cases[name].plan == light.plan and cases[name].kept == light.kept
    assert cases['light_without_maps'].weights['maps'] == 0 < light.weights['maps']
    assert [n for n, w in cases['light_denoising_only'].weights.items() if w] == ['denoising']

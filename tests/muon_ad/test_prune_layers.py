"""Rules by which layers of attention are kept."""

import math

import numpy as np
import pytest

from muon_ad.distill.backbone import load_backbone
from muon_ad.networks.light_unet import Light
from muon_ad.prune.denoising import mean_loss
from muon_ad.prune.denoising import noisy_batches
from muon_ad.prune.layers import kept_layers
from muon_ad.prune.layers import layer_scores
from muon_ad.prune.layers import loss_without
from muon_ad.prune.layers import RULES
from muon_ad.prune.unet import convert
from muon_ad.prune.unet_scores import measure

ENTROPIES = {'a': 0.9, 'b': 0.63, 'c': 0.64, 'd': 0.1}      # the line is at 0.63
RISES = {'a': 0.001, 'b': 0.2, 'c': -0.1, 'd': 0.02}


def test_the_papers_rule_and_its_inverse_divide_the_layers_at_the_line():
    for rule, inverse in (('entropy', 'inverse'), ('relative', 'relative-inverse')):
        assert kept_layers(rule, ENTROPIES) == ['a', 'c']
        assert kept_layers(inverse, ENTROPIES) == ['b', 'd']


def test_the_loss_rule_keeps_what_raises_the_loss():
    assert kept_layers('loss', RISES) == ['b', 'd']
    assert kept_layers('loss', {'a': -0.1, 'b': 0.0}) == ['b']


@pytest.mark.parametrize(('rule', 'scores', 'best'), [
    ('entropy', ENTROPIES, ['a', 'b', 'c']), ('inverse', ENTROPIES, ['b', 'c', 'd']),
    ('loss', RISES, ['a', 'b', 'd'])])
def test_with_a_number_the_best_are_kept_in_order(rule, scores, best):
    assert kept_layers(rule, scores, 3) == best
    assert kept_layers(rule, scores, 4) == list('abcd')


@pytest.mark.parametrize('count', [0, 5])
def test_a_number_that_cannot_be_is_refused(count):
    with pytest.raises(ValueError, match=f'layers is {count}; expected 1 to 4'):
        kept_layers('loss', RISES, count)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="rule is 'best'; expected one of entropy, inverse, rel"):
        kept_layers('best', RISES)


def test_what_the_rules_think_of_a_network(backbone_folder):
    backbone = load_backbone(backbone_folder('sd15'))
    pictures = list(np.random.default_rng(0).integers(0, 255, (2, 60, 60, 3), np.uint8))
    batches = noisy_batches(backbone, pictures, count=2, size=2, crop=32, seed=0)
    measured = measure(backbone, batches)
    scores = {rule: layer_scores(rule, backbone, backbone.layers, measured, batches)
              for rule in RULES}
    assert all(list(each) == backbone.layers for each in scores.values())
    assert scores['entropy'] == scores['inverse']
    assert scores['relative'] == scores['relative-inverse']
    for name, score in scores['relative'].items():
        assert 0 < score <= 1
        # 32 pixels are 8 latents a side, and half of that where this U-Net attends.
        assert measured.keys[name] == 16
        assert scores['entropy'][name] == pytest.approx(score * math.log(16))

    whole, layer = mean_loss(backbone, batches), backbone.layers[1]
    assert scores['loss'][layer] == pytest.approx(
        loss_without(backbone, layer, batches) / whole - 1)
    removed = convert(backbone.denoiser, Light(removed=[layer]), {})
    assert loss_without(backbone, layer, batches) == pytest.approx(
        mean_loss(backbone.with_denoiser(removed), batches), rel=1e-5)
    # The network is whole again.
    assert mean_loss(backbone, batches) == whole

"""The gradient prediction network: repeats at first, and learns what can be learnt."""

import copy

import pytest
import torch

from muon_ad.distill.gpn import GradientPredictor


def quadratic(seed):
    """Latents and a target whose distance has the gradient latents - target."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 2, 4, 8, 8, generator=generator)


def test_untrained_it_repeats_the_last_gradient():
    latents, target = quadratic(0)
    predictor = GradientPredictor(target, seed=0)
    assert not predictor.ready
    gradient = 3 * (latents - target)
    predictor.learn(latents, gradient, 0.0)
    assert predictor.ready
    torch.testing.assert_close(predictor.predict(latents, 0.1), gradient)
    assert predictor.report() == {}


def test_it_comes_to_know_more_than_the_last_gradient():
    """Where gradients alternate, repeating is wrong, and latents tell which is next."""
    _, target = quadratic(0)
    predictor = GradientPredictor(target, seed=0)
    generator = torch.Generator().manual_seed(1)
    for step in range(60):
        latents = target + torch.randn(target.shape, generator=generator)
        predictor.learn(latents, latents - target, step / 60)
    report = predictor.report()
    assert abs(report['repeat_cosine']) < 0.05
    assert report['gpn_cosine'] > 0.3
    fresh = target + torch.randn(target.shape, generator=generator)
    cosine = torch.cosine_similarity(predictor.predict(fresh, 1.0).flatten(),
                                     (fresh - target).flatten(), dim=0)
    assert cosine > 0.5


def test_it_has_the_size_of_the_last_gradient():
    latents, target = quadratic(0)
    predictor = GradientPredictor(target, seed=0)
    for scale in (1.0, 100.0):
        predictor.learn(latents, scale * (latents - target), 0.0)
        found = predictor.predict(latents, 0.5)
        torch.testing.assert_close(found.square().mean((1, 2, 3)).sqrt(),
                                   scale * (latents - target).square().mean((1, 2, 3)).sqrt())


def test_a_gradient_of_zero_does_no_harm():
    latents, target = quadratic(0)
    predictor = GradientPredictor(target, seed=0)
    for _ in range(3):
        predictor.learn(latents, torch.zeros_like(latents), 0.0)
    assert predictor.predict(latents, 0.5).abs().max() < 1e-30


@pytest.mark.parametrize('steps', [0, 1, 4])
def test_state_comes_back_bit_for_bit(steps):
    latents, target = quadratic(0)
    first, second = (GradientPredictor(target, seed=seed) for seed in (0, 1))
    for step in range(steps):
        first.learn(latents + step, latents - target, step / 4)
    # Optimisers share what they are given; a state is meant to go through a file.
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.ready == first.ready
    for predictor in (first, second):
        predictor.learn(latents, latents - target + 1, 0.9)
    assert torch.equal(first.predict(latents, 1.0), second.predict(latents, 1.0))
    assert first.report() == second.report()


def test_a_seed_leaves_other_randomness_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    GradientPredictor(torch.zeros(1, 4, 8, 8), seed=0)
    assert torch.equal(torch.rand(1), expected)

"""The sliced Wasserstein distance against naive sums, and as the third measure of style."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import astronaut

from muon_ad.metrics.style import Judge
from muon_ad.metrics.style import similarity
from muon_ad.metrics.wasserstein import quantiles
from muon_ad.metrics.wasserstein import random_directions
from muon_ad.metrics.wasserstein import sliced_wasserstein
from muon_ad.styles.draw import draw

PHOTO = np.ascontiguousarray(astronaut()[64:224, 160:320])


def cloud(seed: int, count: int = 50, dimensions: int = 5) -> torch.Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def directions(dimensions: int = 5, count: int = 16) -> torch.Tensor:
    return random_directions(dimensions, count, torch.Generator().manual_seed(7))


def test_it_is_the_mean_over_lines_of_the_differences_in_order():
    one, other, lines = cloud(1), cloud(2), directions()
    naive = []
    for line in lines.T.double().numpy():
        ours = sorted(one.double().numpy() @ line)
        theirs = sorted(other.double().numpy() @ line)
        naive.append(sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(ours))
    found = sliced_wasserstein(one, other, lines)
    assert float(found) == pytest.approx(np.mean(naive), rel=1e-5)


@given(st.integers(1, 60), st.integers(1, 60))
def test_the_order_of_points_and_of_clouds_does_not_count(count, others):
    one, other, lines = cloud(1, count), cloud(2, others), directions()
    distance = float(sliced_wasserstein(one, other, lines))
    assert float(sliced_wasserstein(other, one, lines)) == pytest.approx(distance, rel=1e-6)
    turned = float(sliced_wasserstein(one.flip(0), other, lines))
    assert turned == pytest.approx(distance, rel=1e-5)
    assert float(sliced_wasserstein(one, one.flip(0), lines)) == 0


def test_a_moved_cloud_is_as_far_as_it_was_moved_along_each_line():
    one, lines, step = cloud(1), directions(), torch.tensor([3.0, 0, -1, 0, 2])
    assert torch.allclose(lines.norm(dim=0), torch.ones(lines.shape[1]))
    expected = float((step @ lines).abs().mean())
    assert float(sliced_wasserstein(one + step, one, lines)) == pytest.approx(expected, rel=1e-5)
    # Averaged over the whole sphere in 3 dimensions, that is half the step.
    many = random_directions(3, 20_000, torch.Generator().manual_seed(0))
    moved = cloud(3, 4, 3) + torch.tensor([0.0, 2.0, 0.0])
    assert float(sliced_wasserstein(moved, cloud(3, 4, 3), many)) == pytest.approx(1.0, abs=0.02)


def test_clouds_of_other_sizes_are_compared_by_quantiles():
    line = torch.ones(1, 1)
    few, many = torch.tensor([[0.0], [1.0]]), torch.linspace(0, 1, 1001)[:, None]
    assert float(sliced_wasserstein(few.repeat(7, 1), few, line)) < 0.13
    # Two points at the ends against the even spread between: what is in between moves by 1/8.
    assert float(sliced_wasserstein(few, many, line)) == pytest.approx(0.125, abs=0.01)
    assert quantiles(torch.tensor([4.0, 1.0, 9.0]), 3).tolist() == [1.0, 4.0, 9.0]


def test_its_gradient_is_that_of_the_pairs():
    one = cloud(1, 6, 3).double().requires_grad_()
    other, lines = cloud(2, 9, 3).double(), directions(3, 4).double()
    assert torch.autograd.gradcheck(lambda x: sliced_wasserstein(x, other, lines), [one])


@pytest.mark.parametrize('points', [torch.zeros(4, 3), torch.zeros(0, 5), torch.zeros(5)])
def test_points_that_do_not_fit_are_refused(points):
    with pytest.raises(ValueError, match=r'other is .*expected \[points, 5\]'):
        sliced_wasserstein(cloud(1), points, directions())


@pytest.fixture(scope='module')
def judge(data):
    return Judge.load(data / 'weights' / 'squeezenet_v1.0.npz')


def test_the_third_measure_knows_styles_and_repeats_itself(judge):
    mosaic = draw('mosaic', 160)
    assert judge.sliced_wasserstein(mosaic, mosaic) == 0
    same = judge.sliced_wasserstein(draw('mosaic', 160, seed=1), mosaic)
    assert same < 0.5 * judge.sliced_wasserstein(draw('swirls', 160), mosaic)
    assert same < 0.5 * judge.sliced_wasserstein(PHOTO, mosaic)
    assert same == judge.sliced_wasserstein(draw('mosaic', 160, seed=1), mosaic)
    other = judge.sliced_wasserstein(draw('mosaic', 160, seed=1), mosaic, seed=1)
    assert other == pytest.approx(same, rel=0.05)
    # Where things are does not count.
    assert judge.sliced_wasserstein(np.roll(mosaic, 16, axis=0), mosaic) < same


def test_similarity_falls_with_the_damage():
    noise = np.random.default_rng(0).integers(0, 256, PHOTO.shape, np.uint8)
    assert similarity(PHOTO, PHOTO) == 1
    slight, strong = (similarity(PHOTO // 16 * 16 if slight else noise, PHOTO)
                      for slight in (True, False))
    assert 0.8 < slight < 1
    assert abs(strong) < 0.1

"""Orthogonalisation against the singular value decomposition."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from muon_ad.optim.newton_schulz import COEFFICIENTS
from muon_ad.optim.newton_schulz import orthogonalise

SHAPES = [(5, 5), (4, 20), (20, 4), (1, 7), (7, 1), (48, 432)]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def expected(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The iteration acts on the singular values alone, so it may be done on them."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.square().sum().sqrt()
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        s = a * s + b * s ** 3 + c * s ** 5
    return u @ torch.diag(s) @ v


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(('dtype', 'tolerance'), [
    (torch.float64, 1e-12), (torch.float32, 1e-4), (torch.bfloat16, 0.05),
])
def test_agrees_with_the_singular_value_decomposition(shape, dtype, tolerance):
    matrix = random(*shape)
    found = orthogonalise(matrix.double(), dtype=dtype)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected(matrix), rtol=0, atol=tolerance)


@given(st.integers(2, 24), st.integers(2, 24), st.integers(0, 10 ** 6), st.floats(-6, 6))
def test_singular_values_end_in_the_band_of_the_quintic(rows, columns, seed, power):
    matrix = random(rows, columns, seed=seed, dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = torch.linspace(1, 0.05, len(s), dtype=torch.float64)    # none so small that five do not do
    found = orthogonalise(10 ** power * u @ torch.diag(s) @ v)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.67 and values.max() < 1.21


def test_a_random_matrix_becomes_nearly_orthogonal():
    found = orthogonalise(random(16, 64))
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.68 and values.max() < 1.14


def test_a_batch_is_each_of_its_matrices():
    stack = random(2, 3, 6, 10)
    found = orthogonalise(stack)
    assert found.shape == stack.shape
    for index in np.ndindex(2, 3):
        torch.testing.assert_close(found[index], orthogonalise(stack[index]))


def test_transposing_commutes():
    matrix = random(12, 5)
    torch.testing.assert_close(orthogonalise(matrix.mT), orthogonalise(matrix).mT)


def test_nothing_stays_nothing_and_size_does_not_matter():
    assert orthogonalise(torch.zeros(3, 4)).abs().max() == 0
    matrix = random(3, 4)
    torch.testing.assert_close(orthogonalise(1e-4 * matrix), orthogonalise(1e6 * matrix))


def test_half_precision_goes_in_and_comes_out_but_is_computed_in_full():
    matrix = random(6, 9).bfloat16()
    found = orthogonalise(matrix)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, orthogonalise(matrix.float()).bfloat16())


@pytest.mark.parametrize(('matrix', 'steps', 'problem'), [
    (torch.zeros(3), 5, r'float32 of shape \[3\]'),
    (torch.zeros(3, 3, dtype=torch.int64), 5, 'int64'),
    (torch.zeros(3, 3), 0, 'steps is 0'),
])
def test_what_is_no_matrix_is_refused(matrix, steps, problem):
    with pytest.raises(ValueError, match=problem):
        orthogonalise(matrix, steps)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_a_gpu_computes_in_bfloat16_by_default():
    matrix = random(16, 24).cuda()
    assert torch.equal(orthogonalise(matrix), orthogonalise(matrix, dtype=torch.bfloat16))
    assert not torch.equal(orthogonalise(matrix), orthogonalise(matrix, dtype=torch.float32))

"""Orthogonalisation of matrices by Newton-Schulz iteration, the heart of Muon."""

import torch
from torch import Tensor

# Of the odd polynomial a*x + b*x^3 + c*x^5 (Jordan et al., 2024, "Muon: An optimizer for hidden
# layers in neural networks"): the steepest at zero that still keeps [0, 1] near one.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPS = 1e-7


def orthogonalise(matrices: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Return [..., r, c] with the same singular vectors and singular values near one.

    `matrices` are floating-point, of any number of leading (batch) dimensions. Each is divided by
    its Frobenius norm, then `steps` times X <- a X + b (X X^T) X + c (X X^T)^2 X. This does not
    converge to one: after five steps, singular values that were above 0.01 of the norm lie within
    about 0.68 .. 1.13; smaller ones come out smaller, and zero stays zero. Muon-AD
    names Newton-Schulz; the polynomial is that of Muon's authors and of torch.optim.Muon.

    Computed in `dtype`; by default in bfloat16 on a GPU, where it is several times as fast, and
    otherwise in float32, or in float64 for float64 matrices. The result has the dtype of
    `matrices`. Raises ValueError for less than two dimensions, no floating-point dtype, or no
    steps.
    """
    if matrices.ndim < 2 or not matrices.is_floating_point():
        raise ValueError(f'orthogonalise: got {matrices.dtype} of shape {list(matrices.shape)}; '
                         'expected floating-point matrices [..., rows, columns]')
    if steps < 1:
        raise ValueError(f'orthogonalise: steps is {steps}; expected at least 1')
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices       # the smaller Gram matrix costs less
    x = x.flatten(0, -3) if x.ndim > 2 else x[None]
    x = x.to(dtype or working_dtype(matrices))
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp_min(EPS)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    x = x.mT if tall else x
    return x.reshape(matrices.shape).to(matrices.dtype)


def working_dtype(matrices: Tensor) -> torch.dtype:
    """Return the dtype that `orthogonalise` computes in by default."""
    if matrices.device.type == 'cuda':
        return torch.bfloat16
    return torch.promote_types(matrices.dtype, torch.float32)

"""GPTQ: rounds a layer's weights so that its output on real inputs changes least.

After Frantar et al., GPTQ, 2023, arXiv:2210.17323, algorithm 1. torchao's own (prototype) writes
4-bit weights for CUDA only, so the algorithm is here, and torchao's tensors hold the result.
"""

import torch

from muon_ad.distill.quantise.tensor import group_scales
from muon_ad.distill.quantise.tensor import integer_range

DAMPING = 0.01      # of the mean of the diagonal, as in the paper's experiments


class InputStatistics:
    """The Hessian of a layer's squared output error: the sum of x x^T over its inputs x [K]."""

    def __init__(self, inputs: int) -> None:
        self.total = torch.zeros(inputs, inputs)
        self.count = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Take in inputs [..., K]."""
        rows = inputs.detach().reshape(-1, len(self.total)).float().cpu()
        self.total += rows.T @ rows
        self.count += len(rows)


def gptq(
    weight: torch.Tensor, statistics: InputStatistics, bits: int, group: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a weight [N, K] column by column, letting later columns make up for each error.

    Groups of `group` columns share a scale (K is a multiple of it). Returns integers, int8 [N, K],
    and scales [N, K / group]. Raises ValueError where no input was seen.
    """
    if not statistics.count:
        raise ValueError('the layer saw no input; expected at least one calibration pass')
    lowest, highest = integer_range(bits)
    left = weight.detach().float().cpu().clone()
    inverse = _inverse_factor(statistics.total / statistics.count)
    integers, scales = torch.empty(left.shape, dtype=torch.int8), []
    for start in range(0, left.shape[1], group):
        end = start + group
        scale = group_scales(left[:, start:end], bits, group)
        scales.append(scale)
        errors = torch.empty(len(left), group)
        for column in range(start, end):
            rounded = (left[:, column] / scale[:, 0]).round().clamp(lowest, highest)
            integers[:, column] = rounded.to(torch.int8)
            error = (left[:, column] - rounded * scale[:, 0]) / inverse[column, column]
            left[:, column:end] -= torch.outer(error, inverse[column, column:end])
            errors[:, column - start] = error
        left[:, end:] -= errors @ inverse[start:end, end:]
    return integers, torch.cat(scales, 1)


def _inverse_factor(hessian: torch.Tensor) -> torch.Tensor:
    """Return the upper Cholesky factor of the damped Hessian's inverse."""
    damped = hessian.clone()
    diagonal = damped.diagonal()
    # An input that was always 0 would make it singular.
    diagonal += DAMPING * diagonal.mean() + 1e-8
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)

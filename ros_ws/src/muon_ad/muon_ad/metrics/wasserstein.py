"""Sliced Wasserstein distance: how far two clouds of points are, whatever their shapes.

Bonneel et al., "Sliced and Radon Wasserstein barycenters of measures", 2015: on a line the optimal
transport pairs the points in order, so a distance in many dimensions is averaged over lines.
"""

import torch
import torch.nn.functional as F  # noqa: N812


def random_directions(dimensions: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Return float32 [dimensions, count]: unit vectors, evenly spread over the sphere."""
    return F.normalize(torch.randn(dimensions, count, generator=generator), dim=0)


def quantiles(values: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` evenly spaced quantiles [..., count] of samples [..., N], in rising order.

    The sorted samples themselves where count is N; between two of them linear, at either end
    constant. Differentiable with respect to the samples.
    """
    ordered = values.sort(dim=-1).values
    if ordered.shape[-1] == count:
        return ordered
    flat = ordered.reshape(1, -1, ordered.shape[-1])
    return F.interpolate(flat, count, mode='linear', align_corners=False).reshape(
        *ordered.shape[:-1], count)


def sliced_wasserstein(
    one: torch.Tensor, other: torch.Tensor, directions: torch.Tensor,
) -> torch.Tensor:
    """Return the sliced Wasserstein-1 distance, a scalar, between [N, D] and [M, D].

    `directions` is [D, K] (see `random_directions`). Exact along each of them where N equals M;
    otherwise the smaller cloud's quantiles are interpolated. Raises ValueError where the points
    have other dimensions than the directions, or there are none.
    """
    for name, points in (('one', one), ('other', other)):
        if points.ndim != 2 or points.shape[1] != len(directions) or not len(points):
            raise ValueError(f'{name} is {tuple(points.shape)}; expected [points, '
                             f'{len(directions)}] as the directions have, and at least one point')
    count = max(len(one), len(other))
    lines = [quantiles((points @ directions).T, count) for points in (one, other)]
    return F.l1_loss(*lines)

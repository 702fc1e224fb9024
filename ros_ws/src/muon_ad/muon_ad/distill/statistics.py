"""Giving features or latents of one picture the statistics of another's."""

import torch

# Of the largest eigenvalue: in directions below it the features say nothing but rounding.
_NEGLIGIBLE = 1e-5


def whiten_and_colour(content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """Return `content` [C, N] with the mean and covariance of `style` [C, M]; both float64.

    Whitening and colouring, equations 1 and 2 of Li et al. (arXiv:1705.08086). Directions in
    which the content hardly varies stay empty, so that the covariance is the style's as far as
    the content has the directions.
    """
    centred = content - content.mean(dim=1, keepdim=True)
    mean = style.mean(dim=1, keepdim=True)
    return _power(style - mean, 0.5) @ (_power(centred, -0.5) @ centred) + mean


def _power(centred: torch.Tensor, exponent: float) -> torch.Tensor:
    """Return the covariance of centred points [C, N] to a power, on the directions they have."""
    values, vectors = torch.linalg.eigh(centred @ centred.T / centred.shape[1])
    kept = values > _NEGLIGIBLE * values[-1]
    return vectors[:, kept] * values[kept] ** exponent @ vectors[:, kept].T


def align_statistics(content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """Return `content` [N, C, ...] with mean and standard deviation of `style` in each channel.

    AdaIN, equation 8 of Huang and Belongie (arXiv:1703.06868), over all that follows the
    channels, whose sizes may differ. A constant channel becomes the style's mean.
    """
    places = tuple(range(2, content.ndim))
    variance, mean = torch.var_mean(content, places, correction=0, keepdim=True)
    wanted_variance, wanted_mean = torch.var_mean(style, places, correction=0, keepdim=True)
    scale = (wanted_variance / variance.clamp_min(1e-10)).sqrt()
    return (content - mean) * scale + wanted_mean

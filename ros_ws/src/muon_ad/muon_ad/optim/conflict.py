"""Gradients of style and content that pull against each other: measure it, and resolve it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from muon_ad.optim.newton_schulz import orthogonalise
from muon_ad.optim.settings import check_choice

SCOPES = ('tensor', 'global')
Gradients = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class ConflictReport:
    """What a projection found and did, for each tensor, or once for all of them.

    Cosines between the gradients of style and content before and after; 0 where one is zero.
    """

    projected: tuple[bool, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def triggered(self) -> int:
        """Number of those that were projected."""
        return sum(self.projected)

    @property
    def rate(self) -> float:
        """Share of those that were projected."""
        return self.triggered / len(self.projected)


def project_conflict(
    style_grad: Gradients,
    content_grad: Gradients,
    threshold: float = -0.5,
    strength: float = 1.0,
    scope: str = 'tensor',
) -> tuple[Gradients, ConflictReport]:
    """Take out of the style's gradient what works against the content's: the paper's equation 2.

    Where cos(g_s, g_c) < threshold: g_s <- g_s - strength (g_s . g_c / |g_c|^2) g_c, so that at a
    strength of 1 it is orthogonal to the content's gradient; otherwise g_s is returned as it is.
    What the products run over was not seen: here each tensor by itself (scope
    'tensor'), or all tensors as one vector ('global'). Meant for the gradients as they come from
    the losses, before momentum; of parameters or of latents. A gradient of zero is in no conflict.

    Takes two tensors of one shape, or two lists of such tensors; returns the same kind, in the
    same dtype, and the report. Inputs are not changed. Waits for the device once. Raises
    ValueError for a threshold outside -1..1, a strength outside 0..1, another scope, or tensors
    that do not match.
    """
    _check(threshold, strength, scope)
    styles, contents = _listed(style_grad, content_grad)
    before = _cosines(styles, contents, scope)
    triggered = [cosine < threshold and cosine != 0 for cosine in before.tolist()]
    chosen = triggered if scope == 'tensor' else triggered * len(styles)
    projected = list(styles)
    if any(chosen):
        dots, squares = _products(styles, contents, scope)
        factors = (strength * dots / squares).expand(len(styles)).unbind()
        for index, factor in enumerate(factors):
            if chosen[index]:
                moved = styles[index].to(factor.dtype) - factor * contents[index]
                projected[index] = moved.to(styles[index].dtype)
    after = _cosines(projected, contents, scope) if any(chosen) else before
    report = ConflictReport(tuple(triggered), tuple(before.tolist()), tuple(after.tolist()))
    return (projected[0] if isinstance(style_grad, Tensor) else projected), report


def cosines(first: Gradients, second: Gradients, scope: str = 'tensor') -> list[float]:
    """Return the cosine between gradients, for each tensor or once for all; 0 where one is zero.

    Raises ValueError for another scope, or tensors that do not match.
    """
    check_choice('scope', scope, SCOPES)
    return _cosines(*_listed(first, second), scope).tolist()


def orthogonalised_cosines(
    style_grad: Gradients, content_grad: Gradients, latents: bool = False
) -> list[float]:
    """Return the cosines that are left after Muon has orthogonalised the style's gradient.

    Orthogonalisation turns a gradient, so one that was projected may conflict again. Tensors are
    matrices as for `Muon`, [shape[0], rest], or with `latents` as for `LatentMuon`, [C, H*W] of
    each sample; those of too few dimensions, which it does not touch, are left out.
    """
    start = 2 if latents else 1
    styles, contents = _listed(style_grad, content_grad)
    pairs = [(style.flatten(start), content.flatten(start))
             for style, content in zip(styles, contents, strict=True) if style.ndim > start]
    return cosines([orthogonalise(style) for style, _ in pairs], [each for _, each in pairs])


def pcgrad(gradients: Sequence[Gradients], generator: torch.Generator | None = None) \
        -> list[Gradients]:
    """Return the gradients of several tasks without their conflicts, by PCGrad, as a baseline.

    Algorithm 1 of Yu et al., 2020 (arXiv:2001.06782): each task's gradient, over all tensors as
    one vector, is projected off every other task's original gradient that it has a negative
    product with, in random order (drawn on the CPU from `generator`). The sum of what is returned
    is PCGrad's update. `gradients` holds, for each task, a tensor or a list of tensors. Raises
    ValueError where they do not match.
    """
    if not gradients:
        raise ValueError('pcgrad: no gradients; expected those of at least one task')
    originals = [_listed(each, gradients[0])[0] for each in gradients]
    results = []
    for task, original in enumerate(originals):
        found = original
        order = torch.randperm(len(originals), generator=generator).tolist()
        for other in order:
            if other != task:
                found, _ = project_conflict(found, originals[other], 0.0, scope='global')
        results.append(found[0] if isinstance(gradients[task], Tensor) else list(found))
    return results


class ConflictMonitor:
    """How often gradients conflict over a run, and their cosines step by step.

    `before`, `after` and `orthogonalised` hold a mean over the tensors of every recorded step,
    `rates` the share of tensors that were projected.
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.before: list[float] = []
        self.after: list[float] = []
        self.orthogonalised: list[float] = []

    def record(self, report: ConflictReport, orthogonalised: Sequence[float] = ()) -> None:
        """Add a step; `orthogonalised` is what `orthogonalised_cosines` found, if asked."""
        self.rates.append(report.rate)
        self.before.append(fmean(report.before))
        self.after.append(fmean(report.after))
        if orthogonalised:
            self.orthogonalised.append(fmean(orthogonalised))

    @property
    def trigger_rate(self) -> float:
        """Share of all tensors and steps that were projected; 0 before the first step."""
        return fmean(self.rates) if self.rates else 0.0

    def summary(self) -> dict[str, float]:
        """Return the number of steps, the trigger rate and the mean cosines that are known."""
        lines = {'cosine_before': self.before, 'cosine_after': self.after,
                 'cosine_orthogonalised': self.orthogonalised}
        means = {name: fmean(values) for name, values in lines.items() if values}
        return {'steps': len(self.rates), 'trigger_rate': self.trigger_rate, **means}


def _check(threshold: float, strength: float, scope: str) -> None:
    check_choice('scope', scope, SCOPES)
    for name, value, low in (('threshold', threshold, -1), ('strength', strength, 0)):
        if not low <= value <= 1:
            raise ValueError(f'{name} is {value}; expected {low} to 1')


def _listed(first: Gradients, second: Gradients) -> tuple[list[Tensor], list[Tensor]]:
    """Return both as lists; raises ValueError unless they are of the same shapes."""
    lists = [[each] if isinstance(each, Tensor) else list(each) for each in (first, second)]
    shapes = [[list(tensor.shape) for tensor in tensors] for tensors in lists]
    if shapes[0] != shapes[1] or not shapes[0]:
        raise ValueError(f'gradients have the shapes {shapes[0]} and {shapes[1]}; expected the '
                         'same, and at least one')
    return lists[0], lists[1]


def _cosines(first: list[Tensor], second: list[Tensor], scope: str) -> Tensor:
    """Return [tensors], or [1] for all as one, float32 or better."""
    dots, squares = _products(first, second, scope)
    _, others = _products(first, first, scope)
    size = (squares.sqrt() * others.sqrt())
    return torch.where(size > 0, dots / size.clamp_min(torch.finfo(size.dtype).tiny), 0.0)


def _products(first: list[Tensor], second: list[Tensor], scope: str) -> tuple[Tensor, Tensor]:
    """Return the products of `first` and `second` and the squares of `second`, as `_cosines`."""
    full = [(a.detach().flatten().to(_full(a)), b.detach().flatten().to(_full(a)))
            for a, b in zip(first, second, strict=True)]
    dots = torch.stack([a @ b for a, b in full])
    squares = torch.stack([b @ b for _, b in full])
    if scope == 'global':
        return dots.sum(0, keepdim=True), squares.sum(0, keepdim=True)
    return dots, squares


def _full(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)

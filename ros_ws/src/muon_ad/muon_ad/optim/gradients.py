"""The gradients of a step, checked before any parameter is touched."""

import math
from collections.abc import Callable
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm


class GradientError(ValueError):
    """A gradient cannot be used: sparse, or not finite. Nothing has been updated."""


def with_gradient(group: dict) -> list[Tensor]:
    """Return the parameters of a group that have a gradient."""
    return [parameter for parameter in group['params'] if parameter.grad is not None]


def check_gradients(groups: Sequence[dict]) -> None:
    """Raise GradientError, naming the parameter, where a gradient is sparse or not finite.

    One NaN would spread over the whole matrix that it is orthogonalised with, and stay in the
    momentum. Waits for the device once.
    """
    parameters = [parameter for group in groups for parameter in with_gradient(group)]
    for parameter in parameters:
        if parameter.grad.layout != torch.strided:
            raise GradientError(
                f'{named(groups, parameter)}: its gradient is sparse; expected a dense one '
                '(nn.Embedding: sparse=False)'
            )
    gradients = [parameter.grad for parameter in parameters]
    if gradients and not torch.isfinite(get_total_norm(gradients, math.inf)):
        broken = next(each for each in parameters if not each.grad.isfinite().all())
        raise GradientError(
            f'{named(groups, broken)}: its gradient is not finite; lower the learning rate, or '
            'train in float16 with torch.amp.GradScaler, which skips such steps'
        )


def named(groups: Sequence[dict], parameter: Tensor) -> str:
    """Return what an error calls a parameter: its name, where it was given with one, and shape."""
    for number, group in enumerate(groups):
        for index, each in enumerate(group['params']):
            if each is parameter:
                names = group.get('param_names') or {}
                name = names[index] if names else f'parameter {index} of group {number}'
                return f'{name} {list(parameter.shape)}'
    raise LookupError('parameter of no group')


def evaluated(closure: Callable[[], Tensor] | None) -> Tensor | None:
    """Return the loss of a closure, which computes the gradients, or None where there is none."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()

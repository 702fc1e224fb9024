"""Muon for the matrices of a network and AdamW for its other parameters, as one optimiser."""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from muon_ad.optim.base import FullPrecisionOptimizer
from muon_ad.optim.gradients import named
from muon_ad.optim.masters import buffers_of
from muon_ad.optim.newton_schulz import orthogonalise
from muon_ad.optim.settings import check_choice
from muon_ad.optim.settings import check_range

ALGORITHMS = ('muon', 'adamw')
SCALES = ('rms', 'spectral')


class Muon(FullPrecisionOptimizer):
    """Momentum, orthogonalised (Jordan et al., 2024; the paper's section on Muon), with AdamW.

    Every parameter group is updated by one `algorithm`:

    - 'muon': parameters of two or more dimensions, as matrices [rows, columns] = [shape[0], rest],
      so that a convolution is [out, in*k*k]. With momentum B and gradient G:
      B <- mu B + (1 - mu) G;  U = orthogonalise((1 - mu) G + mu B) with Nesterov, else of B;
      W <- (1 - lr * weight_decay) W - lr * s * U. The factor s is 0.2 sqrt(max(rows, columns))
      for the scale 'rms', which gives a step the size of AdamW's (Liu et al., 2025,
      arXiv:2502.16982), so that both share a learning rate, or sqrt(max(1, rows / columns)) for
      'spectral', Muon's original. Equal to torch.optim.Muon on 2-D parameters but for rounding;
    - 'adamw': any parameter; `betas` and `eps` are its own.

    A group that names no algorithm is divided by shape: two or more dimensions to 'muon'.
    `split_parameters` makes the groups of a model more carefully. Groups may have their own value
    of every setting.

    Newton-Schulz takes `steps`, on all parameters of one shape at once. Parameters in half
    precision have float32 master weights in the state; whoever writes into such a parameter must
    load the state that belongs to it. Not for complex parameters.

    Raises ValueError for a setting out of range and for a parameter of less than two dimensions
    under 'muon'; `step` raises GradientError for a gradient that is sparse or not finite, and has
    then changed nothing.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        steps: int = 5,
        scale: str = 'rms',
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        defaults = {
            'lr': lr, 'weight_decay': weight_decay, 'momentum': momentum, 'nesterov': nesterov,
            'steps': steps, 'scale': scale, 'betas': betas, 'eps': eps,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict) -> None:
        """Add a group; see the class for `algorithm` and the errors raised."""
        for group in by_shape(param_group):
            super().add_param_group(group)
            _check(self.param_groups)

    def _update(
        self, group: dict, masters: list[Tensor], gradients: list[Tensor],
        parameters: list[Tensor],
    ) -> None:
        update = self._muon if group['algorithm'] == 'muon' else self._adamw
        update(group, masters, gradients, parameters)

    def _muon(
        self, group: dict, masters: list[Tensor], gradients: list[Tensor],
        parameters: list[Tensor],
    ) -> None:
        buffers = buffers_of(self.state, 'momentum_buffer', parameters)
        updates = nesterov_momentum(buffers, gradients, group['momentum'], group['nesterov'])
        lr = float(group['lr'])
        if group['weight_decay']:
            torch._foreach_mul_(masters, 1 - lr * group['weight_decay'])
        for same in _equal_shapes(masters):
            stack = torch.stack([updates[index].flatten(1) for index in same])
            steps = orthogonalise(stack, group['steps'])
            steps *= -lr * update_scale(*stack.shape[1:], group['scale'])
            moved = [masters[index] for index in same]
            torch._foreach_add_(moved, [step.reshape(each.shape)
                                        for step, each in zip(steps, moved, strict=True)])

    def _adamw(
        self, group: dict, masters: list[Tensor], gradients: list[Tensor],
        parameters: list[Tensor],
    ) -> None:
        for parameter in parameters:
            if 'step' not in self.state[parameter]:
                self.state[parameter]['step'] = torch.zeros(())
        beta1, beta2 = group['betas']
        # The compiler cannot trace torch's foreach variant, and fuses the plain one as well.
        foreach = not torch.compiler.is_compiling()
        adamw(
            masters, gradients, buffers_of(self.state, 'exp_avg', parameters),
            buffers_of(self.state, 'exp_avg_sq', parameters), [],
            [self.state[parameter]['step'] for parameter in parameters], foreach=foreach,
            amsgrad=False, beta1=beta1, beta2=beta2, lr=float(group['lr']),
            weight_decay=group['weight_decay'], eps=group['eps'], maximize=False,
        )


def nesterov_momentum(
    buffers: list[Tensor], gradients: list[Tensor], momentum: float, nesterov: bool
) -> list[Tensor]:
    """Move `buffers` towards the gradients in place; return what to orthogonalise.

    An average, not a sum: B <- mu B + (1 - mu) G, as in torch.optim.Muon.
    """
    torch._foreach_lerp_(buffers, gradients, 1 - momentum)
    return torch._foreach_lerp(gradients, buffers, momentum) if nesterov else buffers


def update_scale(rows: int, columns: int, scale: str) -> float:
    """Return the factor of an orthogonalised update of a matrix [rows, columns]."""
    if scale == 'rms':
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


def by_shape(group: dict) -> list[dict]:
    """Return the group, or, where it names no algorithm, its matrices and its other parameters.

    `params` is a tensor or an iterable of tensors or of (name, tensor), as torch takes them.
    """
    if 'algorithm' in group or isinstance(group['params'], set):    # torch refuses a set
        return [group]
    params = group['params']
    params = [params] if isinstance(params, Tensor) else list(params)
    matrices = [each for each in params if _dimensions(each) >= 2]
    others = [each for each in params if _dimensions(each) < 2]
    parts = ((matrices, 'muon'), (others, 'adamw'))
    made = [{**group, 'params': part, 'algorithm': name} for part, name in parts if part]
    return made or [{**group, 'params': params, 'algorithm': 'adamw'}]


def _dimensions(item: Tensor | tuple[str, Tensor]) -> int:
    tensor = item[1] if isinstance(item, tuple) else item
    return getattr(tensor, 'ndim', 0)       # torch itself refuses what is no tensor


def _check(groups: list[dict]) -> None:
    """Check the newest of the groups."""
    group = groups[-1]
    check_choice('algorithm', group['algorithm'], ALGORITHMS)
    check_choice('scale', group['scale'], SCALES)
    check_range('lr', float(group['lr']), 0)
    check_range('weight_decay', group['weight_decay'], 0)
    check_range('momentum', group['momentum'], 0, 1)
    check_range('steps', group['steps'], 1)
    check_range('eps', group['eps'], 0, positive=True)
    for beta in group['betas']:
        check_range('betas', beta, 0, 1)
    for parameter in group['params']:
        if not parameter.is_floating_point():
            raise ValueError(f'{named(groups, parameter)} is {parameter.dtype}; expected '
                             'floating-point parameters')
        if group['algorithm'] == 'muon' and parameter.ndim < 2:
            raise ValueError(f'{named(groups, parameter)}: Muon needs two or more dimensions; '
                             "put it into a group with 'algorithm': 'adamw'")


def _equal_shapes(tensors: list[Tensor]) -> list[list[int]]:
    """Return the indices of the tensors that are one matrix shape, dtype and device."""
    found = defaultdict(list)
    for index, each in enumerate(tensors):
        rows = each.shape[0]
        found[rows, each.numel() // rows, each.dtype, each.device].append(index)
    return list(found.values())

"""Lion: the sign of an interpolated momentum (Chen et al., 2023, arXiv:2302.06675)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from muon_ad.optim.base import FullPrecisionOptimizer
from muon_ad.optim.masters import buffers_of
from muon_ad.optim.settings import check_range


class Lion(FullPrecisionOptimizer):
    """Algorithm 2 of the paper: W <- W - lr (sign(b1 M + (1 - b1) G) + weight_decay W).

    Then M <- b2 M + (1 - b2) G. Its authors use a learning rate a third to a tenth of AdamW's.
    Raises ValueError for a setting out of range; `step` raises GradientError.
    """

    def __init__(
        self, params: Iterable, lr: float = 1e-4, weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        super().__init__(params, {'lr': lr, 'weight_decay': weight_decay, 'betas': betas})

    def add_param_group(self, param_group: dict) -> None:
        """Add a group and check its settings."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        check_range('lr', float(group['lr']), 0)
        check_range('weight_decay', group['weight_decay'], 0)
        for beta in group['betas']:
            check_range('betas', beta, 0, 1)

    def _update(
        self, group: dict, masters: list[Tensor], gradients: list[Tensor],
        parameters: list[Tensor],
    ) -> None:
        buffers = buffers_of(self.state, 'momentum_buffer', parameters)
        lr, (beta1, beta2) = float(group['lr']), group['betas']
        directions = torch._foreach_sign(torch._foreach_lerp(buffers, gradients, 1 - beta1))
        torch._foreach_mul_(masters, 1 - lr * group['weight_decay'])
        torch._foreach_add_(masters, directions, alpha=-lr)
        torch._foreach_lerp_(buffers, gradients, 1 - beta2)

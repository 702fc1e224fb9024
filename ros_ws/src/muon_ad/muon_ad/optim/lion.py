"""Lion: the sign of an interpolated momentum (Chen et al., 2023, arXiv:2302.06675)."""

from collections.abc import Callable
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from muon_ad.optim.gradients import check_gradients
from muon_ad.optim.gradients import evaluated
from muon_ad.optim.gradients import with_gradient
from muon_ad.optim.masters import buffers_of
from muon_ad.optim.masters import full_gradients
from muon_ad.optim.masters import master_of
from muon_ad.optim.masters import restore_precision
from muon_ad.optim.masters import round_to_parameters
from muon_ad.optim.settings import check_range


class Lion(Optimizer):
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

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update all parameters that have a gradient; return the closure's loss."""
        loss = evaluated(closure)
        check_gradients(self.param_groups)
        for group in self.param_groups:
            parameters = with_gradient(group)
            if parameters:
                self._update(group, parameters)
        return loss

    def _update(self, group: dict, parameters: list[Tensor]) -> None:
        masters = [master_of(each, self.state[each]) for each in parameters]
        gradients = full_gradients(parameters)
        buffers = buffers_of(self.state, 'momentum_buffer', parameters)
        lr, (beta1, beta2) = float(group['lr']), group['betas']
        directions = torch._foreach_sign(torch._foreach_lerp(buffers, gradients, 1 - beta1))
        torch._foreach_mul_(masters, 1 - lr * group['weight_decay'])
        torch._foreach_add_(masters, directions, alpha=-lr)
        torch._foreach_lerp_(buffers, gradients, 1 - beta2)
        round_to_parameters(masters, parameters)

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up a saved state, master weights in full precision."""
        super().load_state_dict(state_dict)
        restore_precision(self, state_dict)

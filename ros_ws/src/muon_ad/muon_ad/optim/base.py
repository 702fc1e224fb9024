"""What the optimisers share: a step over groups, in float32 or better."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from muon_ad.optim.gradients import check_gradients
from muon_ad.optim.gradients import evaluated
from muon_ad.optim.gradients import with_gradient
from muon_ad.optim.masters import full_gradients
from muon_ad.optim.masters import master_of
from muon_ad.optim.masters import restore_precision
from muon_ad.optim.masters import round_to_parameters


class FullPrecisionOptimizer(Optimizer):
    """An optimiser whose `_update` sees float32 or better, whatever the parameters are.

    Parameters in half precision are a rounding of master weights in its state. `step` raises
    GradientError for a gradient that is sparse or not finite, and has then changed nothing.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update all parameters that have a gradient; return the closure's loss."""
        loss = evaluated(closure)
        check_gradients(self.param_groups)
        for group in self.param_groups:
            parameters = with_gradient(group)
            if parameters:
                masters = [master_of(each, self.state[each]) for each in parameters]
                self._update(group, masters, full_gradients(parameters), parameters)
                round_to_parameters(masters, parameters)
        return loss

    def _update(
        self, group: dict, masters: list[Tensor], gradients: list[Tensor],
        parameters: list[Tensor],
    ) -> None:
        """Change `masters`, in place; `parameters` are the keys of their state."""
        raise NotImplementedError

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up a saved state, master weights in full precision."""
        super().load_state_dict(state_dict)
        restore_precision(self, state_dict)

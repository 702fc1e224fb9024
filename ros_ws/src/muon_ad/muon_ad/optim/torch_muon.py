"""torch.optim.Muon as a peer that trains a whole network, convolutions included."""

from collections.abc import Callable
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from muon_ad.optim.gradients import evaluated
from muon_ad.optim.muon import by_shape


class TorchMuon(Optimizer):
    """torch.optim.Muon for the groups of algorithm 'muon', torch.optim.AdamW for the others.

    torch.optim.Muon takes 2-D parameters only. Here it is given the convolutions as well, as 2-D
    copies [out, in*k*k] whose values are carried there and back around each step: a use that its
    authors do not offer, but without it, a convolutional network would be trained by AdamW under
    another name. Groups are those of `muon_ad.optim.muon.Muon`; the learning rate and the weight
    decay of a group may change, its other settings are those at the beginning.
    """

    def __init__(
        self, params: Iterable, lr: float = 1e-3, weight_decay: float = 0.0,
        momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.95),
    ) -> None:
        self._momentum, self._betas = momentum, betas
        self._peers: list[tuple[Optimizer, list[Tensor]]] = []
        super().__init__(params, {'lr': lr, 'weight_decay': weight_decay})

    def add_param_group(self, param_group: dict) -> None:
        """Add a group; one that names no algorithm is divided by shape."""
        for each in by_shape(param_group):
            super().add_param_group(each)
            self._peers.append(self._peer(self.param_groups[-1]))

    def _peer(self, group: dict) -> tuple[Optimizer, list[Tensor]]:
        settings = {'lr': group['lr'], 'weight_decay': group['weight_decay']}
        if group['algorithm'] == 'adamw':
            params = group['params']
            return torch.optim.AdamW(params, betas=self._betas, **settings), params
        copies = [each.detach().flatten(1).clone() for each in group['params']]
        return torch.optim.Muon(copies, momentum=self._momentum,
                                adjust_lr_fn='match_rms_adamw', **settings), copies

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update all parameters that have a gradient; return the closure's loss."""
        loss = evaluated(closure)
        for group, (peer, copies) in zip(self.param_groups, self._peers, strict=True):
            peer.param_groups[0].update(lr=group['lr'], weight_decay=group['weight_decay'])
            flat = group['algorithm'] == 'muon'
            if flat:
                _carry_there(group['params'], copies)
            peer.step()
            if flat:
                for parameter, copy in zip(group['params'], copies, strict=True):
                    parameter.copy_(copy.view(parameter.shape))
        return loss

    def state_dict(self) -> dict:
        """Return the states of the optimisers within."""
        return {'peers': [peer.state_dict() for peer, _ in self._peers]}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up what `state_dict` returned, learning rates included."""
        for group, (peer, _), state in zip(
            self.param_groups, self._peers, state_dict['peers'], strict=True
        ):
            peer.load_state_dict(state)
            group.update({name: peer.param_groups[0][name] for name in ('lr', 'weight_decay')})


def _carry_there(parameters: list[Tensor], copies: list[Tensor]) -> None:
    for parameter, copy in zip(parameters, copies, strict=True):
        copy.copy_(parameter.flatten(1))
        copy.grad = None if parameter.grad is None else parameter.grad.flatten(1)

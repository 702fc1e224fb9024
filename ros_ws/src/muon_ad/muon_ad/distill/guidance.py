"""From losses to one gradient: style and content weighed, balanced and kept from conflict."""

from collections.abc import Sequence

import torch

from muon_ad.distill.objective import Losses
from muon_ad.distill.result import check_finite
from muon_ad.distill.settings import Settings
from muon_ad.optim.balance import GradientBalance
from muon_ad.optim.conflict import ConflictMonitor
from muon_ad.optim.conflict import orthogonalised_cosines
from muon_ad.optim.conflict import project_conflict

Gradients = list[torch.Tensor]


class Guidance:
    """Gradients of samples [1, C, h, w] under the settings, each as if it were alone.

    Where neither conflict nor balance is asked for, that takes one backward pass, else two.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._balance = GradientBalance() if settings.balance else None
        self._monitor = ConflictMonitor() if settings.conflict is not None else None

    def gradients(self, losses: Losses, samples: Sequence[torch.Tensor]) -> Gradients:
        """Return the gradients of the losses, which are means over the samples, by sample.

        Raises NotFinite.
        """
        count = len(samples)
        style, content = losses.style * count, self._content(losses) * count
        if self._balance is None and self._monitor is None:
            return _gradients(style + content, samples)
        style_gradients = _gradients(style, samples, retain_graph=True)
        content_gradients = _gradients(content, samples)
        if self._balance is not None:
            ratio = self._balance.update(_norm(style_gradients), _norm(content_gradients))
            # The ratio has taken the weight out, as it would any factor.
            scale = self._settings.content_weight * ratio
            content_gradients = [scale * gradient for gradient in content_gradients]
        if self._monitor is not None:
            style_gradients = self._projected(style_gradients, content_gradients)
        return [one + other for one, other in zip(style_gradients, content_gradients, strict=True)]

    def _content(self, losses: Losses) -> torch.Tensor:
        weighted = self._settings.content_weight * losses.content
        if losses.clip is None:
            return weighted
        return weighted + self._settings.clip_weight * losses.clip

    def _projected(self, style: Gradients, content: Gradients) -> Gradients:
        projected, report = project_conflict(style, content, threshold=self._settings.conflict)
        turned = []
        if self._settings.optimizer == 'latent-muon':
            turned = orthogonalised_cosines(projected, content, latents=True)
        self._monitor.record(report, turned)
        return projected

    def report(self) -> dict[str, float]:
        """Return what balancing and projection did, where they were in use."""
        found = {}
        if self._monitor is not None and self._monitor.rates:
            summary = self._monitor.summary()
            found = {name: summary[name] for name in summary if name != 'steps'}
        if self._balance is not None:
            found['content_scale'] = self._balance.value
        return found

    def state_dict(self) -> dict:
        """Return all that `load_state_dict` needs to continue."""
        return {'balance': None if self._balance is None else self._balance.state_dict(),
                'conflicts': None if self._monitor is None else dict(vars(self._monitor))}

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`."""
        if self._balance is not None:
            self._balance.load_state_dict(state['balance'])
        if self._monitor is not None:
            vars(self._monitor).update(state['conflicts'])


def _gradients(
    loss: torch.Tensor, samples: Sequence[torch.Tensor], retain_graph: bool = False,
) -> Gradients:
    gradients = list(torch.autograd.grad(loss, samples, retain_graph=retain_graph))
    check_finite('the gradient is', *gradients)
    return gradients


def _norm(gradients: Gradients) -> float:
    return torch.linalg.vector_norm(torch.cat([each.flatten() for each in gradients])).item()

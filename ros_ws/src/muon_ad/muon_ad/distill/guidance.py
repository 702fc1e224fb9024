"""From losses to one gradient: style and content weighed, balanced and kept from conflict."""

from collections.abc import Sequence

import torch

from muon_ad.distill.objective import Losses
from muon_ad.distill.settings import Settings
from muon_ad.optim.balance import GradientBalance
from muon_ad.optim.conflict import project_conflict

Gradients = list[torch.Tensor]


class Guidance:
    """Gradients of samples [1, C, h, w] under the settings, each as if it were alone.

    Where neither conflict nor balance is asked for, that takes one backward pass, else two.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._balance = GradientBalance() if settings.balance else None
        self._content_scale = 1.0
        self._tested = 0
        self._in_conflict = 0

    def gradients(self, losses: Losses, samples: Sequence[torch.Tensor]) -> Gradients:
        """Return the gradients of the losses, which are means over the samples, by sample."""
        count = len(samples)
        style, content = losses.style * count, self._content(losses) * count
        if self._balance is None and self._settings.conflict is None:
            return list(torch.autograd.grad(style + content, samples))
        style_gradients = list(torch.autograd.grad(style, samples, retain_graph=True))
        content_gradients = self._balanced(
            style_gradients, list(torch.autograd.grad(content, samples)))
        if self._settings.conflict is not None:
            style_gradients = self._projected(style_gradients, content_gradients)
        return [one + other for one, other in zip(style_gradients, content_gradients, strict=True)]

    def _content(self, losses: Losses) -> torch.Tensor:
        weighted = self._settings.content_weight * losses.content
        if losses.clip is None:
            return weighted
        return weighted + self._settings.clip_weight * losses.clip

    def _balanced(self, style: Gradients, content: Gradients) -> Gradients:
        """Scale the content's gradients: the paper's lambda, one for all samples."""
        if self._balance is None:
            return content
        self._content_scale = float(self._balance.update(_norm(style), _norm(content)))
        return [self._content_scale * gradient for gradient in content]

    def _projected(self, style: Gradients, content: Gradients) -> Gradients:
        projected, report = project_conflict(style, content, threshold=self._settings.conflict)
        self._tested += len(style)
        self._in_conflict += report.triggered
        return projected

    def report(self) -> dict[str, float]:
        """Return conflict_rate and content_scale, where they were in use."""
        found = {}
        if self._tested:
            found['conflict_rate'] = self._in_conflict / self._tested
        if self._balance is not None:
            found['content_scale'] = self._content_scale
        return found

    def state_dict(self) -> dict:
        """Return all that `load_state_dict` needs to continue."""
        return {'balance': None if self._balance is None else self._balance.state_dict(),
                'content_scale': self._content_scale, 'tested': self._tested,
                'in_conflict': self._in_conflict}

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`."""
        if self._balance is not None:
            self._balance.load_state_dict(state['balance'])
        self._content_scale = state['content_scale']
        self._tested, self._in_conflict = state['tested'], state['in_conflict']


def _norm(gradients: Gradients) -> float:
    return torch.linalg.vector_norm(torch.cat([each.flatten() for each in gradients])).item()

"""The Gradient Prediction Network: guesses the gradient of latents, to spare passes.

Muon-AD (arXiv 2504.08451) has a small network predict the gradient of z on some steps "from
forward features" and does not say which, nor how it is trained. Here it reads what costs nothing:
the latents, the content's latents, the last true gradient and the share of steps that are done.
It is trained on every step that has a true gradient, and its answer is a correction to the last
one: untrained, it repeats that.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

_WIDTH = 32
_UPDATES = 4    # of the network at each true gradient
_RATE = 1e-3


class GradientNetwork(nn.Module):
    """Three convolutions from [B, 3 C + 1, H, W] to a gradient [B, C, H, W] of RMS about one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._channels = channels
        self.layers = nn.Sequential(
            nn.Conv2d(3 * channels + 1, _WIDTH, 3, padding=1), nn.SiLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1), nn.SiLU(),
            nn.Conv2d(_WIDTH, channels, 3, padding=1),
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(
        self, latents: torch.Tensor, content: torch.Tensor, last: torch.Tensor, done: float,
    ) -> torch.Tensor:
        """`last` is the last true gradient with an RMS of one, `done` the share of steps done."""
        time = torch.full_like(latents[:, :1], done)
        return last + self.layers(torch.cat([latents, content, last, time], dim=1))


class GradientPredictor:
    """The network with its training and its record, for one stylisation.

    `gpn_cosine` and `repeat_cosine` are the mean cosines, before each training on a true
    gradient, between that and the prediction, or the last true gradient: what the network is
    worth is what it adds to repeating.
    """

    def __init__(self, content: torch.Tensor, seed: int) -> None:
        """Begin with the content's latents [B, C, H, W] and a seed for the weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = GradientNetwork(content.shape[1]).to(content.device)
        self._optimizer = torch.optim.Adam(self._network.parameters(), _RATE)
        self._content = content
        self._last: torch.Tensor | None = None
        self._sums = {'gpn_cosine': 0.0, 'repeat_cosine': 0.0}
        self._compared = 0

    @property
    def ready(self) -> bool:
        """Whether there was a true gradient."""
        return self._last is not None

    @torch.no_grad()
    def predict(self, latents: torch.Tensor, done: float) -> torch.Tensor:
        """Return a gradient with the RMS of the last true one, sample by sample."""
        size = _rms(self._last)
        found = self._network(latents, self._content, self._last / size, done)
        return found * (size / _rms(found))

    def learn(self, latents: torch.Tensor, gradient: torch.Tensor, done: float) -> None:
        """Compare the prediction with a true gradient of these latents, and train on it."""
        if self._last is not None:
            self._compare(latents, gradient, done)
            self._train(latents, gradient / _rms(gradient), done)
        self._last = gradient

    def _compare(self, latents: torch.Tensor, gradient: torch.Tensor, done: float) -> None:
        self._sums['gpn_cosine'] += _cosine(self.predict(latents, done), gradient)
        self._sums['repeat_cosine'] += _cosine(self._last, gradient)
        self._compared += 1

    def _train(self, latents: torch.Tensor, wanted: torch.Tensor, done: float) -> None:
        last = self._last / _rms(self._last)
        with torch.enable_grad():
            for _ in range(_UPDATES):
                loss = F.mse_loss(self._network(latents, self._content, last, done), wanted)
                self._optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self._optimizer.step()

    def report(self) -> dict[str, float]:
        """Return the mean cosines; nothing before the second true gradient."""
        return {name: value / self._compared for name, value in self._sums.items()
                if self._compared}

    def state_dict(self) -> dict:
        """Return all that `load_state_dict` needs to continue."""
        return {'network': self._network.state_dict(), 'optimizer': self._optimizer.state_dict(),
                'last': self._last, 'sums': dict(self._sums), 'compared': self._compared}

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`."""
        self._network.load_state_dict(state['network'])
        self._optimizer.load_state_dict(state['optimizer'])
        self._last = None if state['last'] is None else state['last'].to(self._content.device)
        self._sums, self._compared = dict(state['sums']), state['compared']


def _rms(x: torch.Tensor) -> torch.Tensor:
    """Return the root mean square of each sample, [B, 1, 1, 1]; never zero."""
    size = x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return size.clamp_min(torch.finfo(x.dtype).tiny)


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return F.cosine_similarity(one.flatten(1), other.flatten(1)).mean().item()

"""What is pruned while it learns, as far as pruning has to know it."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Protocol

from torch import nn
from torch import Tensor
from torch.optim import Optimizer


class Pupil(Protocol):
    """A trainer whose network can be cut while it learns.

    `example` are arguments to trace the network with; `ignored` names layers all of whose outputs
    stay. `kept`, set from outside: by group, the channels of the dense network that are left.
    """

    step: int
    optimizer: Optimizer
    network: nn.Module
    example: tuple
    ignored: tuple[str, ...]
    kept: Mapping[str, Tensor]

    def advance(self) -> Mapping[str, float]:
        """Take one step; return what to log of it."""

    def adopt(self, network: nn.Module, follow: Callable[[nn.Module], nn.Module]) -> None:
        """Go on with `network`, which is what `follow` makes of the present one.

        The optimiser has been taken along; whatever else has the network's shape has to follow.
        """

    def judge(self, network: nn.Module) -> float:
        """Return how far a network is from the dense one, on the same images in one step."""

    def state(self) -> dict[str, Any]:
        """Return all that the next steps depend on, for a checkpoint."""

"""Learners by the method of a plan."""

from torch import nn

from muon_ad.prune.gradual import Pruning
from muon_ad.prune.layerdrop import LayerDrop
from muon_ad.prune.plan import Plan
from muon_ad.prune.pupil import Pupil


def learner(pupil: Pupil, dense: nn.Module, plan: Plan) -> Pruning | LayerDrop:
    """Return what prunes the pupil's network as planned; `dense` is what it was before any."""
    kind = LayerDrop if plan.method == 'layerdrop' else Pruning
    return kind(pupil, dense, plan)

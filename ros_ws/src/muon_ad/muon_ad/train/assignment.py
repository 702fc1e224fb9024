"""Which cells of the detector's output are to find which annotated object: SimOTA.

As in YOLOX (Ge et al., 2021, arXiv:2107.08430, section 2.1; simplified from OTA, Ge et al., 2021,
arXiv:2103.14259). Cells whose centre lies in an object's box, or within CENTRE cells of its
middle, are candidates. A candidate costs the cross-entropy of its class scores and OVERLAP times
-log(IoU) of its box; one that is not in both, box and middle, comes after all that are. An object
takes its k cheapest candidates, k the rounded sum of its TOP best overlaps, at least 1; a cell
that several objects want goes to the one it costs least for.

The result has the form of a teacher's view, so that the same losses serve both.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou

from muon_ad.metrics.detection import Truth
from muon_ad.networks.detector import boxes
from muon_ad.train.imitation import Targets

CENTRE = 2.5
OVERLAP = 3.0
TOP = 10
_AFTER_ALL = 1e5    # cost of a candidate that is not in both, box and middle


@torch.no_grad()
def assigned(raw: Tensor, truths: Sequence[Truth], places: Tensor, strides: Tensor) -> Targets:
    """Return what raw output [B, N, 5 + C] of a network should be, given what is in each image.

    Objectness is 1 for the cells assigned, whose label is the overlap of their present box with
    the object (IoU), for its class. Other cells with their centre in an ignored object have no
    say about objectness (`counted` 0).
    """
    found = boxes(raw, places, strides)
    centres = (places + 0.5) * strides
    views = [_one(*each, centres, strides) for each in zip(raw, found, truths, strict=True)]
    wanted, objectness, labels, counted = map(torch.stack, zip(*views, strict=True))
    return Targets(wanted, objectness, labels, raw.new_zeros(*raw.shape[:2], 0), counted)


def _one(
    raw: Tensor, found: Tensor, truth: Truth, centres: Tensor, strides: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return boxes [N, 4], objectness [N], labels [N, C] and counted [N] of one image."""
    wanted, labels = torch.zeros_like(found), torch.zeros_like(raw[:, 5:])
    objectness, counted = torch.zeros_like(raw[:, 4]), torch.ones_like(raw[:, 4])
    corners, ids = torch.as_tensor(truth.boxes), torch.as_tensor(truth.class_ids)
    ignored = torch.zeros(len(ids), dtype=torch.bool)
    if truth.ignored is not None:
        ignored = torch.as_tensor(truth.ignored)
    counted[_inside(centres, corners[ignored]).any(0)] = 0
    corners, ids = corners[~ignored], ids[~ignored]
    if len(corners):
        overlap = box_iou(corners, found)
        owner = _owners(raw, corners, ids, overlap, centres, strides)
        cell = (owner >= 0).nonzero()[:, 0]
        owner = owner[cell]
        wanted[cell], objectness[cell], counted[cell] = corners[owner], 1.0, 1.0
        labels[cell, ids[owner]] = overlap[owner, cell]
    return wanted, objectness, labels, counted


def _owners(
    raw: Tensor, corners: Tensor, ids: Tensor, overlap: Tensor, centres: Tensor, strides: Tensor,
) -> Tensor:
    """Return for each of N cells the index of its object, or -1."""
    middle = (corners[:, :2] + corners[:, 2:]) / 2
    in_box = _inside(centres, corners)
    distance = (centres[None] - middle[:, None]).abs().amax(2)
    near = distance < CENTRE * strides[:, 0]
    candidates = in_box | near
    scores = (raw[:, 5:].sigmoid() * raw[:, 4:5].sigmoid()).sqrt()
    labels = functional.one_hot(ids, scores.shape[1]).to(scores)
    objects, cells = len(corners), len(centres)
    wrong = functional.binary_cross_entropy(
        scores.expand(objects, -1, -1), labels[:, None].expand(-1, cells, -1), reduction='none')
    cost = wrong.sum(2) - OVERLAP * (overlap + 1e-8).log() + _AFTER_ALL * ~(in_box & near)
    cost = cost.masked_fill(~candidates, torch.inf)
    taken = torch.zeros_like(candidates)
    best = (overlap * candidates).topk(min(TOP, cells)).values.sum(1)
    for index, count in enumerate(best.round().clamp(min=1).int().tolist()):
        # An object outside of the grid, or thinner than a cell, may have fewer candidates.
        count = min(count, int(candidates[index].sum()))
        taken[index, cost[index].topk(count, largest=False).indices] = True
    owner = cost.masked_fill(~taken, torch.inf).argmin(0)
    return owner.masked_fill(~taken.any(0), -1)


def _inside(points: Tensor, corners: Tensor) -> Tensor:
    """Return which of N points lie in which of M boxes, bool [M, N]."""
    x, y = points.unbind(1)
    x_min, y_min, x_max, y_max = corners[..., None].unbind(1)
    return (x > x_min) & (x < x_max) & (y > y_min) & (y < y_max)

"""What a detector learns from its teacher's output: targets, their mirror image, losses."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from muon_ad.networks.detector import boxes
from muon_ad.networks.detector import STRIDES


@dataclass(frozen=True)
class Targets:
    """The teacher's view of a batch: boxes [B, N, 4], objectness [B, N], labels [B, N, C]."""

    boxes: Tensor
    objectness: Tensor
    labels: Tensor


def imitation_losses(
    raw: Tensor, targets: Targets, places: Tensor, strides: Tensor
) -> dict[str, Tensor]:
    """Compare a network's raw output [B, N, 5 + C] with its teacher's, cell by cell.

    Objectness is imitated everywhere; labels (binary cross-entropy) and boxes (generalised IoU,
    Rezatofighi et al. 2019) where the teacher sees an object, in proportion to how surely. All are
    sums over the batch, divided by the sum of the teacher's objectness.
    """
    present = targets.objectness > 0.05
    weight = targets.objectness[present]
    total = targets.objectness.sum().clamp(min=1)
    found = boxes(raw, places, strides)[present]
    objectness = functional.binary_cross_entropy_with_logits(
        raw[..., 4], targets.objectness, reduction='sum'
    )
    labels = functional.binary_cross_entropy_with_logits(
        raw[..., 5:][present], targets.labels[present], reduction='none'
    )
    overlap = generalized_box_iou_loss(found, targets.boxes[present])
    return {
        'objectness': objectness / total,
        'labels': (labels.sum(1) * weight).sum() / total,
        'boxes': 5 * (overlap * weight).sum() / total,
    }


def mirror(images: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
    """Mirror a batch [B, 3, H, W] from left to right, and its targets with it."""
    height, width = images.shape[2:]
    order = []
    start = 0
    for stride in STRIDES:
        rows, columns = height // stride, width // stride
        grid = torch.arange(start, start + rows * columns).view(rows, columns)
        order.append(grid.flip(1).flatten())
        start += rows * columns
    order = torch.cat(order)
    x_min, y_min, x_max, y_max = targets.boxes[:, order].unbind(-1)
    flipped = torch.stack([width - x_max, y_min, width - x_min, y_max], -1)
    return images.flip(3), Targets(flipped, targets.objectness[:, order], targets.labels[:, order])

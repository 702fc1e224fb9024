"""What a detector learns from its teacher's output: targets, their mirror image, losses.

Annotated pictures are learnt from in the same way (assignment.py).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from muon_ad.networks.detector import boxes
from muon_ad.networks.detector import STRIDES


@dataclass(frozen=True)
class Targets:
    """The teacher's view of a batch: boxes [B, N, 4], objectness [B, N], labels [B, N, C].

    `features` [B, N, F] is what its head works on. `counted` [B, N], where given, is 0 where
    objectness is not known.
    """

    boxes: Tensor
    objectness: Tensor
    labels: Tensor
    features: Tensor
    counted: Tensor | None = None


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
        raw[..., 4], targets.objectness, weight=targets.counted, reduction='sum'
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


def feature_loss(found: list[Tensor], features: Tensor) -> Tensor:
    """Compare features [B, F, h, w] of each level with the teacher's [B, N, F] by correlation.

    One minus Pearson's correlation of each channel over all cells of a level, summed over levels
    (Cao et al., PKD, 2022, arXiv:2207.02039): what counts is the pattern, not the scale. Nothing
    to compare costs 0.
    """
    if not found:
        return features.new_zeros(())
    sizes = [level.shape[2] * level.shape[3] for level in found]
    total = features.new_zeros(())
    for level, wanted in zip(found, features.split(sizes, 1), strict=True):
        level = _standard(level.flatten(2).transpose(1, 2).float())
        total = total + 1 - (level * _standard(wanted)).mean()
    return total


def _standard(values: Tensor) -> Tensor:
    """Shift and scale each channel of [B, N, F] to mean 0 and variance 1 over images and cells."""
    values = values - values.mean((0, 1))
    return values / (values.square().mean((0, 1)) + 1e-6).sqrt()


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
    parts = (targets.objectness, targets.labels, targets.features)
    return images.flip(3), Targets(flipped, *(part[:, order] for part in parts))

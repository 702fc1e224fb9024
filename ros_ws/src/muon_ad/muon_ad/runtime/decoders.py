"""From a network's raw output to candidate boxes: one pure function per output format.

A decoder takes the network's outputs, the Grid it works on and a score threshold, plus options
that `model.yaml` gives beside the decoder's name. It returns candidates in pixels of the network's
input, before suppression; those under the threshold are left out early, as most of them are.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from functools import partial
from inspect import Parameter
from inspect import signature
from typing import Any

import numpy as np


class DecoderError(ValueError):
    """A decoder is not known, or a network's output is not in the format of the decoder."""


@dataclass(frozen=True)
class Frame:
    """What a decoder must know of the network: input size in pixels and number of classes."""

    width: int
    height: int
    classes: int


@dataclass(frozen=True)
class Candidates:
    """Boxes float32 [N, 4] (corners, network pixels), scores float32 [N], class_ids int64 [N]."""

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray


def make_decoder(name: str, frame: Frame, options: dict[str, Any]) -> Callable[..., Candidates]:
    """Return the decoder `name`, to be called with (outputs, threshold).

    Raises DecoderError for a name or an option that does not exist.
    """
    if name not in DECODERS:
        raise DecoderError(f'decoder.name is {name!r}; expected one of {sorted(DECODERS)}')
    accepted = [
        key for key, value in signature(DECODERS[name]).parameters.items()
        if value.kind is Parameter.KEYWORD_ONLY
    ]
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise DecoderError(f'decoder {name} has no option {unknown}; it takes {accepted}')
    return partial(DECODERS[name], frame=frame, **options)


def yolox(
    outputs: list[np.ndarray],
    threshold: float,
    frame: Frame,
    *,
    strides: Sequence[int] = (8, 16, 32),
) -> Candidates:
    """Decode YOLOX's raw output [1, N, 5 + classes].

    Each row is x, y (offset from the cell, in cells), w, h (log of the size in cells), objectness
    and class probabilities; cells run row by row over the grids of `strides`, finest first
    (Ge et al., YOLOX, 2021, arXiv:2107.08430). Score = objectness * class probability.
    """
    cells, sizes = grid(frame.width, frame.height, tuple(strides))
    raw = _expect(outputs, 'yolox', (1, len(cells), 5 + frame.classes))[0]
    raw, class_ids, scores, rows = _confident(raw, threshold)
    centre = (raw[:, :2] + cells[rows]) * sizes[rows]
    half = np.exp(raw[:, 2:4]) * sizes[rows] / 2
    return Candidates(np.hstack([centre - half, centre + half]), scores, class_ids)


def fastestdet(outputs: list[np.ndarray], threshold: float, frame: Frame) -> Candidates:
    """Decode FastestDet's output [1, 5 + classes, rows, columns].

    Per cell: objectness; tanh^-1 of the centre's offset, in cells; logit of width and height, as
    a part of the image; class probabilities. Score = objectness * class probability
    (github.com/dog-qiuqiu/FastestDet, utils/tool.py).
    """
    raw = _expect(outputs, 'fastestdet', (1, 5 + frame.classes, None, None))[0]
    rows, columns = raw.shape[1:]
    cells, _ = grid(columns, rows, (1,))
    raw = raw.reshape(len(raw), -1).T
    raw, class_ids, scores, kept = _confident(raw, threshold, objectness=0)
    extent = np.float32([frame.width, frame.height])
    centre = (np.tanh(raw[:, 1:3]) + cells[kept]) * extent / np.float32([columns, rows])
    half = extent / (1 + np.exp(-raw[:, 3:5])) / 2
    return Candidates(np.hstack([centre - half, centre + half]), scores, class_ids)


def torchvision(outputs: list[np.ndarray], threshold: float, frame: Frame) -> Candidates:
    """Take boxes [D, 4], scores [D] and labels [D] from a graph that has decoded them itself.

    This is what torchvision's detection models return; rows that only fill the fixed number of
    detections have score 0.
    """
    if [value.ndim for value in outputs] != [2, 1, 1]:
        raise DecoderError(
            'decoder torchvision expects boxes [D, 4], scores [D] and labels [D]; the network '
            f'returns {[value.shape for value in outputs]}'
        )
    boxes, scores, labels = outputs
    wrong = (labels < 0) | (labels >= frame.classes)
    if wrong.any():
        raise DecoderError(
            f'the network returned label {labels[wrong][0]}; the package names {frame.classes} '
            'classes'
        )
    keep = (scores >= threshold) & (scores > 0)
    return Candidates(boxes[keep], scores[keep], labels[keep])


DECODERS: dict[str, Callable[..., Candidates]] = {
    'yolox': yolox,
    'fastestdet': fastestdet,
    'torchvision': torchvision,
}


def _expect(outputs: list[np.ndarray], name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return the only output, after checking its shape (None stands for any size)."""
    found = [value.shape for value in outputs]
    fits = len(found) == 1 and len(found[0]) == len(shape) and all(
        want is None or want == have for want, have in zip(shape, found[0], strict=True)
    )
    if not fits:
        raise DecoderError(
            f'decoder {name} expects one output of shape {list(shape)} for this input size and '
            f'number of classes; the network returns {found}'
        )
    return outputs[0]


@lru_cache(maxsize=16)
def grid(width: int, height: int, strides: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return each cell's column and row [N, 2] and its stride [N, 1], float32."""
    cells, sizes = [], []
    for stride in strides:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        sizes.append(np.full((columns.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(sizes).astype(np.float32)


def _confident(
    raw: np.ndarray, threshold: float, objectness: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of `raw` that reach the threshold, their class, score and row number."""
    # No class probability exceeds 1, so most cells are dismissed by their objectness alone.
    rows = np.flatnonzero(raw[:, objectness] >= threshold)
    class_ids = raw[rows, 5:].argmax(axis=1)
    scores = raw[rows, objectness] * raw[rows, 5 + class_ids]
    keep = scores >= threshold
    return raw[rows[keep]], class_ids[keep], scores[keep], rows[keep]

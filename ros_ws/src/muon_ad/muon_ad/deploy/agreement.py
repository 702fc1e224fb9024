"""Whether an exported ONNX file does what the PyTorch module does, on given inputs."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from muon_ad.runtime.engine import Engine


class DisagreementError(ValueError):
    """A file's outputs are not those of the module; the message holds the figure."""


@dataclass(frozen=True)
class Difference:
    """How far two outputs are apart over all inputs: in their own units, and of the range.

    `relative` is the greatest difference over the range (maximum - minimum) of torch's output.
    """

    output: str
    greatest: float
    mean: float
    relative: float


def compare(
    module: nn.Module, path: Path, feeds: Sequence[Mapping[str, np.ndarray]],
) -> list[Difference]:
    """Run both on every feed and return their differences, one for each output.

    A feed has an array for each input of the file, in the order of the module's arguments. Raises
    EngineError where the file does not load or takes other inputs, DisagreementError for outputs
    of another number or shape, or ones that are not finite.
    """
    if not feeds:
        raise ValueError('there is nothing to compare on: give at least one input')
    engine = Engine(path)
    pairs: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in engine.outputs]
    for feed in feeds:
        with torch.no_grad():
            expected = module(*(torch.from_numpy(np.array(value)) for value in feed.values()))
        expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
        found = engine.run(dict(feed))
        if [tuple(e.shape) for e in expected] != [f.shape for f in found]:
            raise DisagreementError(
                f'{path}: outputs are {[f.shape for f in found]}, those of torch '
                f'{[tuple(e.shape) for e in expected]}'
            )
        for pair, one, other in zip(pairs, expected, found, strict=True):
            pair.append((one.numpy().astype(np.float64), other.astype(np.float64)))
    return [_difference(name, pair, path)
            for name, pair in zip(engine.outputs, pairs, strict=True)]


def check(
    module: nn.Module, path: Path, feeds: Sequence[Mapping[str, np.ndarray]], *,
    greatest: float | None = None, mean: float | None = None,
) -> list[Difference]:
    """Return `compare`'s differences. Raises DisagreementError where one exceeds its limit.

    The limits are those of `Difference.greatest` and `Difference.mean`, in units of the output.
    """
    differences = compare(module, path, feeds)
    for difference in differences:
        for name, limit in (('greatest', greatest), ('mean', mean)):
            found = getattr(difference, name)
            if limit is not None and found > limit:
                raise DisagreementError(
                    f'{path}: the {name} difference of output {difference.output} from torch is '
                    f'{found:.4g}; expected at most {limit:g}'
                )
    return differences


def _difference(
    name: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]], path: Path,
) -> Difference:
    gaps = [np.abs(one - other) for one, other in pairs]
    greatest = max(float(gap.max(initial=0)) for gap in gaps)
    if not np.isfinite(greatest):
        raise DisagreementError(f'{path}: output {name} is not finite')
    span = max(float(np.ptp(one)) for one, _ in pairs)
    mean = float(np.mean([gap.mean() for gap in gaps]))
    return Difference(name, greatest, mean, greatest / span if span else float(greatest > 0))

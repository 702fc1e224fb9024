"""Which layers stay in FP32 so that the error at the output stays below a limit."""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from muon_ad.precision.error import PrecisionError


@dataclass(frozen=True)
class Choice:
    """What was chosen: layers kept, the worst first; each layer's error alone; error after each
    layer more that was kept, beginning with none.
    """

    kept: tuple[str, ...]
    alone: dict[str, float]
    steps: tuple[float, ...]


def choose(
    layers: Sequence[str],
    limit: float,
    error_alone: Callable[[str], float],
    error_keeping: Callable[[tuple[str, ...]], float],
) -> Choice:
    """Keep the layers that harm most, one after the other, until the error is at most `limit`.

    `error_alone` returns the error at the output with one layer quantised, `error_keeping` with
    all but some. Raises PrecisionError where one quantised layer is already too much.
    """
    if not limit > 0:
        raise PrecisionError(f'max_error is {limit}; expected more than 0')
    steps = [error_keeping(())]
    if steps[0] <= limit:
        return Choice((), {}, tuple(steps))
    alone = {name: error_alone(name)
             for name in tqdm(layers, desc='each layer alone', unit='layer')}
    worst = sorted(alone, key=alone.__getitem__, reverse=True)
    for count in range(1, len(worst)):
        steps.append(error_keeping(tuple(worst[:count])))
        if steps[-1] <= limit:
            return Choice(tuple(worst[:count]), alone, tuple(steps))
    raise PrecisionError(
        f'max_error is {limit}; the error is {steps[-1]:.3g} with one layer quantised. '
        'Expected a larger limit, or another calibration'
    )

"""Ranges of the activations, from running the fp32 network on real frames."""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization import create_calibrator
from onnxruntime.quantization.calibrate import TensorsData
from tqdm import tqdm

from muon_ad.precision.error import PrecisionError
from muon_ad.precision.rules import FOLLOWERS
from muon_ad.precision.rules import LAYERS

METHODS = {
    'percentile': CalibrationMethod.Percentile,
    'entropy': CalibrationMethod.Entropy,
    'minmax': CalibrationMethod.MinMax,
}
# Of all values: half of the rest is cut off at either end (Wu et al., arXiv:2004.09602).
PERCENTILE = 99.99
_BINS = 2048

Feeds = dict[str, np.ndarray]


class _One(CalibrationDataReader):
    """Hands out the feeds of one frame."""

    def __init__(self, feeds: Feeds) -> None:
        self._rest: Iterator[Feeds] = iter([feeds])

    def get_next(self) -> Feeds | None:
        return next(self._rest, None)


def calibrate(
    model: onnx.ModelProto, feeds: Sequence[Feeds], method: str = 'percentile',
    percentile: float = PERCENTILE,
) -> TensorsData:
    """Return the range of every activation that may be quantised.

    `minmax` takes all of it, `percentile` cuts off (100 - percentile) / 2 % at either end, and
    `entropy` takes the range whose 8-bit histogram diverges least from the full one (Migacz, 8-bit
    inference with TensorRT, 2017). Raises PrecisionError for another method, a percentile outside
    50 to 100, or no frames.
    """
    if method not in METHODS:
        raise PrecisionError(f'calibration is {method!r}; expected one of {list(METHODS)}')
    if not 50 < percentile <= 100:
        raise PrecisionError(f'percentile is {percentile}; expected more than 50, at most 100')
    if not feeds:
        raise PrecisionError('no frames to calibrate with')
    options: dict[str, object] = {'symmetric': False}
    if method == 'percentile':
        options |= {'percentile': percentile, 'num_bins': _BINS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'network.onnx')
        onnx.save(model, path)
        # Frame by frame: all activations of all frames would fill the memory.
        with _quiet():
            calibrator = create_calibrator(
                path, list(LAYERS + FOLLOWERS), str(Path(folder, 'augmented.onnx')),
                calibrate_method=METHODS[method], extra_options=options,
            )
        for each in tqdm(feeds, desc=f'calibrating ({method})', unit='frame'):
            with _quiet():
                calibrator.collect_data(_One(each))
        with _quiet():
            return calibrator.compute_data()


def _quiet() -> contextlib.AbstractContextManager:
    """The library prints where it is; the progress bar says it already."""
    return contextlib.redirect_stdout(io.StringIO())

"""Converts one network to FP16 or INT8 and measures what it costs."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnxruntime.quantization.calibrate import TensorsData

from muon_ad.paths import write_whole
from muon_ad.precision.calibration import calibrate
from muon_ad.precision.calibration import PERCENTILE
from muon_ad.precision.half import halve
from muon_ad.precision.layers import layer_errors
from muon_ad.precision.network import Network
from muon_ad.precision.qdq import finish
from muon_ad.precision.qdq import quantise
from muon_ad.precision.report import Report
from muon_ad.precision.rules import ASKED
from muon_ad.precision.rules import make_plan
from muon_ad.precision.rules import Plan
from muon_ad.precision.rules import SENSITIVITY
from muon_ad.precision.sensitivity import Choice
from muon_ad.precision.sensitivity import choose
from muon_ad.precision.timing import latencies_ms


@dataclass(frozen=True)
class Settings:
    """How to convert. `keep` names layers that stay in FP32; `max_error` (in the judge's unit)
    lets the sensitivity choose more of them.
    """

    precision: str = 'int8'
    target: str = 'cpu'
    calibration: str = 'percentile'
    percentile: float = PERCENTILE
    keep: tuple[str, ...] = ()
    max_error: float | None = None


def convert(network: Network, settings: Settings, out: Path) -> Report:
    """Write the converted network to `out` and return the report.

    Raises PrecisionError where it cannot be converted so.
    """
    if settings.precision == 'fp16':
        write_whole(out, halve(network.model).SerializeToString())
        return _report(network, settings, out)
    return _Int8(network, settings).convert(out)


class _Int8:
    """The steps of a static quantisation."""

    def __init__(self, network: Network, settings: Settings) -> None:
        self._network, self._settings = network, settings
        self._ranges: TensorsData = calibrate(
            network.model, network.calibration, settings.calibration, settings.percentile
        )

    def convert(self, out: Path) -> Report:
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder, 'candidate.onnx')
            choice = self._choose(scratch)
            plan = self._plan(choice.kept if choice else ())
            write_whole(out, self._finished(plan))
            report = _report(self._network, self._settings, out)
            report.kept, report.quantised, report.choice = plan.kept, plan.layers, choice
            report.layers = layer_errors(
                self._network.model, self._quantised(plan), self._network.held_out
            )
            paths = {'fp32': self._network.path, 'int8': out}
            if choice and choice.kept:
                write_whole(scratch, self._finished(self._plan()))
                paths['int8_all'] = scratch
            report.latency_ms = latencies_ms(paths, self._network.held_out)
        return report

    def _choose(self, scratch: Path) -> Choice | None:
        limit = self._settings.max_error
        if limit is None:
            return None

        def error(plan: Plan) -> float:
            write_whole(scratch, self._finished(plan))
            return self._network.judge.error(scratch)

        return choose(
            self._plan().layers, limit,
            lambda name: error(self._plan(only=name)), lambda kept: error(self._plan(kept)),
        )

    def _plan(self, sensitive: Sequence[str] = (), only: str | None = None) -> Plan:
        network, keep = self._network, self._settings.keep
        plan = make_plan(network.graph, network.picture, (*keep, *sensitive), ASKED, only)
        for name in sensitive:
            plan.kept[name] = SENSITIVITY
        return plan

    def _quantised(self, plan: Plan) -> onnx.ModelProto:
        network = self._network
        return quantise(network.model, self._ranges, plan, self._settings.target,
                        network.pixels_in, network.pixels_out)

    def _finished(self, plan: Plan) -> bytes:
        model = self._quantised(plan)
        if self._settings.target == 'cpu':
            model = finish(model, self._network.pixels_in, self._network.pixels_out)
        return model.SerializeToString()


def _report(network: Network, settings: Settings, out: Path) -> Report:
    return Report(
        name=out.stem, precision=settings.precision, target=settings.target,
        calibration=settings.calibration, frames=len(network.held_out),
        error=network.judge.error(out), unit=network.judge.unit, more=network.judge.more(out),
        bytes_before=network.path.stat().st_size, bytes_after=out.stat().st_size,
    )

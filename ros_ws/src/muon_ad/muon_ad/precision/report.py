"""What a conversion cost and gained: for the eye, as JSON, and as a picture."""

import json
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from muon_ad.chart import bar_chart
from muon_ad.paths import write_whole
from muon_ad.picture_files import write_picture
from muon_ad.precision.layers import LayerError
from muon_ad.precision.sensitivity import Choice


@dataclass
class Report:
    """The figures of one converted file.

    `error` is in `unit`; `latency_ms` maps what was timed (fp32, int8, and int8_all with no layer
    kept for its sensitivity) to milliseconds a frame on one thread of this machine.
    """

    name: str
    precision: str
    target: str
    calibration: str
    frames: int
    error: float
    unit: str
    more: dict[str, float]
    bytes_before: int
    bytes_after: int
    kept: dict[str, str] = field(default_factory=dict)
    layers: list[LayerError] = field(default_factory=list)
    choice: Choice | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)
    quantised: tuple[str, ...] = ()

    def show(self, console: Console) -> None:
        """Print it."""
        if self.layers:
            console.print(self._table())
        for reason in sorted(set(self.kept.values())):
            names = [name for name, why in self.kept.items() if why == reason]
            console.print(f'kept: {", ".join(names)}: {reason}', markup=False)
        more = ''.join(f', {name} {value:.4g}' for name, value in self.more.items())
        console.print(
            f'{self.name}: error {self.error:.3g} {self.unit}{more} on {self.frames} frames; '
            f'{self.bytes_before / 1e6:.2f} -> {self.bytes_after / 1e6:.2f} MB', markup=False,
        )
        if self.choice is not None and self.choice.kept:
            steps = ' -> '.join(f'{value:.3g}' for value in self.choice.steps)
            console.print(f'error with 0, 1, ... of the worst layers kept: {steps}')
        if self.latency_ms:
            times = ', '.join(f'{name} {value:.1f}' for name, value in self.latency_ms.items())
            console.print(f'ms a frame on one thread here: {times}')

    def _table(self) -> Table:
        alone = self.choice.alone if self.choice else {}
        table = Table('layer', 'kind', 'weights', 'SNR dB', *(['error alone'] if alone else []),
                      'precision')
        for each in self.layers:
            cells = [f'{alone.get(each.name, 0):.3g}'] if alone else []
            table.add_row(
                escape(each.name), each.kind, f'{each.weights:,}', f'{each.snr_db:.1f}', *cells,
                'int8' if each.name in self.quantised else 'fp32',
            )
        return table

    def write(self, folder: Path) -> list[Path]:
        """Write `<name>.json` and, of INT8, `<name>.png` into a folder; return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f'{self.name}.json']
        write_whole(paths[0], (json.dumps(asdict(self), indent=2) + '\n').encode())
        if self.layers:
            paths.append(folder / f'{self.name}.png')
            write_picture(paths[1], bar_chart(
                f'{self.name}: signal over quantisation noise (red: kept in FP32)',
                'dB at the output of each layer',
                {each.name: each.snr_db for each in self.layers},
                {each.name for each in self.layers if each.name not in self.quantised},
            ))
        return paths

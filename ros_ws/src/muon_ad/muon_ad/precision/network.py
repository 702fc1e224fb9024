"""A network to convert, with all that depends on what it is: frames, feeds, judge."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from muon_ad.precision.calibration import Feeds
from muon_ad.precision.feeds import bare_feeds
from muon_ad.precision.feeds import detection_feeds
from muon_ad.precision.feeds import style_feeds
from muon_ad.precision.frames import hold_out
from muon_ad.precision.graph import Graph
from muon_ad.precision.graph import prepared
from muon_ad.precision.judge import Judge
from muon_ad.precision.judge import NumberJudge
from muon_ad.precision.judge import PixelJudge
from muon_ad.precision.judge import ScoreJudge
from muon_ad.precision.pixels import pixel_input
from muon_ad.precision.pixels import pixel_output
from muon_ad.precision.pixels import Pixels
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import Variant


@dataclass
class Network:
    """An ONNX file, alone or as a variant of a package, and frames, uint8 [H, W, 3] RGB."""

    path: Path
    frames: Sequence[np.ndarray]
    package: ModelPackage | None = None
    variant: Variant | None = None

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The prepared model."""
        return prepared(self.path)

    @cached_property
    def graph(self) -> Graph:
        """The index of the prepared model."""
        return Graph(self.model)

    @cached_property
    def pixels_in(self) -> Pixels | None:
        """Where the network reads pixels."""
        return pixel_input(self.graph)

    @cached_property
    def pixels_out(self) -> Pixels | None:
        """Where the network makes pixels."""
        return pixel_output(self.graph)

    @property
    def picture(self) -> str | None:
        """The tensor that pixels are made of."""
        return self.pixels_out.tensor if self.pixels_out else None

    @cached_property
    def calibration(self) -> list[Feeds]:
        """What to calibrate with."""
        return self._feeds(hold_out(self.frames)[0])

    @cached_property
    def held_out(self) -> list[Feeds]:
        """What to measure on."""
        return self._feeds(hold_out(self.frames)[1])

    @cached_property
    def judge(self) -> Judge:
        """What compares results on the frames held out."""
        if self.package is None or self.variant is None:
            return NumberJudge(self.path, self.held_out)
        if self.package.task == 'style':
            return PixelJudge(self.path, self.held_out)
        return ScoreJudge(self.package, self.variant, hold_out(self.frames)[1])

    def _feeds(self, frames: Sequence[np.ndarray]) -> list[Feeds]:
        if self.package is None or self.variant is None:
            return bare_feeds(self.path, self.model, frames)
        make = style_feeds if self.package.task == 'style' else detection_feeds
        return make(self.package, self.variant, frames)

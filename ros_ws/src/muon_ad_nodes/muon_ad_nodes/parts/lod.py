"""Level of detail as a part of a node: muon_ad.runtime.lod chooses the variant of each frame."""

import time
from collections.abc import Callable
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Generic
from typing import TypeVar

import numpy as np
from diagnostic_msgs.msg import KeyValue
from sensor_msgs.msg import RegionOfInterest

from muon_ad.runtime.entropy import Region
from muon_ad.runtime.entropy import RegionError
from muon_ad.runtime.entropy import scene_entropy
from muon_ad.runtime.lod import CameraPeriod
from muon_ad.runtime.lod import LodController
from muon_ad.runtime.lod import LodSettings
from muon_ad.runtime.lod import measured_costs_ms
from muon_ad.runtime.lod import SceneDemand
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import Variant
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.models import warm_up
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.stamps import milliseconds

Result = TypeVar('Result')


def lod_parameters(plain: float, rich: float) -> tuple[Parameter, ...]:
    """Return the parameters of a node that can choose; `plain` and `rich` as in LodSettings."""
    return (
        Parameter(
            'lod.variants', [],
            'Variants of the model package among which each frame gets the best that is in time, '
            'best first; all are kept warm. `variant` is then the one to begin with. Empty: no '
            'choice.',
            kind='strings',
        ),
        Parameter(
            'lod.keep_rate', True,
            'Use a variant that is faster than the camera rather than drop frames. False: only '
            '`deadline_ms` counts.',
        ),
        Parameter(
            'lod.patience', LodSettings.patience,
            'Frames in a row in which a better variant must have been in time, before it is used.',
            range=(1, 10000),
        ),
        Parameter(
            'lod.margin', LodSettings.margin,
            'Share of the time that a better variant must leave unused in them.',
            range=(0.0, 0.9),
        ),
        Parameter(
            'lod.entropy', [plain, rich],
            'Two entropies of the scene, 0 (blank) to 1 (noise): up to the first the last variant '
            'is good enough, from the second on the best one is wanted. [0, 0]: always.',
            kind='numbers',
        ),
        Parameter(
            'lod.roi', [],
            'Where the entropy is measured: x, y, width and height in pixels, or in shares of the '
            'frame where none is above 1. Empty: everywhere. The topic `~/roi` overrides it until '
            'it says size 0.',
            kind='numbers',
        ),
    )


def chosen_variants(settings: SimpleNamespace, package: ModelPackage) -> list[Variant]:
    """Return the variants that a node is to load, best first.

    Raises ParameterError where `lod.variants` names one twice or lacks `variant`, PackageError
    where the package lacks one.
    """
    names = settings.lod_variants
    if not names:
        return [package.variant(settings.variant)]
    if len(set(names)) < len(names) or '' in names:
        raise ParameterError(
            f'parameter lod.variants is {names}; expected names, none empty and none twice'
        )
    if settings.variant and settings.variant not in names:
        raise ParameterError(
            f'parameter variant is {settings.variant!r}; expected one of lod.variants {names}, or '
            'nothing'
        )
    return [package.variant(name) for name in names]


def level_of_detail(
    node: SuiteNode, variants: Sequence[Variant], run: Callable[[int, np.ndarray], Result]
) -> 'LevelOfDetail[Result] | OneLevel[Result]':
    """Return what runs `variants` for the task of `node`, warm; see LevelOfDetail."""
    kind = LevelOfDetail if len(variants) > 1 else OneLevel
    return kind(node, variants, run)


class OneLevel(Generic[Result]):
    """Stands in for LevelOfDetail where there is nothing to choose."""

    def __init__(
        self,
        _node: SuiteNode,
        variants: Sequence[Variant],
        run: Callable[[int, np.ndarray], Result],
    ) -> None:
        self._run = run
        warm_up(lambda rgb: run(0, rgb), variants[0])

    def infer(self, rgb: np.ndarray, _age_ms: float) -> Result:
        """Run the variant for a frame, uint8 [H, W, 3] RGB."""
        return self._run(0, rgb)

    def published(self) -> None:
        """Take note of nothing."""

    def describe(self, status: TaskStatus) -> None:
        """Add nothing."""

    def destroy(self) -> None:
        """Leave nothing behind."""


class LevelOfDetail(Generic[Result]):
    """Chooses one of `variants` for each frame of a node's task, and runs it.

    `run(index, rgb)` is inference with a variant. Before the first frame each runs some times, to
    be warm and to learn what it costs. `infer` and `published` belong to the task's thread.
    Subscribes `~/roi` for `node`. Raises ParameterError for an entropy or region that is none.
    """

    def __init__(
        self,
        node: SuiteNode,
        variants: Sequence[Variant],
        run: Callable[[int, np.ndarray], Result],
    ) -> None:
        settings = node.settings
        self._node = node
        self._variants = variants
        self._run = run
        self._region = self._own_region = _region(settings)
        how = LodSettings(
            margin=settings.lod_margin, patience=settings.lod_patience,
            **_entropies(settings.lod_entropy),
        )
        begin = [variant.name for variant in variants].index(settings.variant or variants[0].name)
        self._controller = LodController(self._measure(), how, begin)
        self._demand = SceneDemand(len(variants), how)
        self._period = CameraPeriod()
        self._begun = self._chosen = self._inferred = 0.0
        self._subscription = node.create_subscription(
            RegionOfInterest, '~/roi', self._on_roi, qos.SENSOR
        )

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def infer(self, rgb: np.ndarray, age_ms: float) -> Result:
        """Run the variant for a frame, uint8 [H, W, 3] RGB, that is `age_ms` old."""
        self._begun = time.perf_counter()
        index = self._choose(rgb, age_ms)
        self._chosen = time.perf_counter()
        result = self._run(index, rgb)
        self._inferred = time.perf_counter()
        return result

    def published(self) -> None:
        """Take note that the result of the last frame has gone out."""
        infer_ms = milliseconds(self._chosen, self._inferred)
        whole_ms = milliseconds(self._begun, time.perf_counter())
        self._controller.observe(infer_ms, whole_ms - infer_ms)

    def describe(self, status: TaskStatus) -> None:
        """Add the variant in use, and what the choice is made of."""
        status.variant = self._variants[self._controller.level].name
        values = {
            'lod_variants': ' > '.join(variant.name for variant in self._variants),
            'lod_wanted': self._variants[self._demand.wanted].name,
            'lod_switches': str(self._controller.switches),
            'lod_entropy': f'{self._demand.entropy:.3f}',
            'lod_predicted_ms': f'{self._controller.predicted_ms:.1f}',
        }
        status.values += [KeyValue(key=key, value=value) for key, value in values.items()]

    def _measure(self) -> list[float]:
        blanks = [
            np.zeros((variant.height, variant.width, 3), np.uint8) for variant in self._variants
        ]
        costs = measured_costs_ms([
            lambda index=index, blank=blank: self._run(index, blank)
            for index, blank in enumerate(blanks)
        ])
        realtime.settle()
        return costs

    def _choose(self, rgb: np.ndarray, age_ms: float) -> int:
        monitor = self._node.monitor
        wanted = self._demand.update(scene_entropy(self._seen(rgb)))
        period_ms = self._period.update(self._begun, monitor.received_frames)
        return self._controller.choose(
            monitor.deadline_ms - age_ms if monitor.deadline_ms else float('inf'),
            period_ms if self._node.settings.lod_keep_rate else float('inf'),
            wanted,
        )

    def _seen(self, rgb: np.ndarray) -> np.ndarray:
        """Return the region of interest of a frame, or all of it."""
        region = self._region
        if region is None:
            return rgb
        part = region.of(rgb)
        if part.size:
            return part
        self._node.warn_once(
            f'region of interest {region} lies outside images of {rgb.shape[1]}x{rgb.shape[0]}; '
            'the entropy is that of the whole image'
        )
        return rgb

    def _on_roi(self, message: RegionOfInterest) -> None:
        if message.width and message.height:
            self._region = Region(
                message.x_offset, message.y_offset, message.width, message.height
            )
        else:
            self._region = self._own_region


def _region(settings: SimpleNamespace) -> Region | None:
    try:
        return Region.parse(settings.lod_roi)
    except RegionError as error:
        raise ParameterError(f'parameter lod.roi is {error}') from error


def _entropies(values: list[float]) -> dict[str, float]:
    if len(values) != 2 or not 0 <= values[0] <= values[1] <= 1:
        raise ParameterError(
            f'parameter lod.entropy is {values}; expected two numbers from 0 to 1, ascending'
        )
    return {'plain': values[0], 'rich': values[1]}

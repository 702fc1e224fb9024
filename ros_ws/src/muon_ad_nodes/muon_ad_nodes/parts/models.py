"""Model packages as node parameters: where they are, and how their engines are set up."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from muon_ad.runtime.engine import Engine
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.engine import PROVIDERS
from muon_ad.runtime.installed import find_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import PackageError
from muon_ad.runtime.package import Variant
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError

ENGINE = (
    Parameter(
        'variant', '',
        'Level of detail from the model package; empty takes its default.',
    ),
    Parameter(
        'providers', ['cpu'],
        'Execution providers in order of preference: tensorrt, cuda, cpu. One that is missing is '
        'skipped with a warning.',
        kind='strings',
    ),
    Parameter(
        'threads', 1,
        'Threads inside one operator of the network (CPU provider).',
        range=(1, 64),
    ),
    Parameter(
        'precision', 'fp32',
        'Precision that TensorRT may use.',
        choices=('fp32', 'fp16', 'int8'),
    ),
    Parameter(
        'dla_core', -1,
        'DLA core of a Jetson that runs the network through TensorRT; -1 uses the GPU.',
        range=(-1, 1),
    ),
    Parameter(
        'memory_limit_mb', 0,
        'Limit of the working memory of each network of this task, in MiB: on the CPU, where it '
        'is taken at once, of the CUDA arena and of the TensorRT workspace; 0: none.',
        range=(0, 1 << 20),
    ),
    Parameter(
        'deadline_ms', 100.0,
        'Age of a result, from source stamp to publication, above which it counts as a deadline '
        'miss; 0 counts none.',
        range=(0.0, 60000.0),
        dynamic=True,
    ),
)


def model_folder(name: str) -> Path:
    """Return the folder of a model package given by path, or by name among the installed ones.

    Raises ParameterError where there is neither.
    """
    try:
        return find_package(name)
    except PackageError as error:
        raise ParameterError(f'parameter {error}') from error


def engine_options(settings: SimpleNamespace) -> EngineOptions:
    """Return the engine options in a node's settings.

    Raises ParameterError for an unknown provider.
    """
    for name in settings.providers:
        if name not in PROVIDERS:
            raise ParameterError(
                f'parameter providers holds {name!r}; expected some of {sorted(PROVIDERS)}'
            )
    return EngineOptions(
        providers=tuple(settings.providers),
        threads=settings.threads,
        memory_limit_mb=settings.memory_limit_mb,
        precision=settings.precision,
        dla_core=settings.dla_core,
    )


def warm_up(infer: Callable[[np.ndarray], object], variant: Variant) -> None:
    """Run the network on blank frames, so that its threads and buffers are there before work."""
    blank = np.zeros((variant.height, variant.width, 3), np.uint8)
    for _ in range(3):
        infer(blank)


def describe_engine(
    status: TaskStatus, package: ModelPackage, variant: Variant, engine: Engine
) -> None:
    """Write what runs the network, and what was asked for in vain, into `status`."""
    status.model = package.name
    status.variant = variant.name
    status.execution_provider = engine.provider
    status.message = '; '.join(filter(None, (status.message, *engine.notes)))

"""Latency of networks on this machine, taking turns so that what slows it slows all of them."""

import time
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

from muon_ad.precision.calibration import Feeds
from muon_ad.runtime.engine import Engine
from muon_ad.runtime.engine import EngineOptions


def latencies_ms(
    paths: Mapping[str, Path], feeds: Sequence[Feeds], rounds: int = 9, threads: int = 1
) -> dict[str, float]:
    """Return the least time of each network for the first frame, in milliseconds.

    The least, since other work on the machine can only add to it.
    """
    engines = {name: Engine(path, EngineOptions(threads=threads)) for name, path in paths.items()}
    best = dict.fromkeys(engines, float('inf'))
    for _ in range(rounds + 1):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.run(feeds[0])
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: seconds * 1e3 for name, seconds in best.items()}

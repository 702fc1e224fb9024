"""The suite's detector at work beside what is measured, and the frames that both look at."""

import itertools
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from muon_ad.runtime.detection import Detector
from muon_ad.runtime.engine import EngineOptions
from muon_ad.runtime.package import load_package
from muon_ad.scene import Scene
from muon_ad.scene import View
from muon_ad_nodes.parts.pacing import Pacer

SIZE = (640, 480)
CAMERA_FPS = 30.0
CAMERA_FOV_DEG = 62.2
FRAMES = 8      # different ones, in turn
START_S = 60.0


def render(size: tuple[int, int]) -> list[np.ndarray]:
    """Return frames of the built-in scene, uint8 [H, W, 3] RGB."""
    scene = Scene(View.from_fov(*size, CAMERA_FOV_DEG))
    return [scene.rgb(index / CAMERA_FPS) for index in range(FRAMES)]


class DetectorLoad:
    """A detector in a process of its own, which searches frames at camera rate when told to."""

    def __init__(self, package: Path) -> None:
        context = multiprocessing.get_context('spawn')
        self._working, self._ready = context.Event(), context.Event()
        self._searched = context.Value('Q', 0)
        self._process = context.Process(
            target=_search, args=(package, self._working, self._ready, self._searched), daemon=True
        )
        self._process.start()
        if not self._ready.wait(START_S):
            raise TimeoutError(f'the detector {package} did not start within {START_S:g} s')

    @contextmanager
    def working(self) -> Iterator[Callable[[], float]]:
        """Let it work during the block; yields what returns its frames a second so far."""
        before, begun = self._searched.value, time.perf_counter()
        self._working.set()
        try:
            yield lambda: (self._searched.value - before) / (time.perf_counter() - begun)
        finally:
            self._working.clear()


def _search(package: Path, working: Event, ready: Event, searched: Synchronized) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is the parent's, which ends this
    frames = itertools.cycle(render(SIZE))
    detector = Detector(load_package(package), options=EngineOptions(threads=1))
    pacer, never = Pacer(CAMERA_FPS, skip=True), threading.Event()
    ready.set()
    while multiprocessing.parent_process().is_alive():
        if working.wait(1.0):
            pacer.wait(never)
            detector.detect(next(frames))
            searched.value += 1

"""One run of the demo: watch the suite, film it, and sum up."""

import json
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.live import Live

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.demo.inputs import Input
from muon_ad_nodes.demo.pictures import compose
from muon_ad_nodes.demo.pictures import Film
from muon_ad_nodes.demo.pictures import VIDEO_FPS
from muon_ad_nodes.demo.recorder import Recorder
from muon_ad_nodes.demo.suite import Suite
from muon_ad_nodes.demo.table import dropped
from muon_ad_nodes.demo.table import make_table
from muon_ad_nodes.demo.table import total_latency
from muon_ad_nodes.parts.executor import spinning

DEFAULT_DURATION_S = 30.0
STARTUP_LIMIT_S = 90.0
PRINT_PERIOD_S = 5
# Where the output goes to a file, whose width nobody can ask for.
LOG_WIDTH = 120
IMAGE_TOPICS = {'camera': '/camera/camera/color/image_raw', 'csi': '/csi/image_raw'}
CAMERA_NODES = {'camera': '/camera/camera', 'csi': '/csi/csi_camera'}
TASKS = ('style_transfer', 'object_detector')


class Demo:
    """Shows what a running suite does, and leaves video, contact sheet and summary in `out`."""

    def __init__(
        self, suite: Suite, chosen: Input, duration: float | None, out: Path, begun: float
    ) -> None:
        self._suite = suite
        self._input = chosen
        self._duration = duration
        if duration is None and not chosen.ends:
            self._duration = DEFAULT_DURATION_S
        self._out = out
        self._begun = begun
        self._console = Console()
        if not self._console.is_terminal:
            self._console = Console(width=LOG_WIDTH)
        self._tasks = tuple(
            name
            for camera in chosen.cameras
            for name in (CAMERA_NODES[camera], *(f'/{camera}/{task}' for task in TASKS))
        )

    def run(self) -> int:
        """Run to the end; return 0 only if every task delivered results."""
        film = Film(self._out / 'demo.mp4')
        topics = {camera: IMAGE_TOPICS[camera] for camera in self._input.cameras}
        with spinning(lambda: Recorder(topics, self._tasks)) as recorder:
            try:
                span = self._watch(recorder, film)
            finally:
                film.close(self._out / 'contact_sheet.png')
        self._suite.end()
        return self._conclude(recorder, span)

    def _watch(self, recorder: Recorder, film: Film) -> float:
        """Show and film until the time is up or the input ends; return the seconds filmed."""
        terminal = self._console.is_terminal
        live = Live(console=self._console, auto_refresh=False) if terminal else nullcontext()
        filmed_since = None
        tick = 0
        with live:
            while not self._over(recorder, filmed_since):
                if filmed_since is None and not self._silent(recorder):
                    filmed_since = time.monotonic()
                if filmed_since is not None:
                    film.add(compose({c: recorder.snapshot(c) for c in self._input.cameras}))
                if terminal and tick % (VIDEO_FPS // 2) == 0:
                    live.update(self._table(recorder, filmed_since), refresh=True)
                elif not terminal and tick % (PRINT_PERIOD_S * VIDEO_FPS) == 0:
                    self._console.print(self._table(recorder, filmed_since))
                tick += 1
                time.sleep(max(0.0, self._begun + tick / VIDEO_FPS - time.monotonic()))
            if not terminal:
                self._console.print(self._table(recorder, filmed_since))
        return time.monotonic() - filmed_since if filmed_since is not None else 0.0

    def _silent(self, recorder: Recorder) -> list[str]:
        return [task for task in self._tasks if task not in recorder.first_result]

    def _over(self, recorder: Recorder, filmed_since: float | None) -> bool:
        if not self._suite.running:
            return True
        if self._input.ends and recorder.input_ended():
            return True
        if filmed_since is None:
            return time.monotonic() - self._begun > STARTUP_LIMIT_S
        return self._duration is not None and time.monotonic() - filmed_since >= self._duration

    def _table(self, recorder: Recorder, filmed_since: float | None) -> object:
        if filmed_since is None:
            caption = f'{self._input.title}: starting, {time.monotonic() - self._begun:.0f} s'
        else:
            end = 'its end' if self._duration is None else f'{self._duration:g} s'
            caption = f'{self._input.title}: {time.monotonic() - filmed_since:.0f} s of {end}'
        return make_table(recorder.statuses, self._tasks, caption)

    def _conclude(self, recorder: Recorder, span: float) -> int:
        summary = {
            'input': self._input.title,
            'duration_s': round(span, 2),
            'first_stylised_s': self._first_stylised(recorder),
            'tasks': {
                task.lstrip('/'): summarise(recorder.statuses.get(task, TaskStatus()),
                                            recorder.variants[task])
                for task in self._tasks
            },
        }
        (self._out / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
        silent = self._silent(recorder)
        if silent:
            self._console.print(f'no results from {", ".join(silent)}; {self._suite.log} says:')
            for line in self._suite.complaints():
                self._console.print(line, markup=False, highlight=False)
            return 1
        for name in ('demo.mp4', 'contact_sheet.png', 'summary.json'):
            self._console.print(self._out / name, highlight=False)
        return 0

    def _first_stylised(self, recorder: Recorder) -> float | None:
        """Return the seconds from start to the first stylised frame."""
        moments = [at for task, at in recorder.first_result.items() if 'style' in task]
        return round(min(moments) - self._begun, 2) if moments else None


def summarise(status: TaskStatus, variants: Mapping[str, int]) -> dict:
    """Return the figures of one task for summary.json; null where nothing was measured.

    `variants` counts the seconds in which each level of detail was in use.
    """
    latency = total_latency(status)
    seconds = sum(variants.values())
    return {
        'frames': status.frames,
        'fps': round(status.fps, 2),
        'latency_ms': {
            'p50': round(latency.p50_ms, 2) if latency else None,
            'p99': round(latency.p99_ms, 2) if latency else None,
        },
        'dropped': dropped(status),
        'rss_mb': round(status.rss_mb, 1),
        'variants': {name: round(count / seconds, 3) for name, count in variants.items()},
        'variant_switches': next(
            (int(item.value) for item in status.values if item.key == 'lod_switches'), 0),
    }

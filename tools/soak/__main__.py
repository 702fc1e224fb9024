"""Runs the whole suite for a while, with random faults, and says whether it holds: `make soak`.

All nodes of the multitask launch file and frame_sync run as real processes, on simulated cameras
at 15 images a second. One after the other, drawn from the seed, come faults of the cameras
(docs/faults.md) and harm to any node's process: killed, stopped for good, stopped for a moment.
After each, results of every task must flow again within a deadline. Meanwhile memory, handles,
threads and shared memory of every process are sampled.

Fails, with status 1, on: growth within a life of a process (tools/soak/trend.py), results that do
not come back, a node that was given up, counters that do not add up, a suite that ends early, and
segments of shared memory that are left.

Writes summary.json, plot.png, events.log and suite.log to out/soak/.
"""

import argparse
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import psutil
import yaml
from rich.console import Console
from rich.progress import BarColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeRemainingColumn
from rich.table import Table

from muon_ad.faults.fault import DEPTH
from muon_ad.faults.fault import KINDS
from muon_ad_nodes.bringup.launch import find_file
from muon_ad_nodes.bringup.launch import Launch
from muon_ad_nodes.bringup.launch import load
from muon_ad_nodes.demo.suite import Suite
from muon_ad_nodes.parts.executor import spinning
from muon_ad_nodes.parts.shared_memory import remove_stale
from tools.soak import report
from tools.soak.faults import Event
from tools.soak.faults import events
from tools.soak.faults import FREEZE
from tools.soak.faults import HARM
from tools.soak.faults import KILL
from tools.soak.processes import ours
from tools.soak.processes import Sampler
from tools.soak.watch import TOPICS
from tools.soak.watch import Watch

OUT = Path('out') / 'soak'
# What each can suffer.
CAMERAS = {
    '/camera/camera': tuple(KINDS),
    '/csi/csi_camera': tuple(name for name, kind in KINDS.items() if kind.needs != DEPTH),
}
SUPERVISOR = '/supervisor'
# A rate that two cores sustain, and faults allowed.
CHANGED = {
    '/camera/camera': {
        'rgb_camera.color_profile': '640x480x15', 'depth_module.depth_profile': '424x240x15',
        'faults.enabled': True,
    },
    '/csi/csi_camera': {'fps': 15.0, 'faults.enabled': True},
    '/frame_sync': {'slop_ms': 40.0},
}
SAMPLE_S = 2.0
POLL_S = 0.05
START_S = 120.0
ANSWER_S = 10.0
DEADLINE_S = 60.0       # from the end of a fault: a frozen node is noticed after 10 s
FLOWS = 3               # results of each topic that show that all is well again
GAP_S = 1.0             # without a result: more counts as time without
AIM_PERCENT = 0.1       # of the paper, in 72 hours

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=120)


class SuiteEnded(Exception):
    """The suite is gone before its time."""


class Soak:
    """Does one fault after the other to a running suite, and keeps the record."""

    def __init__(self, suite: Suite, watch: Watch, say: Callable[[str], None]) -> None:
        self._suite = suite
        self._watch = watch
        self._say = say
        self._sampler = Sampler()
        self.record = report.Record(begun=time.monotonic())

    def wait_for_start(self) -> None:
        """Wait until every result flows. Raises SuiteEnded where that takes too long."""
        if self._flows_again(time.monotonic() + START_S) is None:
            silent = [topic for topic, count in self._watch.counts().items() if count < FLOWS]
            raise SuiteEnded(f'no results within {START_S:g} s on {", ".join(silent)}')
        self.record.begun = time.monotonic()

    def run(self, coming: Iterator[Event], seconds: float) -> None:
        """Do faults until the time is up."""
        end = self.record.begun + seconds
        while not self.record.failures:
            event = next(coming)
            self._sleep(min(event.gap_s, max(end - time.monotonic(), 0)))
            if time.monotonic() + event.for_s >= end:
                return
            self._do(event)

    def sample(self, stopping: threading.Event) -> None:
        """Sample every process until `stopping` is set; for a thread."""
        while not stopping.wait(SAMPLE_S):
            now = time.monotonic()
            for node, pid in self._watch.pids().items():
                sample = self._sampler.sample(pid)
                if sample is not None:
                    self.record.samples[node, pid].append((now, sample))
            self.record.segments.append((now, len(self._sampler.left())))

    def finish(self) -> None:
        """Take over what was heard."""
        self._watch.finish()
        self.record.ended = time.monotonic()
        begun = self.record.begun
        self.record.gaps = {
            topic: [(max(low, begun), high) for low, high in each.gaps if high > begun]
            for topic, each in self._watch.results.items()
        }
        self.record.results = self._watch.counts()
        self.record.failures += [
            *(f'given up: {name}' for name in sorted(self._watch.given_up)),
            *dict.fromkeys(self._watch.wrong),
        ]

    def segments_left(self) -> set[str]:
        """Return the suite's shared memory that exists still."""
        return self._sampler.left()

    def _do(self, event: Event) -> None:
        begun = time.monotonic()
        done = report.Done(str(event), event.kind, begun, begun)
        if event.kind in HARM:
            self._harm(event)
        else:
            done.refused = self._watch.inject(event.node, event.text, ANSWER_S)
            self._sleep(event.for_s)
        done.ended = time.monotonic()
        done.recovered = self._flows_again(done.ended + DEADLINE_S)
        self.record.done.append(done)
        if done.refused:
            self.record.failures.append(f'{event}: refused: {done.refused}')
        if done.recovered is None:
            self.record.failures.append(f'{event}: no results within {DEADLINE_S:g} s')
            self._say(f'{event}: [red]no results within {DEADLINE_S:g} s[/red]')
            return
        self._say(f'{event}: results after {done.recovered - done.ended:.1f} s')

    def _harm(self, event: Event) -> None:
        process = ours().get(self._watch.pids()[event.node])
        if process is None:
            raise SuiteEnded(f'{event.node} is not a process of ours')
        if event.kind == KILL:
            process.kill()
            return
        process.suspend()
        if event.kind != FREEZE:
            self._sleep(event.for_s)
            process.resume()

    def _flows_again(self, deadline: float) -> float | None:
        """Return when every topic had FLOWS more results; None: not before the deadline."""
        before = self._watch.counts()
        while time.monotonic() < deadline:
            now = self._watch.counts()
            if all(now[topic] >= count + FLOWS for topic, count in before.items()):
                return time.monotonic()
            self._sleep(POLL_S)
        return None

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            if not self._suite.running:
                raise SuiteEnded('the suite has ended')
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, POLL_S))


def prepare(out: Path) -> tuple[Launch, tuple[str, ...]]:
    """Write the parameter file; return what is launched, and the arguments for it."""
    out.mkdir(parents=True, exist_ok=True)
    shipped = find_file('multitask').parent / 'params' / 'x86.yaml'
    parameters = yaml.safe_load(shipped.read_text())
    for node, changed in CHANGED.items():
        parameters[node]['ros__parameters'].update(changed)
    path = (out / 'params.yaml').resolve()
    path.write_text(yaml.safe_dump(parameters))
    given = {'sync': 'true', 'params_file': str(path)}
    launch = load(find_file('multitask'), given, os.environ)
    return launch, ('multitask', *(f'{name}:={value}' for name, value in given.items()))


def soak(minutes: float, seed: int, out: Path) -> report.Record:
    """Run the suite for some minutes and return the record of it."""
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 101)))
    launch, arguments = prepare(out)
    os.environ.update(launch.nodes[0].environment)      # its transport is ours
    nodes = [node.full_name for node in launch.nodes]
    coming = events(seed, CAMERAS, [name for name in nodes if name != SUPERVISOR])
    stopping = threading.Event()
    with (
        (out / 'events.log').open('w') as log,
        _progress() as progress,
        ThreadPoolExecutor(1, thread_name_prefix='sampling') as pool,
        spinning(lambda: Watch(nodes, TOPICS, CAMERAS, GAP_S)) as watch,
    ):
        bar = progress.add_task('starting', total=minutes * 60)

        def say(text: str) -> None:
            at = (time.monotonic() - doing.record.begun) / 60
            log.write(f'{at:7.2f} min  {text}\n')
            log.flush()
            progress.console.print(f'{at:7.2f} min  {text}')
            progress.update(bar, completed=at * 60, description=f'{len(doing.record.done)} faults')

        suite = Suite(arguments, out / 'suite.log')
        doing = Soak(suite, watch, say)
        sampling: Future | None = None
        try:
            doing.wait_for_start()
            say('results of every task flow')
            sampling = pool.submit(doing.sample, stopping)
            doing.run(coming, minutes * 60)
        except SuiteEnded as error:
            doing.record.failures.append(str(error))
        except KeyboardInterrupt:
            say('interrupted')
        finally:
            doing.finish()
            stopping.set()
            _end(suite, doing.record)
            if sampling is not None:
                sampling.result()
    remove_stale()
    left = doing.segments_left()
    if left:
        doing.record.failures.append(f'left in /dev/shm: {", ".join(sorted(left))}')
    return doing.record


def _progress() -> Progress:
    return Progress(
        TextColumn('{task.description}'), BarColumn(), TimeRemainingColumn(), console=console,
    )


def _end(suite: Suite, record: report.Record) -> None:
    """End the suite and whatever of it is stopped."""
    for process in ours().values():
        try:
            if process.status() == psutil.STATUS_STOPPED:
                process.send_signal(signal.SIGCONT)
        except psutil.NoSuchProcess:
            continue
    status = suite.end()
    # The bringup tells of nodes that did not end by themselves, as those that were killed.
    if status and not any(each.kind in (KILL, FREEZE) for each in record.done):
        record.failures.append(f'the suite ended with status {status}; suite.log says why')


def conclude(record: report.Record, settings: dict, out: Path) -> int:
    """Show and write the findings; return the exit status."""
    grown = report.growth(record)
    record.failures += [
        f'{each["node"]} ({each["pid"]}): {each["figure"]} grew by {each["growth"]:.1f} in '
        f'{each["seconds"]} s' for each in grown if each['grows']
    ]
    shares = report.shares(record, GAP_S)
    recovered = report.recoveries(record.done)
    nodes = report.longest(record)
    summary = {
        'settings': settings,
        'seconds': round(record.seconds, 1),
        'faults': len(record.done),
        **{name: round(value, 4) for name, value in shares.items()},
        'aim_percent': AIM_PERCENT,
        'failures': record.failures,
        'results': record.results,
        'recovery': recovered,
        'nodes': nodes,
        'growth': grown,
        'segments_left': [count for _, count in record.segments],
    }
    (out / 'summary.json').write_text(json.dumps(summary, indent=1) + '\n')
    if record.samples:
        cv2.imwrite(str(out / 'plot.png'), report.picture(record)[..., ::-1])
    _show(record, nodes, recovered, shares, grown)
    console.print(f'all figures: {out}/summary.json, plot.png, events.log, suite.log')
    return int(bool(record.failures))


def _show(
    record: report.Record, nodes: dict, recovered: dict, shares: dict, grown: list[dict]
) -> None:
    table = Table(title='Longest life of each node, first to last sample', title_justify='left')
    for name in ('node', 'lives', 's', 'heap MB', 'RSS MB', 'handles', 'threads', 'segments'):
        table.add_column(name, justify='left' if name == 'node' else 'right')
    for node, each in nodes.items():
        spans = (
            '{:.0f} -> {:.0f}'.format(*each[figure])
            for figure in ('heap', 'rss', 'handles', 'threads', 'segments')
        )
        table.add_row(node, str(each['lives']), str(each['seconds']), *spans)
    console.print(table)
    table = Table(title='Faults, and seconds until all results flow', title_justify='left')
    for name in ('fault', 'times', 'median s', 'longest s'):
        table.add_column(name, justify='left' if name == 'fault' else 'right')
    for kind, each in recovered.items():
        times = ('-' if each[key] is None else f'{each[key]:.1f}' for key in ('median_s', 'max_s'))
        table.add_row(kind, str(each['times']), *times)
    console.print(table)
    console.print(
        f'{record.seconds / 60:.1f} minutes, {len(record.done)} faults, {len(grown)} trends judged'
    )
    console.print(
        f'time without results: {shares["without_results_percent"]:.2f} % in all, '
        f'{shares["unexplained_percent"]:.3f} % not by a fault (aim: under {AIM_PERCENT} %)'
    )
    for failure in record.failures:
        console.print(f'[red]FAILED[/red] {failure}', soft_wrap=True)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m tools.soak', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--minutes', type=float, default=5.0, help='how long; default 5')
    parser.add_argument('--seed', type=int, default=0, help='decides the faults; default 0')
    parser.add_argument('--out', type=Path, default=OUT, help=f'folder; default {OUT}')
    chosen = parser.parse_args()
    if not 0 < chosen.minutes < 30 * 24 * 60:
        parser.error(f'--minutes is {chosen.minutes:g}; expected above 0, and under a month')
    settings = {'minutes': chosen.minutes, 'seed': chosen.seed}
    return conclude(soak(chosen.minutes, chosen.seed, chosen.out), settings, chosen.out)


if __name__ == '__main__':
    sys.exit(main())

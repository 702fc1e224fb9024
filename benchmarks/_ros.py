"""ROS in benchmarks: the environments, a node that spins, and the suite as it is launched."""

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from typing import TypeVar

from _common import OUT
from _common import parser

from muon_ad_nodes.bringup.launch import find_file
from muon_ad_nodes.bringup.launch import Launch
from muon_ad_nodes.bringup.launch import load
from muon_ad_nodes.bringup.parse import LaunchError
from muon_ad_nodes.demo.suite import Suite
from muon_ad_nodes.parts.shared_memory import remove_stale

LAUNCH_FILE = 'multitask'
STYLE_TASK = 'style_transfer'
FIRST_FRAME = 'first frame'
LIMIT_S = 90.0
GRACE_S = 10.0
POLL_S = 0.02
Found = TypeVar('Found')
# What decides how images travel. It comes from the launch file, or not at all.
TRANSPORT_VARIABLES = (
    'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE',
    'FASTDDS_BUILTIN_TRANSPORTS', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOCALHOST_ONLY',
    'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_', 'OMP_WAIT_POLICY', 'OMP_NUM_THREADS',
)


def isolate() -> None:
    """Drop from our environment what changes the transport, and take a domain of our own.

    Nobody else's nodes may disturb the measurement, nor it them.
    """
    for name in TRANSPORT_VARIABLES:
        os.environ.pop(name, None)
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 101)))


def launch(arguments: Mapping[str, str] | None = None) -> Launch:
    """Return what the multitask launch file comes to; each node has the suite's environment."""
    return load(find_file(LAUNCH_FILE), arguments or {}, os.environ)


def parse_with_launch_arguments(description: str) -> tuple[argparse.Namespace, dict[str, str]]:
    """Return the options of a benchmark that launches the suite, and the launch arguments."""
    options = parser(description)
    options.add_argument('arguments', nargs='*', metavar='name:=value')
    chosen = options.parse_args()
    isolate()
    pairs = [word.partition(':=') for word in chosen.arguments]
    if not all(name and separator for name, separator, _ in pairs):
        options.error(f'{chosen.arguments}: expected launch arguments of the form name:=value')
    given = {name: value for name, _, value in pairs}
    try:
        launch(given)
    except LaunchError as error:
        options.error(str(error))
    return chosen, given


@dataclass(frozen=True)
class Event:
    """What was heard of a task at `at` (seconds since the epoch): its state, or FIRST_FRAME."""

    task: str
    state: str
    pid: int
    at: float


class Watched:
    """A suite started at `begun` (seconds since the epoch), and what is heard of its tasks."""

    def __init__(self, suite: Suite, begun: float, told: IO[str]) -> None:
        self.begun = begun
        self._suite = suite
        self._heard: list[Event] = []
        # A thread, as a pipe cannot be read with a time limit. It ends with the pipe.
        threading.Thread(target=self._hear, args=(told,), daemon=True).start()

    def wait(self, find: Callable[[list[Event]], Found | None], what: str) -> Found:
        """Return what is found in what was heard. Raises RuntimeError after LIMIT_S."""
        while (found := find(list(self._heard))) is None:
            if not self._suite.running or time.time() - self.begun > LIMIT_S:
                said = '\n'.join(self._suite.complaints())
                raise RuntimeError(f'waited in vain for {what}; {self._suite.log} says:\n{said}')
            time.sleep(POLL_S)
        return found

    def _hear(self, told: IO[str]) -> None:
        for line in told:
            self._heard.append(Event(**json.loads(line)))


@contextmanager
def watched_suite(arguments: Mapping[str, str], name: str) -> Iterator[Watched]:
    """Yield the suite, just started and listened to; end it and leave nothing behind.

    Its output is in out/bench/<name>.log.
    """
    OUT.mkdir(parents=True, exist_ok=True)
    evaluated = launch(arguments)
    words = (f'{key}:={value}' for key, value in arguments.items())
    try:
        with _listener(evaluated) as told:
            begun = time.time()
            suite = Suite((LAUNCH_FILE, *words), OUT / f'{name}.log')
            try:
                yield Watched(suite, begun, told)
            finally:
                suite.end()
    finally:
        remove_stale()


@contextmanager
def _listener(evaluated: Launch) -> Iterator[IO[str]]:
    """Yield what a listening process prints; it uses the transport of the suite."""
    script = Path(__file__).with_name('_listen.py')
    process = subprocess.Popen(
        [sys.executable, str(script), *(node.full_name for node in evaluated.nodes)],
        env=evaluated.nodes[0].environment, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,     # Ctrl-C is ours
    )
    try:
        if process.stdout.readline() != 'listening\n':
            raise RuntimeError(f'ended before it listened: {" ".join(process.args)}')
        yield process.stdout
    finally:
        process.stdin.close()       # which is how it is told to end
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

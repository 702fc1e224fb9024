"""Processes that die or hang under the supervisor, as real processes over real DDS."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from launched import Graph
from launched import NODES
from launched import parameter_file
from sensor_msgs.msg import Image
from support import wait_until

from muon_ad_msgs.msg import DetectionArray

SECTION = 'Processes under the supervisor'
HANG_S = 3.0
# One node of each kind, and what it publishes.
VICTIMS = {
    '/camera/camera': (Image, '/camera/camera/color/image_raw'),
    '/camera/style_transfer': (Image, '/camera/style/image'),
    '/camera/object_detector': (DetectionArray, '/camera/detections'),
    '/csi/csi_camera': (Image, '/csi/image_raw'),
    '/frame_sync': (Image, '/synced/color/image_raw'),
}
PARAMETERS = {
    '/camera/camera': {
        'rgb_camera.color_profile': '160x120x30', 'depth_module.depth_profile': '160x120x30',
    },
    '/csi/csi_camera': {'width': 160, 'height': 120},
    '/camera/style_transfer': {'variant': 'small'},
    '/csi/style_transfer': {'variant': 'small'},
    '/supervisor': {'hang_s': HANG_S, 'startup_s': 10.0},
}


@dataclass(frozen=True)
class Blow:
    """What is done to a process, and what /diagnostics says of the node."""

    command: str
    number: signal.Signals
    trouble: str
    counter: str

    def row(self, name: str) -> tuple[str, tuple[str]]:
        """What is injected, and the column of the table."""
        said = f'"{self.trouble}", `{self.counter}` rises; started again'
        return f'`{self.command}` {name}', (said,)


KILL = Blow('kill -9', signal.SIGKILL, 'the process died', 'restarts')
STOP = Blow('kill -STOP', signal.SIGSTOP, 'hung: no status', 'hangs')
SUPERVISOR = (
    '`kill -9` /supervisor', ('nothing until launch starts it again; all others run on',)
)
ROWS = [SUPERVISOR, *(blow.row(name) for blow in (KILL, STOP) for name in VICTIMS)]


class Watched:
    """The graph, and the results of each victim."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.results = {
            name: graph.listen(kind, topic) for name, (kind, topic) in VICTIMS.items()
        }
        self.diagnostics = graph.listen(DiagnosticArray, '/diagnostics')

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition."""
        self.graph.wait(condition, 90, what)

    def told(self, name: str) -> dict[str, str]:
        """What /diagnostics says of a node."""
        newest = self.diagnostics[-1].status if self.diagnostics else ()
        return {
            value.key: value.value
            for status in newest if status.name.endswith(f' {name}') for value in status.values
        }

    def forget(self) -> None:
        """Forget all results so far."""
        for results in self.results.values():
            results.clear()

    def pid(self, name: str) -> int:
        """The newest process of a node."""
        return self.graph.statuses[name].pid


@pytest.fixture(scope='module')
def watched(negative_package, one_box_package, tmp_path_factory):
    """The whole graph with tiny networks, all its tasks at work."""
    folder = tmp_path_factory.mktemp('graph')
    graph = Graph(
        folder / 'log.txt', f'style_model:={negative_package}',
        f'detector_model:={one_box_package}', 'sync:=true', parameter_file(folder, PARAMETERS),
        nodes=(*NODES, '/frame_sync'),
    )
    watched = Watched(graph)
    watched.wait(lambda: all(watched.results.values()), 'results of every task')
    watched.wait(lambda: len(graph.statuses) == len(NODES) + 1, 'every status')
    watched.wait(lambda: all(map(watched.told, VICTIMS)), 'every node in /diagnostics')
    yield watched
    pids = {status.pid for status in graph.statuses.values()}
    graph.close()
    # Those that a supervisor had started again see within a second that nobody is left.
    wait_until(lambda: not any(map(is_alive, pids)), 20, f'the end of {pids}')


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    return Path(f'/proc/{pid}').exists()


def strike(watched: Watched, blow: Blow, names: list[str]) -> dict[str, float]:
    """Do it to these nodes; return after how many seconds each had a result of a new process."""
    old = {name: watched.pid(name) for name in names}
    counted = {name: int(watched.told(name)[blow.counter]) for name in names}
    for pid in old.values():
        os.kill(pid, blow.number)
    struck = time.monotonic()
    watched.wait(
        lambda: all(
            watched.pid(name) != old[name] and watched.graph.statuses[name].state == 'active'
            for name in names
        ),
        f'{names} to come back',
    )
    watched.forget()
    back: dict[str, float] = {}

    def all_back() -> bool:
        for name in names:
            if name not in back and watched.results[name]:
                back[name] = time.monotonic() - struck
        return len(back) == len(names)

    watched.wait(all_back, f'results of {names}')
    watched.wait(
        lambda: all(int(watched.told(name)[blow.counter]) > counted[name] for name in names),
        f'{blow.counter} of {names} to rise',
    )
    for name in names:
        assert watched.told(name)['last trouble'].startswith(blow.trouble)
    return back


def test_every_kind_of_node_that_is_killed_comes_back(watched, fault_table):
    back = strike(watched, KILL, list(VICTIMS))
    for name in VICTIMS:
        fault_table.add(SECTION, *KILL.row(name), back[name])


@pytest.mark.parametrize('name', VICTIMS)
def test_every_kind_of_node_that_hangs_comes_back(watched, fault_table, name):
    seconds = strike(watched, STOP, [name])[name]
    fault_table.add(SECTION, *STOP.row(name), seconds)


def test_a_killed_supervisor_comes_back_and_the_others_run_on(watched, fault_table):
    """Also those that it had started again."""
    old = {name: watched.pid(name) for name in watched.graph.statuses}
    os.kill(old['/supervisor'], signal.SIGKILL)
    struck = time.monotonic()
    watched.wait(lambda: watched.pid('/supervisor') != old['/supervisor'], 'the supervisor')
    watched.forget()
    watched.diagnostics.clear()
    watched.wait(lambda: watched.diagnostics and all(watched.results.values()), 'all at work')
    seconds = time.monotonic() - struck
    watched.wait(
        lambda: all(watched.told(name).get('state') == 'active' for name in VICTIMS),
        'every node in /diagnostics',
    )
    assert {name: watched.pid(name) for name in VICTIMS} == {name: old[name] for name in VICTIMS}
    fault_table.add(SECTION, *SUPERVISOR, seconds)

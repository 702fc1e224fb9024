"""Every node through its states, again and again: nothing is lost on the way, nothing is kept."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import cycles
import pytest
from cycles import CASES
from cycles import do
from cycles import Feeder
from cycles import work
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from muon_ad_nodes.document import NODES
from tools.soak.trend import trend

# Over the cycles that are measured: what the nodes do not come near, and a leak is far above.
TOLERATED = {
    'memory (kB)': 1000, 'objects': 30, 'handles': 2, 'threads': 2, 'mapped shared memory': 2,
}  # fmt: skip


def test_no_node_is_left_out():
    assert {case.node for case in CASES.values()} == set(NODES)


@pytest.fixture
def paths(negative_package, one_box_package, tmp_path) -> tuple[Path, Path, Path]:
    """What the parameters of a case are made of."""
    cycles.write_inputs(tmp_path)
    return negative_package, one_box_package, tmp_path


def grown(name: str, paths: tuple[Path, Path, Path], *leak: str) -> dict[str, list[int]]:
    """Take a node through a hundred cycles in a process of its own; return what has grown."""
    run = subprocess.run(
        [sys.executable, cycles.__file__, name, *map(str, paths), *leak],
        capture_output=True, text=True, timeout=cycles.LIMIT_S + 60,
    )
    assert run.returncode == 0, f'{run.returncode}: {run.stderr[-8000:]}'
    seen = json.loads(run.stdout)
    assert set(seen) == set(TOLERATED)
    return {
        figure: values for figure, values in seen.items()
        if trend(cycles.MEASURED, values, TOLERATED[figure]).grows
    }


@pytest.mark.parametrize('name', CASES)
def test_a_hundred_cycles_leave_nothing_behind(name, paths):
    found = grown(name, paths)
    # What is forgotten is forgotten each time; a step of the heap falls where chance has it.
    again = grown(name, paths) if found else {}
    assert not found.keys() & again.keys(), (found, again)


@pytest.mark.parametrize('leak, figure', [
    ('array', 'memory (kB)'),
    ('thread', 'threads'),
    ('handle', 'handles'),
    ('segment', 'mapped shared memory'),
])  # fmt: skip
def test_what_a_node_forgot_would_be_noticed(leak, figure, paths):
    assert figure in grown('video', paths, leak)


@pytest.mark.parametrize('name', [name for name, case in CASES.items() if case.images])
def test_input_is_ignored_while_inactive(name, bench, paths):
    """Nothing is counted, nothing worked on, nothing kept, for later neither."""
    case = CASES[name]
    node = cycles.make(bench, case, *paths)
    delivered = {}
    feeder = Feeder(bench, case)
    do(node, 'configure', 'activate')
    work(bench, feeder, node)
    do(node, 'deactivate', 'cleanup', 'configure')
    for subscription in node.subscriptions:
        if topic := next((t for t in case.images + case.infos
                          if subscription.topic_name == f'/{t}'), None):
            delivered[topic] = 0
            subscription.callback = _counting(subscription.callback, delivered, topic)
    assert set(delivered) == set(case.images + case.infos)
    feeder.wait_for_listeners()

    def all_delivered() -> bool:
        feeder.feed()
        return min(delivered.values()) >= 5

    bench.wait(all_delivered, 'input at every topic')
    assert node.active is False
    monitor = node.monitor
    assert (monitor.received_frames, monitor.frames, monitor.dropped_newer_frames) == (0, 0, 0)

    def kept() -> list:
        gc.unfreeze()
        gc.collect()
        return [held for held in gc.get_objects()
                if type(held) in (Image, CameraInfo) and held.header.frame_id == 'fed']

    bench.wait(lambda: not kept(), 'the node to let go of what it was given')
    do(node, 'activate')
    work(bench, feeder, node)


def _counting(callback, delivered, topic):
    def count(message):
        callback(message)
        delivered[topic] += 1

    return count

"""Nodes that die or hang under the supervisor, as real processes over real DDS."""

import os
import signal
import time

import pytest
from faults.processes import HANG_S
from faults.processes import KILL
from faults.processes import SECTION
from faults.processes import STOP
from faults.processes import strike
from faults.processes import Watched
from launched import Graph
from launched import NODES
from launched import parameter_file
from sensor_msgs.msg import Image

from muon_ad_msgs.msg import DetectionArray

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
SUPERVISOR = (
    '`kill -9` /supervisor', ('nothing until launch starts it again; all others run on',)
)
BOTH = (
    '`kill -9` /supervisor and /camera/object_detector at once',
    ('nothing until launch starts the supervisor again; that starts the other',),
)
ROWS = [SUPERVISOR, BOTH, *(blow.row(name) for blow in (KILL, STOP) for name in VICTIMS)]


@pytest.fixture(scope='module')
def watched(negative_package, one_box_package, tmp_path_factory):
    """The whole graph with tiny networks, all its tasks at work."""
    folder = tmp_path_factory.mktemp('graph')
    watched = Watched(
        Graph(
            folder / 'log.txt', f'style_model:={negative_package}',
            f'detector_model:={one_box_package}', 'sync:=true',
            parameter_file(folder, PARAMETERS), nodes=(*NODES, '/frame_sync'),
        ),
        VICTIMS,
    )
    watched.wait_for_work()
    yield watched
    watched.close()


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


def test_a_node_that_was_killed_with_the_supervisor_comes_back(watched, fault_table):
    """No process of it is left to tell how it was started."""
    old = {name: watched.pid(name) for name in ('/supervisor', '/camera/object_detector')}
    for pid in old.values():
        os.kill(pid, signal.SIGKILL)
    struck = time.monotonic()
    watched.wait(lambda: all(watched.pid(name) != old[name] for name in old), 'both')
    watched.forget()
    watched.wait(lambda: all(watched.results.values()), 'results of all')
    fault_table.add(SECTION, *BOTH, time.monotonic() - struck)

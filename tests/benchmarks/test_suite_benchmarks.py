"""What the benchmarks of memory and start conclude from what they hear and read."""

import memory
import pytest
import startup
from _ros import Event
from _ros import FIRST_FRAME

MAPS = """\
7f1a00000000-7f1a00100000 r-xp 00000000 08:01 11 /usr/lib/libc.so.6
7f1a00200000-7f1a00300000 r-xp 00000000 08:01 12 /venv/site-packages/{}
7f1a00400000-7f1a00500000 rw-s 00000000 00:19 13 /dev/shm/fastdds_0123456789abcdef
"""


@pytest.mark.parametrize('file', [
    'torch/lib/libtorch_cpu.so',
    'torch/_C.cpython-311-x86_64-linux-gnu.so',
    'libtorch.so.2.13',
])  # fmt: skip
def test_torch_is_seen_in_the_maps(file):
    assert memory.loaded(MAPS.format(file), 'torch')


@pytest.mark.parametrize('file', [
    'onnxruntime/capi/libonnxruntime.so.1',
    'torchlight/core.txt',
    'blowtorch/core.so',
])  # fmt: skip
def test_other_files_are_not_torch(file):
    assert not memory.loaded(MAPS.format(file), 'torch')


def test_this_process_shows_what_it_has_loaded():
    import numpy  # noqa: F401

    with open('/proc/self/maps') as maps:
        text = maps.read()
    assert memory.loaded(text, 'numpy')
    assert not memory.loaded(text, 'no_such_package')


def test_nodes_with_torch_are_named():
    clean, dirty = {'torch': False, 'onnxruntime': True}, {'torch': True, 'onnxruntime': True}
    camera = {'torch': False, 'onnxruntime': False}
    found = {'/csi/csi_camera': camera, '/csi/style_transfer': dirty, '/a/object_detector': clean}
    assert memory.check(found) == ['/csi/style_transfer']


def test_a_search_that_finds_nothing_at_all_is_an_error():
    nothing = {'torch': False, 'onnxruntime': False}
    with pytest.raises(RuntimeError, match='/csi/style_transfer'):
        memory.check({'/csi/style_transfer': nothing})


def heard(*events: tuple[str, str]) -> list[Event]:
    pids = {}
    return [
        Event(task, state, pids.setdefault(task, 100 + len(pids)), at)
        for at, (task, state) in enumerate(events)
    ]


def test_nodes_are_active_by_their_last_status():
    events = heard(
        ('/a', 'unconfigured'), ('/a', 'active'), ('/b', 'active'), ('/a', FIRST_FRAME),
    )  # fmt: skip
    assert memory.active(events[:2], ('/a', '/b')) is None
    assert memory.active(events, ('/a', '/b')) == {'/a': 100, '/b': 101}
    fallen = [*events, Event('/b', 'inactive', 101, 9.0)]
    assert memory.active(fallen, ('/a', '/b')) is None


def test_stages_are_those_of_the_task_that_delivers_first():
    events = heard(
        ('/slow', 'unconfigured'), ('/slow', 'inactive'), ('/fast', 'unconfigured'),
        ('/fast', 'unconfigured'), ('/fast', 'inactive'), ('/slow', 'active'),
        ('/fast', 'active'), ('/fast', FIRST_FRAME), ('/slow', FIRST_FRAME),
    )  # fmt: skip
    found = startup.stages(events)
    assert {stage: event.at for stage, event in found.items()} == {
        'status': 2, 'configured': 4, 'active': 6, FIRST_FRAME: 7,
    }
    assert startup.stages(events[:7]) is None


def test_a_state_that_was_not_heard_is_covered_by_the_next():
    found = startup.stages(heard(('/a', 'active'), ('/a', FIRST_FRAME)))
    assert found['status'] == found['configured'] == found['active']


def test_a_frame_before_its_status_waits_for_it():
    events = heard(('/a', 'unconfigured'), ('/a', FIRST_FRAME), ('/a', 'active'))
    assert startup.stages(events[:2]) is None
    assert startup.stages(events)['active'].at == 2

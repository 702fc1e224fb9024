"""A node that streams keeps to the memory it has: nothing grows, and no page is asked for anew."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import steady
import yaml
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from muon_ad_nodes.bringup.launch import find_file
from muon_ad_nodes.bringup.launch import load

# Until the segments of DDS are filled once, and the windows of the monitor full.
WARM_UP = 600
MEASURED = 400
# Minor faults an image. One whose memory is given back and asked for anew costs 225.
MOST_FAULTS = 1.0
# Bytes an image; a message takes 300 without its pixels. Over 20 000 images it is less than one,
# but the first of them fill Python's free lists.
MOST_GROWTH = 200


@pytest.fixture
def package(negative_package, tmp_path):
    """The network that negates, at the size of the camera's images."""
    folder = shutil.copytree(negative_package, tmp_path / 'package')
    content = yaml.safe_load((folder / 'model.yaml').read_text())
    content['variants']['small'].update(height=steady.SIZE[0], width=steady.SIZE[1])
    (folder / 'model.yaml').write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


@pytest.fixture
def start():
    """Start a role of steady.py with the environment of the launch file; it ends with the test."""
    environment = {
        **load(find_file('multitask'), {}, os.environ).nodes[0].environment,
        'PYTHONPATH': ':'.join(sys.path),
    }
    started = []

    def start(*words: str) -> subprocess.Popen:
        pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
        started.append(subprocess.Popen(
            [sys.executable, steady.__file__, *words], env=environment, text=True, **pipes
        ))
        return started[-1]

    yield start
    for process in reversed(started):
        process.stdin.close()
        process.terminate()     # the node ends in order, and leaves no shared memory
        assert process.wait(30) in (0, -15)
        process.stdout.close()


def answer(process: subprocess.Popen, line: object = '') -> str:
    print(line, file=process.stdin, flush=True)
    return process.stdout.readline()


def activate(bench) -> None:
    client = bench.probe.create_client(ChangeState, '/style_transfer/change_state')
    assert client.wait_for_service(30)
    for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        reply = client.call_async(ChangeState.Request(transition=Transition(id=number)))
        bench.wait(reply.done, f'transition {number}')
        assert reply.result().success


@pytest.mark.parametrize('encoding', ['rgb8', 'jpeg'])
def test_a_streaming_node_takes_no_more_memory(bench, package, start, encoding):
    transport = 'compressed' if encoding == 'jpeg' else 'raw'
    node = start(
        'node', 'style_transfer', '--ros-args', '-p', f'model:={package}',
        '-p', f'image_transport:={transport}',
    )
    feeder = start('feed', encoding)
    activate(bench)
    answer(node)        # from now on Python's memory is traced
    assert answer(feeder, WARM_UP) == 'sent\n'
    before = json.loads(answer(node))
    assert answer(feeder, MEASURED) == 'sent\n'
    after = json.loads(answer(node))
    used = {name: (after[name] - before[name]) / MEASURED for name in before}
    assert used['faults'] < MOST_FAULTS and used['traced'] < MOST_GROWTH, used

"""The launch file that plays a bag: it agrees with the nodes, and the tasks see its images."""

import importlib
from pathlib import Path

import pytest
import tiny_bags
from launched import Graph
from launched import parameter_file

from muon_ad.bags import BagWriter
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes import main
from muon_ad_nodes.bringup.launch import declared_everywhere
from muon_ad_nodes.bringup.launch import Launch
from muon_ad_nodes.bringup.launch import load
from muon_ad_nodes.bringup.launch import Node
from muon_ad_nodes.bringup.parse import LaunchError
from muon_ad_nodes.bringup.parse import parse
from muon_ad_nodes.parts.lifecycle import COMMON
from muon_ad_nodes.parts.stamps import nanoseconds

FOLDER = Path(__file__).resolve().parents[2] / 'launch'
FILE = FOLDER / 'replay.launch.xml'
NODES = ('/camera/style_transfer', '/camera/object_detector', '/bag_player', '/supervisor')


@pytest.fixture
def installed(tmp_path, monkeypatch) -> None:
    """Put the files where an installation has them."""
    share, programs = tmp_path / 'share' / 'muon_ad_nodes', tmp_path / 'lib' / 'muon_ad_nodes'
    index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages'
    for folder in (share, programs, index):
        folder.mkdir(parents=True)
    (index / 'muon_ad_nodes').touch()
    (share / 'launch').symlink_to(FOLDER)
    for name in NODES:
        program = name.rpartition('/')[2]
        assert callable(getattr(main, program))
        (programs / program).touch(0o755)
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))


def evaluate(**arguments: str) -> dict[str, Node]:
    """The nodes of the launch file by name."""
    launch: Launch = load(FILE, {'bag': 'b', **arguments}, {})
    return {node.full_name: node for node in launch.nodes}


def inline(node: Node) -> dict:
    """The parameters that the launch file itself gives a node."""
    return {k: v for entry in node.parameters if isinstance(entry, dict) for k, v in entry.items()}


@pytest.mark.parametrize('detection', ['true', 'false'])
def test_the_tasks_run_in_the_time_of_the_bag_and_are_waited_for(installed, detection):
    nodes = evaluate(detection=detection, image='/x/image', bag='a b.mcap')
    expected = [name for name in NODES if detection == 'true' or 'detector' not in name]
    assert list(nodes) == expected
    assert inline(nodes['/supervisor'])['nodes'] == expected[:-1]
    tasks = [node for name, node in nodes.items() if name.startswith('/camera')]
    for node in tasks:
        assert inline(node)['use_sim_time'] is True
        assert dict(node.remaps)['image_raw'] == '/x/image'
    player = inline(nodes['/bag_player'])
    assert player['clock_hz'] > 0 and 'use_sim_time' not in player
    assert player['wait_for'] == [f'/x/image={len(tasks)}'] and player['path'] == 'a b.mcap'


def test_it_names_what_the_nodes_declare(installed):
    for node in evaluate(rate='2', loop='true', start_offset_s='1', style='007').values():
        module = importlib.import_module(f'muon_ad_nodes.nodes.{node.executable.name}')
        known = {parameter.name: parameter for parameter in (*module.PARAMETERS, *COMMON)}
        for name, value in inline(node).items():
            if name != 'use_sim_time':
                known[name].check(value)


def test_arguments_are_described_and_the_bag_is_needed(installed):
    for argument in declared_everywhere(parse(FILE)):
        assert argument.description != 'no description given', argument.name
        if argument.default in ('true', 'false'):
            assert argument.choices == ('true', 'false'), argument.name
    with pytest.raises(LaunchError, match='bag'):
        load(FILE, {}, {})


def test_the_images_of_a_bag_go_through_the_tasks(tmp_path, negative_package, one_box_package):
    with BagWriter(tmp_path / 'bag') as writer:
        for number in range(20):
            time_ns = tiny_bags.START_NS + number * 100_000_000
            image = tiny_bags.image(number, time_ns, (160, 120))
            writer.write('/front', tiny_bags.IMAGE, time_ns, image)
    running = Graph(
        tmp_path / 'log.txt', f'bag:={tmp_path / "bag"}', 'image:=/front',
        f'style_model:={negative_package}', f'detector_model:={one_box_package}',
        parameter_file(tmp_path, {'/camera/style_transfer': {'variant': 'small'}}),
        file=str(FILE), nodes=NODES[:-1],
    )

    def done() -> bool:
        statuses = running.statuses
        ended = '/bag_player' in statuses and statuses['/bag_player'].message
        tasks = [statuses[name] for name in NODES[:2] if name in statuses]
        return (
            ended and ended.startswith('end of input') and len(tasks) == 2
            and all(is_last(task) for task in tasks)
        )

    def is_last(task: TaskStatus) -> bool:
        late = nanoseconds(task.header.stamp) > tiny_bags.START_NS + 1_800_000_000
        return late and task.frames + task.dropped_newer == task.received

    try:
        running.wait(done, 90, 'all images to be played and accounted for')
        assert running.statuses['/bag_player'].message == 'end of input after 20 messages'
        for name in NODES[:2]:
            status = running.statuses[name]
            # Ages are told in the time of the bag, which is years ago.
            total, = (stage for stage in status.stages if stage.name == 'total')
            assert abs(total.p50_ms) < 60_000
            # On a machine that is busy DDS may replace an image that nobody has fetched yet.
            assert 15 <= status.received <= 20
        assert running.interrupt() == 0
    finally:
        running.close()

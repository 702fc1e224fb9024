"""The shipped launch and parameter files agree with the code, for every platform."""

import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from muon_ad.runtime.package import load_package
from muon_ad_nodes import main
from muon_ad_nodes.bringup.launch import declared_everywhere
from muon_ad_nodes.bringup.launch import Launch
from muon_ad_nodes.bringup.launch import load
from muon_ad_nodes.bringup.launch import Node
from muon_ad_nodes.bringup.parse import LaunchError
from muon_ad_nodes.bringup.parse import parse

ROOT = Path(__file__).resolve().parents[2]
FILES = ('multitask.launch.xml', 'style_only.launch.xml')
STYLIZER = 'stylizer.launch.xml'
PLATFORMS = ('x86', 'jetson_orin_nx', 'jetson_agx_orin')
JETSONS = PLATFORMS[1:]
EXECUTABLES = (
    'realsense_camera', 'csi_camera', 'bag_player', 'style_transfer', 'object_detector',
    'stylizer', 'frame_sync', 'supervisor',
)  # fmt: skip
CAMERA = ['/camera/camera', '/camera/style_transfer', '/camera/object_detector']
GIVEN_TO_ALL = {'use_sim_time': False, 'realtime.enabled': False}
CSI = ['/csi/csi_camera', '/csi/style_transfer', '/csi/object_detector']


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch) -> Path:
    """Put the files where an installation has them; return the share folder."""
    share = tmp_path / 'share' / 'muon_ad_nodes'
    programs = tmp_path / 'lib' / 'muon_ad_nodes'
    index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages'
    for folder in (share, programs, index):
        folder.mkdir(parents=True)
    (index / 'muon_ad_nodes').touch()
    (share / 'launch').symlink_to(ROOT / 'launch')
    for name in EXECUTABLES:
        assert callable(getattr(main, name))
        (programs / name).touch(0o755)
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    return share


def evaluate(file: str, environment: dict[str, str] | None = None, **arguments: str) -> Launch:
    """Evaluate one of the launch files."""
    return load(ROOT / 'launch' / file, arguments, environment or {})


def names(launch: Launch) -> list[str]:
    """The full names of the nodes, in the order of their start."""
    return [node.full_name for node in launch.nodes]


def inline(node: Node) -> dict:
    """The parameters that the launch file itself gives a node."""
    return {k: v for entry in node.parameters if isinstance(entry, dict) for k, v in entry.items()}


def of(launch: Launch, name: str) -> Node:
    """The node of that full name."""
    return next(node for node in launch.nodes if node.full_name == name)


def sections(platform: str) -> dict[str, dict]:
    """Parameters by full node name, as the platform's file gives them."""
    document = yaml.safe_load((ROOT / 'launch' / 'params' / f'{platform}.yaml').read_text())
    return {name: section['ros__parameters'] for name, section in document.items()}


@pytest.mark.parametrize('platform', PLATFORMS)
@pytest.mark.parametrize('file', FILES)
@pytest.mark.parametrize(
    'realsense, csi', [('true', 'true'), ('true', 'false'), ('false', 'true')]
)
def test_nodes_and_what_the_supervisor_watches(platform, file, realsense, csi):
    launch = evaluate(file, platform=platform, realsense=realsense, csi=csi)
    wanted = CAMERA * (realsense == 'true') + CSI * (csi == 'true')
    if file == 'style_only.launch.xml':
        wanted = [name for name in wanted if 'detector' not in name]
    assert names(launch) == [*wanted, '/supervisor']
    watched = inline(launch.nodes[-1])['nodes']
    assert sorted(watched) == sorted(wanted)
    # Results before images, so that no first image is lost.
    assert all(
        watched.index(task) < watched.index(camera)
        for camera in ('/camera/camera', '/csi/csi_camera')
        for task in watched
        if task.split('/')[1] == camera.split('/')[1] and task != camera and camera in watched
    )


def test_detection_can_be_left_out():
    launch = evaluate('multitask.launch.xml', detection='false')
    assert names(launch) == names(evaluate('style_only.launch.xml'))


@pytest.mark.parametrize('realsense, csi, streams', [
    ('true', 'true', ['color', 'depth', 'csi']),
    ('true', 'false', ['color', 'depth']),
    ('false', 'true', None),
])  # fmt: skip
def test_pairs_on_request_where_there_is_something_to_pair(realsense, csi, streams):
    launch = evaluate('multitask.launch.xml', sync='true', realsense=realsense, csi=csi)
    watched = inline(launch.nodes[-1])['nodes']
    if streams is None:
        assert '/frame_sync' not in (*names(launch), *watched)
        return
    assert watched[0] == '/frame_sync'
    node = of(launch, '/frame_sync')
    assert inline(node) == {**GIVEN_TO_ALL, 'streams': streams}
    color, depth = '/camera/camera/color', '/camera/camera/aligned_depth_to_color'
    assert dict(node.remaps) == {
        'color/image_raw': f'{color}/image_raw',
        'color/camera_info': f'{color}/camera_info',
        'depth/image_raw': f'{depth}/image_raw',
        'depth/camera_info': f'{depth}/camera_info',
    }


@pytest.mark.parametrize(
    'platform, realsense, csi',
    [('x86', 'simulated', 'test_pattern'), *((name, 'device', 'argus') for name in JETSONS)],
)
def test_the_platform_decides_the_sources_unless_told(platform, realsense, csi):
    launch = evaluate('multitask.launch.xml', platform=platform)
    assert inline(of(launch, '/camera/camera'))['source'] == realsense
    assert inline(of(launch, '/csi/csi_camera'))['source'] == csi
    told = evaluate('multitask.launch.xml', platform=platform, csi_source='folder')
    assert inline(of(told, '/csi/csi_camera'))['source'] == 'folder'


def test_arguments_arrive(installed):
    launch = evaluate(
        'multitask.launch.xml', serial_no='012345', csi_source='video', csi_path='a b.mp4',
        csi_loop='false', csi_device='/dev/video1', style='007', style_model='s',
        detector_model='d', use_sim_time='true', realtime='true', log_level='debug',
        fastdds_profile='p.xml',
    )  # fmt: skip
    given = {'use_sim_time': True, 'realtime.enabled': True}
    assert inline(of(launch, '/camera/camera')) == {
        **given, 'source': 'simulated', 'serial_no': '012345',
    }  # fmt: skip
    assert inline(of(launch, '/csi/csi_camera')) == {
        **given, 'source': 'video', 'path': 'a b.mp4', 'device': '/dev/video1',
        'loop': False,
    }  # fmt: skip
    for camera in ('camera', 'csi'):
        style = inline(of(launch, f'/{camera}/style_transfer'))
        assert style == {**given, 'model': 's', 'style': '007'}
        detector = inline(of(launch, f'/{camera}/object_detector'))
        assert detector == {**given, 'model': 'd'}
    for node in launch.nodes:
        assert node.arguments == ('--ros-args', '--log-level', 'debug')
        assert node.environment['FASTDDS_DEFAULT_PROFILES_FILE'] == 'p.xml'
        assert installed / 'launch' / 'params' / 'x86.yaml' in node.parameters


def test_only_the_supervisor_is_started_again_by_launch():
    """It starts the others again itself."""
    delays = {node.full_name: node.respawn_delay for node in evaluate(FILES[0]).nodes}
    assert delays.pop('/supervisor') == 2.0
    assert set(delays.values()) == {None}


def test_parameters_of_ones_own(tmp_path):
    own = tmp_path / 'own.yaml'
    own.touch()
    launch = evaluate('style_only.launch.xml', params_file=str(own))
    assert all(own in node.parameters for node in launch.nodes)
    with pytest.raises(LaunchError, match='no parameter file at /nope.yaml'):
        evaluate('style_only.launch.xml', params_file='/nope.yaml')


def test_topics_are_those_of_realsense_ros():
    launch = evaluate('multitask.launch.xml')
    color, depth = '/camera/camera/color', '/camera/camera/aligned_depth_to_color'
    assert dict(of(launch, '/camera/style_transfer').remaps) == {
        'image_raw': f'{color}/image_raw'
    }
    assert dict(of(launch, '/camera/object_detector').remaps) == {
        'image_raw': f'{color}/image_raw',
        'camera_info': f'{color}/camera_info',
        'aligned_depth/image_raw': f'{depth}/image_raw',
        'aligned_depth/camera_info': f'{depth}/camera_info',
    }
    # On the CSI camera all names meet in its namespace.
    assert not any(of(launch, name).remaps for name in CSI)


@pytest.mark.parametrize(
    'distribution, older', [('humble', True), ('jazzy', True), ('kilted', False), (None, False)]
)
def test_environment(installed, distribution, older):
    environment = {'ROS_DISTRO': distribution} if distribution else {}
    launch = evaluate('multitask.launch.xml', {**environment, 'OMP_NUM_THREADS': '8'})
    profile = str(installed / 'launch' / 'fastdds.xml')
    expected = {
        **environment,
        'FASTDDS_DEFAULT_PROFILES_FILE': profile,
        'MALLOC_MMAP_THRESHOLD_': '33554432',
        'MALLOC_TRIM_THRESHOLD_': '268435456',
        'OMP_WAIT_POLICY': 'PASSIVE',
        'OMP_NUM_THREADS': '1',
        **({'FASTRTPS_DEFAULT_PROFILES_FILE': profile} if older else {}),
    }
    assert all(node.environment == expected for node in launch.nodes)


@pytest.mark.parametrize('file', (*FILES, STYLIZER))
def test_every_argument_is_described_and_every_switch_has_choices(file):
    arguments = list(declared_everywhere(parse(ROOT / 'launch' / file)))
    assert arguments
    for argument in arguments:
        assert argument.description != 'no description given', argument.name
        if argument.default in ('true', 'false'):
            assert argument.choices == ('true', 'false'), argument.name


@pytest.mark.parametrize('supervised', ['true', 'false'])
def test_the_stylizer_stands_beside_what_streams(installed, supervised):
    launch = evaluate(
        STYLIZER, backbone='007', device='cpu', threads='2', queue_length='1',
        supervised=supervised, log_level='debug',
    )  # fmt: skip
    assert names(launch) == ['/stylizer', '/stylizer_supervisor'][:1 + (supervised == 'true')]
    assert not set(names(launch)) & set(names(evaluate('multitask.launch.xml')))
    stylizer = launch.nodes[0]
    known = declared('stylizer')
    given = inline(stylizer)
    assert given == {
        'use_sim_time': False, 'realtime.policy': 'batch', 'realtime.nice': 10,
        'backbone': '007', 'attention': 'auto', 'device': 'cpu', 'threads': 2,
        'queue_length': 1,
    }
    for name in given.keys() - {'use_sim_time'}:
        known[name].check(given[name])
    profile = str(installed / 'launch' / 'fastdds.xml')
    assert stylizer.environment == {'FASTDDS_DEFAULT_PROFILES_FILE': profile}
    if supervised == 'true':
        assert inline(launch.nodes[1])['nodes'] == ['/stylizer']


def test_the_stylizer_can_be_included_and_leaves_the_environment_of_others_alone(tmp_path):
    file = tmp_path / 'both.launch.xml'
    file.write_text(
        f'<launch><include file="$(find-pkg-share muon_ad_nodes)/launch/{STYLIZER}"/>'
        '<node pkg="muon_ad_nodes" exec="csi_camera" name="other" output="screen"/></launch>'
    )
    launch = load(file, {}, {})
    assert names(launch) == ['/stylizer', '/stylizer_supervisor', '/other']
    assert launch.nodes[-1].environment == {}


def declared(executable: str) -> dict:
    """The parameters that a node declares, by name."""
    from muon_ad_nodes.parts.lifecycle import COMMON

    module = importlib.import_module(f'muon_ad_nodes.nodes.{executable}')
    return {parameter.name: parameter for parameter in (*module.PARAMETERS, *COMMON)}


@pytest.mark.parametrize('platform', PLATFORMS)
def test_parameter_files_name_what_the_nodes_declare(platform):
    launch = evaluate('multitask.launch.xml', platform=platform, sync='true')
    given = sections(platform)
    assert set(given) <= set(names(launch))
    for node in launch.nodes:
        known = declared(node.executable.name)
        values = given.get(node.full_name, {})
        for name, value in values.items():
            assert name in known, f'{node.full_name} has no parameter {name}'
            known[name].check(value)
        # The launch file's own come last: they would silently win over the file's.
        assert not set(values) & set(inline(node))


@pytest.mark.parametrize('platform', PLATFORMS)
def test_parameter_files_name_variants_of_the_shipped_models(platform):
    models = {'style_transfer': 'style_default', 'object_detector': 'detector_default'}
    for name, section in sections(platform).items():
        if 'variant' in section:
            package = load_package(ROOT / 'models' / models[name.split('/')[-1]])
            assert section['variant'] in package.variants, name


@pytest.mark.parametrize('source', ['argus', 'v4l2', 'video', 'folder', 'test_pattern'])
@pytest.mark.parametrize('realsense_source', ['simulated', 'device'])
def test_launch_files_name_what_the_nodes_declare(source, realsense_source):
    arguments = {'csi_source': source, 'realsense_source': realsense_source, 'sync': 'true'}
    for node in evaluate('multitask.launch.xml', **arguments).nodes:
        known = declared(node.executable.name)
        for name, value in inline(node).items():
            if name != 'use_sim_time':
                known[name].check(value)


@pytest.mark.parametrize('platform', PLATFORMS)
def test_one_switch_for_all_scheduling_classes(platform):
    given = sections(platform)
    for switch in ('true', 'false', None):
        told = {} if switch is None else {'realtime': switch}
        launch = evaluate('multitask.launch.xml', platform=platform, sync='true', **told)
        wanted = switch == 'true' or (switch is None and platform in JETSONS)
        for node in launch.nodes[:-1]:
            assert inline(node)['realtime.enabled'] == wanted
            assert given[node.full_name]['realtime.policy'] in ('fifo', 'batch')
        assert 'realtime.enabled' not in inline(launch.nodes[-1])


@pytest.mark.parametrize('platform', JETSONS)
def test_the_papers_multitask_set_up(platform):
    given = sections(platform)
    for camera, task in (('/camera/camera', 'camera'), ('/csi/csi_camera', 'csi')):
        style, detector = given[f'/{task}/style_transfer'], given[f'/{task}/object_detector']
        nodes = (given[camera], style, detector)
        assert [node['realtime.policy'] for node in nodes] == ['fifo'] * 3
        priorities = [node['realtime.priority'] for node in nodes]
        assert priorities == sorted(priorities, reverse=True) and len(set(priorities)) == 3
        assert detector['precision'] == 'int8' and detector['dla_core'] in (0, 1)
        assert style['providers'] == detector['providers'] == ['tensorrt', 'cuda', 'cpu']
    limits = [section.get('memory_limit_mb', 0) for section in given.values()]
    assert sum(limits) == 4608
    assert given['/camera/camera']['rgb_camera.color_profile'].endswith('x30')
    assert given['/csi/csi_camera']['fps'] == 30.0


def test_the_profile_gives_a_process_a_segment_of_32_mib():
    chatter = ROOT / 'tests' / 'muon_ad_nodes' / 'chatter.py'
    profile = str(ROOT / 'launch' / 'fastdds.xml')
    environment = {**os.environ, 'FASTDDS_DEFAULT_PROFILES_FILE': profile}
    # Kilted adds transports of its own for it.
    environment.pop('ROS_AUTOMATIC_DISCOVERY_RANGE', None)
    words = [sys.executable, str(chatter)]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == 'ready\n'
            maps = Path(f'/proc/{process.pid}/maps').read_text()
            own = {name for name in re.findall(r'/dev/shm/fast\w+_[0-9a-f]{16}', maps)}
            locks = {os.readlink(link) for link in Path(f'/proc/{process.pid}/fd').iterdir()}
            (segment,) = (name for name in own if f'{name}_el' in locks)
            assert Path(segment).stat().st_size >= 32 << 20
        finally:
            process.send_signal(signal.SIGINT)

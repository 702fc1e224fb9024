"""The whole suite as real processes over real DDS, from launch file to results."""

import os
import re
import signal
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from launched import Graph
from launched import NODES
from launched import parameter_file
from sensor_msgs.msg import Image

from muon_ad.images import to_rgb
from muon_ad_msgs.msg import DetectionArray
from muon_ad_nodes.parts.stamps import nanoseconds

SHARED_MEMORY = Path('/dev/shm')


@pytest.fixture
def graph(tmp_path):
    """Start graphs that are ended after the test."""
    started = []

    def start(*arguments: str) -> Graph:
        started.append(Graph(tmp_path / f'log{len(started)}.txt', *arguments))
        return started[-1]

    yield start
    for running in started:
        running.close()


def segments_of(pids: set[int]) -> set[str]:
    """The segments of participants that these processes have mapped."""
    maps = ' '.join(Path(f'/proc/{pid}/maps').read_text() for pid in pids)
    return set(re.findall(r'/dev/shm/(fast[a-z]+_[0-9a-f]{16})\b', maps))


@pytest.fixture
def models(negative_package, one_box_package) -> tuple[str, str]:
    """Tiny networks with known results, so that this tests the graph and not the models."""
    return f'style_model:={negative_package}', f'detector_model:={one_box_package}'


def small_variants(tmp_path: Path) -> str:
    """A parameter file that asks for the tiny network's variant, and little patience."""
    small = {'variant': 'small'}
    return parameter_file(tmp_path, {
        '/camera/style_transfer': small, '/csi/style_transfer': small,
        '/supervisor': {'hang_s': 6.0, 'startup_s': 10.0},
    })  # fmt: skip


def wait_for_return(running: Graph, name: str, victim: int, results: list) -> None:
    """Wait until a node is active in another process, and has results again."""
    running.wait(
        lambda: running.statuses[name].pid != victim and running.statuses[name].state == 'active',
        90, f'{name} to come back',
    )
    count = len(results)
    running.wait(lambda: len(results) > count, 30, f'results of {name} again')


def told_of(diagnostics: list[DiagnosticArray], name: str) -> dict[str, str]:
    """What /diagnostics said last about a node."""
    lines = [line for line in diagnostics[-1].status if line.name == f'muon_ad: {name}']
    return {value.key: value.value for line in lines for value in line.values}


def test_two_cameras_a_killed_node_a_hung_one_and_a_clean_end(graph, models, tmp_path):
    running = graph(*models, small_variants(tmp_path))
    frames = running.listen(Image, '/camera/camera/color/image_raw')
    stylised = {name: running.listen(Image, f'/{name}/style/image') for name in ('camera', 'csi')}
    found = {
        name: running.listen(DetectionArray, f'/{name}/detections') for name in ('camera', 'csi')
    }
    diagnostics = running.listen(DiagnosticArray, '/diagnostics')
    running.wait(
        lambda: all(len(list_) > 3 for list_ in (*stylised.values(), *found.values(), frames)),
        90, 'results of every task',
    )
    assert to_rgb(stylised['camera'][-1]).shape == (48, 64, 3)
    assert stylised['camera'][-1].header.frame_id == 'camera_color_optical_frame'
    stamps = {nanoseconds(frame.header.stamp) for frame in frames}
    running.wait(
        lambda: stamps & {nanoseconds(image.header.stamp) for image in stylised['camera']}
        or stamps.update(nanoseconds(frame.header.stamp) for frame in frames),
        30, 'a result with the stamp of its frame',
    )
    running.wait(
        lambda: any(
            detection.position_valid for array in found['camera'] for detection in array.detections
        ),
        30, 'a position from aligned depth',
    )
    running.wait(lambda: len(running.statuses) == len(NODES), 30, 'the status of every node')
    assert {status.state for status in running.statuses.values()} == {'active'}

    # A task is killed, another stopped for good: both come back by themselves, and their results.
    killed = running.statuses['/csi/style_transfer'].pid
    os.kill(killed, signal.SIGKILL)
    hung = running.statuses['/camera/object_detector'].pid
    os.kill(hung, signal.SIGSTOP)
    wait_for_return(running, '/csi/style_transfer', killed, stylised['csi'])
    wait_for_return(running, '/camera/object_detector', hung, found['camera'])
    running.wait(
        lambda: told_of(diagnostics, '/csi/style_transfer').get('restarts') == '1'
        and told_of(diagnostics, '/camera/object_detector').get('hangs') == '1',
        30, 'the restarts in /diagnostics',
    )
    assert told_of(diagnostics, '/camera/object_detector')['last trouble'].startswith('hung: ')
    assert not Path(f'/proc/{hung}').exists()

    pids = {status.pid for status in running.statuses.values()}
    assert len(pids) == len(NODES)
    segments = segments_of(pids)
    assert segments
    running.interrupt()
    assert not {pid for pid in pids if Path(f'/proc/{pid}').exists()}
    left = {name for name in segments if (SHARED_MEMORY / name).exists()}
    # The nodes had mapped the probe's segments, too; those are in use still.
    assert left <= segments_of({os.getpid()})


def test_video_that_ends(graph, models, tmp_path):
    import cv2
    import numpy as np

    video = cv2.VideoWriter(
        str(tmp_path / 'short.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 20, (160, 120))
    for grey in range(60):
        video.write(np.full((120, 160, 3), 4 * grey, np.uint8))
    video.release()
    running = graph(
        *models, small_variants(tmp_path), 'realsense:=false', 'csi_source:=video',
        f'csi_path:={tmp_path / "short.mp4"}', 'csi_loop:=false',
    )
    running.wait(
        lambda: '/csi/csi_camera' in running.statuses
        and running.statuses['/csi/csi_camera'].message.startswith('end of input'),
        90, 'the end of the video',
    )
    assert running.statuses['/csi/csi_camera'].frames == 60
    assert running.statuses['/csi/csi_camera'].state == 'active'
    # Its status may come later, and says how many frames it had by then.
    running.wait(
        lambda: '/csi/style_transfer' in running.statuses
        and running.statuses['/csi/style_transfer'].frames,
        30, 'stylised frames in the status',
    )
    assert running.statuses['/csi/style_transfer'].state == 'active'


def test_missing_model_is_reported_while_the_other_task_works(graph, models, tmp_path):
    running = graph(
        models[0], 'detector_model:=/nowhere', small_variants(tmp_path), 'realsense:=false',
    )
    stylised = running.listen(Image, '/csi/style/image')
    diagnostics = running.listen(DiagnosticArray, '/diagnostics')
    running.wait(lambda: stylised, 90, 'stylised frames')
    running.wait(
        lambda: any(
            status.name.endswith('/csi/object_detector') and status.level == b'\x02'
            for array in diagnostics[-1:] for status in array.status
        ),
        30, 'the error in /diagnostics',
    )
    running.wait(
        lambda: '/csi/object_detector' in running.statuses
        and "'/nowhere'" in running.statuses['/csi/object_detector'].message,
        30, 'the reason in the status',
    )


def test_real_people_are_found_in_the_video(graph, data, tmp_path):
    """The shipped models on the person video, played at six times its speed, to its end."""
    params = {
        '/csi/csi_camera': {'fps': 60.0}, '/csi/style_transfer': {'variant': 'dense_320x240'},
    }
    running = graph(
        parameter_file(tmp_path, params), 'realsense:=false', 'csi_source:=video',
        'csi_loop:=false',
        f'csi_path:={data / "video" / "one-by-one-person-detection.mp4"}',
    )
    stylised = running.listen(Image, '/csi/style/image')
    found = running.listen(DetectionArray, '/csi/detections')
    running.wait(
        lambda: '/csi/csi_camera' in running.statuses
        and running.statuses['/csi/csi_camera'].message.startswith('end of input'),
        150, 'the end of the video',
    )
    people = [array for array in found if any(d.label == 'person' for d in array.detections)]
    assert len(stylised) > 50
    assert len(people) > 20
    assert all(
        0 <= d.x_min < d.x_max <= 768 and 0 <= d.y_min < d.y_max <= 432
        for array in found for d in array.detections
    )

"""The demo's own parts: input checks, pictures, summary."""

import json

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import KeyValue
from rich.console import Console

from muon_ad.drawing import draw_detections
from muon_ad_msgs.msg import Detection
from muon_ad_msgs.msg import DetectionArray
from muon_ad_msgs.msg import StageLatency
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.demo import command
from muon_ad_nodes.demo.inputs import check_style
from muon_ad_nodes.demo.inputs import choose_input
from muon_ad_nodes.demo.inputs import InputError
from muon_ad_nodes.demo.pictures import compose
from muon_ad_nodes.demo.pictures import Film
from muon_ad_nodes.demo.recorder import Snapshot
from muon_ad_nodes.demo.run import summarise
from muon_ad_nodes.demo.table import make_table


@pytest.fixture
def video(tmp_path):
    path = tmp_path / 'a film.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    return path


def test_built_in_input_starts_both_cameras():
    chosen = choose_input('')
    assert chosen.cameras == ('camera', 'csi')
    assert chosen.arguments == ()


def test_video_with_a_space_in_its_name(video):
    chosen = choose_input(str(video))
    assert chosen.ends
    assert chosen.cameras == ('csi',)
    assert f'csi_path:={video}' in chosen.arguments
    assert 'csi_source:=video' in chosen.arguments


def test_folder_of_images(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((9, 9, 3), np.uint8))
    assert 'csi_source:=folder' in choose_input(str(tmp_path)).arguments


def test_bad_inputs(tmp_path):
    (tmp_path / 'text.mp4').write_text('no film')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / 'a.png').write_text('no image')
    for bad, reason in (
        ('nowhere.mp4', 'is not there'), (tmp_path / 'text.mp4', 'not a video'),
        (tmp_path / 'empty', 'holds no image'), (tmp_path / 'broken', 'can be read'),
        ('97', 'is not there'),
    ):
        with pytest.raises(InputError, match=reason):
            choose_input(str(bad))


def test_style(tmp_path):
    image = tmp_path / 's.png'
    cv2.imwrite(str(image), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / 'text.png').write_text('no image')
    assert check_style('', ('ink',)) == ''
    assert check_style('ink', ('ink',)) == 'ink'
    assert check_style(str(image), ()) == str(image)
    for bad, reason in (
        ('oil', 'one of ink'), (tmp_path, 'is a folder'), (tmp_path / 'text.png', 'not an image'),
    ):
        with pytest.raises(InputError, match=reason):
            check_style(str(bad), ('ink',))


def test_bad_input_is_said_before_anything_starts(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, 'Suite', lambda *_: pytest.fail('the suite was started'))
    monkeypatch.setattr('sys.argv', ['demo', '--input', 'nowhere.mp4', '--out', str(tmp_path)])
    assert command.main() == 2
    assert 'nowhere.mp4' in capsys.readouterr().err


def found_person() -> DetectionArray:
    detection = Detection(
        x_min=100.0, y_min=50.0, x_max=300.0, y_max=400.0, label='person', score=0.8)
    detection.position_valid = True
    detection.position.z = 2.0
    return DetectionArray(image_width=640, image_height=480, detections=[detection])


def test_pictures_with_and_without_results(tmp_path):
    grey = np.full((480, 640, 3), 90, np.uint8)
    full = Snapshot(grey, grey[::2, ::2], grey, found_person())
    picture = compose({'camera': full, 'csi': Snapshot(None, None, None, None)})
    assert picture.dtype == np.uint8
    assert picture.shape[1] % 3 == 0
    drawn = draw_detections(grey, found_person())
    assert (drawn[200, 98:103] != 90).any()
    assert (drawn[450, 600] == 90).all()
    film = Film(tmp_path / 'demo.mp4')
    for _ in range(25):
        film.add(picture)
    film.close(tmp_path / 'sheet.png')
    played = cv2.VideoCapture(str(tmp_path / 'demo.mp4'))
    assert played.get(cv2.CAP_PROP_FRAME_COUNT) == 25
    assert cv2.imread(str(tmp_path / 'sheet.png')).shape[1] == picture.shape[1]


def test_film_nobody_delivered_to_leaves_no_sheet(tmp_path):
    Film(tmp_path / 'demo.mp4').close(tmp_path / 'sheet.png')
    assert not (tmp_path / 'sheet.png').exists()


def test_summary_and_table():
    status = TaskStatus(
        frames=90, fps=29.7, dropped_newer=3, dropped_invalid=1, rss_mb=180.0, state='active',
        scheduling_policy='SCHED_FIFO', scheduling_priority=80, variant='p40_320x240',
        values=[KeyValue(key='lod_switches', value='2')],
        stages=[StageLatency(name='infer', p50_ms=1.0),
                StageLatency(name='total', p50_ms=20.0, p99_ms=31.0)],
    )
    found = json.loads(json.dumps(summarise(status, {'dense_320x240': 3, 'p40_320x240': 1})))
    assert found['frames'] == 90
    assert found['latency_ms'] == {'p50': 20.0, 'p99': 31.0}
    assert found['dropped'] == 4
    assert found['variants'] == {'dense_320x240': 0.75, 'p40_320x240': 0.25}
    assert found['variant_switches'] == 2
    nothing = summarise(TaskStatus(), {})
    assert nothing['latency_ms'] == {'p50': None, 'p99': None}
    assert nothing['variants'] == {} and nothing['variant_switches'] == 0
    console = Console(width=140, record=True)
    console.print(make_table({'/a': status}, ('/a', '/b'), 'caption'))
    shown = console.export_text()
    assert 'FIFO 80' in shown
    assert 'p40_320x240' in shown
    assert '31.0' in shown
    assert 'starting' in shown

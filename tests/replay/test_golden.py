"""The committed bag and its golden results: they hold here too, and a change is found."""

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import tiny_bags
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from muon_ad.bags import BagWriter
from muon_ad.bags import open_bag
from muon_ad.cli import main
from muon_ad.pictures import picture_of
from muon_ad.replay import pictures as pictures_of_runs
from muon_ad.replay.error import ReplayError
from muon_ad.replay.record import read_recording
from muon_ad.scene import Scene
from muon_ad.scene import View
from muon_ad.testing.bags import write_bag

DATA = Path(__file__).parent / 'data'
BAG, GOLDEN = DATA / 'scene.mcap', DATA / 'golden.mcap'
COLOR = '/camera/color/image_raw/compressed'
DEPTH = '/camera/aligned_depth_to_color/image_raw/compressedDepth'
DETECTIONS = '/camera/color/image_raw/detections'
STYLE = '/camera/color/image_raw/style'


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Output without a path goes to the test's own folder; no escape codes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TERM', 'dumb')


def expect(*options, bag=BAG):
    return main(['replay', str(bag), '--expect', str(GOLDEN), *options])


@pytest.fixture(scope='module')
def pictures():
    with open_bag(BAG) as bag:
        return [picture_of(m.data, m.type)[1] for m in bag.messages([COLOR])]


@pytest.mark.parametrize('threads', [1, 2])
def test_same_with_any_number_of_threads(threads, capsys):
    assert expect('--threads', str(threads)) == 0
    said = capsys.readouterr().out
    assert '15 person' in said
    assert f'same as {GOLDEN}, within tolerances' in said
    assert not Path('replay_worst.png').exists()


def test_same_where_the_networks_are_computed_otherwise(monkeypatch, capsys):
    """Without ONNX Runtime's optimisations sums have another order, as on another machine."""
    made = onnxruntime.SessionOptions

    def plain():
        options = made()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options

    monkeypatch.setattr(onnxruntime, 'SessionOptions', plain)
    assert expect() == 0


@pytest.mark.parametrize(
    'options, said',
    [
        (('--only', 'style', '--style', 'mosaic'),
         f' of {STYLE}, stamp 170000000'),
        (('--only', 'detection', '--score-threshold', '0.79'),
         f'worst frame: number 0 of {DETECTIONS}, stamp 1700000000.000 s: person of score'),
        (('--duration', '2.1'), f'{DETECTIONS}: 4 missing, 0 extra'),
        (('--remap', f'{DETECTIONS}:=/elsewhere'), '/elsewhere: 0 missing, 15 extra'),
        (('--fault', 'jump at=2.5 ms=40'), f'{DETECTIONS}: 2 missing, 2 extra'),
        (('--fault', 'no_depth at=0.9 for=0.2 stream=aligned'), 'position of person is valid'),
    ],
    ids=['style', 'threshold', 'fewer', 'topic', 'stamps', 'no depth'],
)
def test_a_change_is_found(options, said, capsys):
    assert expect(*options) == 1
    out = capsys.readouterr().out
    assert said in ' '.join(out.split())
    assert f'differs from {GOLDEN}' in out


def test_shifted_images_are_found_and_drawn(pictures, tmp_path, capsys):
    """Boxes move by five pixels; the worst frame's picture shows expected, got and both."""
    moved = write_bag(
        tmp_path / 'moved.mcap', [np.roll(picture, 5, axis=1) for picture in pictures],
        rate=5.0, topic='/camera/color/image_raw',
    )
    worst = tmp_path / 'folder' / 'worst.png'
    assert expect('--worst', str(worst), bag=moved) == 1
    assert f'the worst frame, expected and got: {worst}' in capsys.readouterr().out
    height, width = cv2.imread(str(worst)).shape[:2]
    assert width > 2 * height
    loose = ['--tolerance-iou', '0.5', '--tolerance-mean-abs', '255', '--tolerance-ssim', '0',
             '--tolerance-score', '1', '--tolerance-position-m', '99']
    assert expect(*loose, '--fault', 'no_info for=99', bag=moved) == 1, 'positions are gone'


def test_a_picture_that_cannot_be_written_takes_no_verdict_back(monkeypatch, capsys):
    def full(path, _):
        raise ReplayError(f'{path}: cannot be written: no space')

    monkeypatch.setattr(pictures_of_runs, 'save', full)
    assert expect('--duration', '0.1', '--picture', 'sheet.png') == 1
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-2:] == [f'differs from {GOLDEN}', 'sheet.png: cannot be written: no space']
    assert expect('--style', 'mosaic', '--duration', '0.1') == 1
    assert 'replay_worst.png: cannot be written: no space' in capsys.readouterr().out
    assert expect('--picture', 'sheet.png') == 2, 'a picture that was asked for is missing'
    said = capsys.readouterr()
    assert f'same as {GOLDEN}' in said.out and 'sheet.png: cannot be written' in said.err


def test_what_changed_is_named(capsys):
    assert expect('--style', 'mosaic', '--duration', '0.1') == 1
    out = capsys.readouterr().out
    assert 'changed: style style: swirls in the golden, mosaic here' in out


@pytest.mark.parametrize(
    'arguments, said',
    [
        ((BAG, '--expect', 'nowhere.mcap'), 'golden nowhere.mcap: no such file'),
        ((BAG, '--expect', BAG), 'holds no results of a replay'),
        (('nowhere.mcap',), 'nowhere.mcap'),
        ((GOLDEN, '--image', '/x'), 'image /x: is not in the bag'),
        ((BAG, '--style', 'impasto'), 'impasto'),
        ((BAG, '--detector-model', 'style_default'), 'expected detection'),
        ((BAG, '--fault', 'gremlins'), "kind is 'gremlins'"),
        ((BAG, '--start', '60'), 'start is 60 s, after the end; '),
        ((BAG, '--record', 'out.txt'), 'expected a name that ends in .mcap'),
        ((BAG, '--record', GOLDEN), 'exists already'),
        ((BAG, '--remap', 'a=b'), 'expected /from:=/to'),
        ((BAG, '--remap', '/nope:=/x'),
         f'remap /nope:=/x: no result is of /nope; results are of {STYLE}, {DETECTIONS}'),
        ((BAG, '--only', 'style', '--remap', f'{DETECTIONS}:=/x'), f'results are of {STYLE}'),
        ((BAG, '--remap', f'{STYLE}:=/a b'), '/a b is no name of a topic; expected one such as'),
        ((BAG, '--remap', f'{STYLE}:=/a__b'), '/a__b is no name of a topic'),
        ((BAG, '--remap', f'{STYLE}:=/x/compressed', '--remap', f'{DETECTIONS}:=/x'),
         f'remap would give {STYLE} and {DETECTIONS} one name, /x/compressed; choose another'),
        ((BAG, '--remap', f'{STYLE}:={DETECTIONS}'), f'one name, {DETECTIONS}; choose another'),
        ((BAG, '--remap', f'{STYLE}:=/x', '--remap', f'{STYLE}:=/y'), f'{STYLE} is /x already'),
        ((BAG, '--threads', '-1'), '--threads is -1; expected 0 to 64'),
        ((BAG, '--threads', '999999'), '--threads is 999999; expected 0 to 64'),
        ((BAG, '--seed', '-3'), '--seed is -3; expected 0 or more'),
        ((BAG, '--providers', 'gpu'), "provider 'gpu' is not known"),
        ((BAG, '--image', COLOR, '--depth', COLOR), f'depth {COLOR}: is the image itself; '),
        ((BAG, '--every', '0'), '--every is 0'),
        ((BAG, '--tolerance-iou', '7'), 'tolerance iou is 7; expected 0 to 1'),
        ((BAG, '--picture', 'x.xyz'), '--picture x.xyz: expected a name such as sheet.png'),
        ((BAG, '--picture', GOLDEN / 'x.png'),
         f'--picture {GOLDEN}/x.png: cannot be written: {GOLDEN} is no folder; choose another'),
        ((BAG, '--expect', GOLDEN, '--worst', GOLDEN / 'folder' / 'x.png'),
         f'x.png: cannot be written: {GOLDEN} is no folder'),
        ((BAG, '--fault', 'stall stream=colour'), "stream is 'colour'; the streams here are"),
        ((BAG, '--duration', '-1'), 'duration is -1 s'),
        ((BAG, '--tolerance-ssim', 'nan'), 'tolerance ssim is nan; expected 0 to 1'),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(arguments, said, capsys):
    assert main(['replay', *map(str, arguments)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('muon-ad replay: ')
    assert said in error


def test_damaged_golden_cannot_be_compared(tmp_path, capsys):
    (tmp_path / 'half.mcap').write_bytes(GOLDEN.read_bytes()[:300_000])
    assert main(['replay', str(BAG), '--expect', 'half.mcap']) == 2
    assert 'half.mcap' in capsys.readouterr().err


def test_recording_twice_gives_the_same_bytes(tmp_path):
    files = [tmp_path / name / 'out.mcap' for name in ('first', 'second')]
    for threads, file in zip('12', files, strict=True):
        assert main(['replay', str(BAG), '--record', str(file), '--duration', '0.7',
                     '--threads', threads]) == 0
    first, second = (file.read_bytes() for file in files)
    assert first == second


def test_a_run_that_is_terminated_leaves_nothing_behind(tmp_path):
    """Neither beside its output nor of the bag, which it unpacks."""
    with BagWriter(tmp_path / 'long', compression='file') as bag:
        for number in range(5000):      # minutes of work
            image = tiny_bags.image(0, number)
            bag.write('/image', tiny_bags.IMAGE, tiny_bags.START_NS + number, image)
    out, unpacked = tmp_path / 'out', tmp_path / 'unpacked'
    unpacked.mkdir()
    running = subprocess.Popen(
        [sys.executable, '-m', 'muon_ad.cli', 'replay', tmp_path / 'long', '--record',
         out / 'x.mcap'], env={**os.environ, 'TMPDIR': str(unpacked)}, stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not (out.is_dir() and any(out.glob('.x-*/x'))) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert any(unpacked.glob('muon-ad-bag-*'))
        running.terminate()
        assert running.wait(60) == 143
    finally:
        running.kill()
        running.wait()
    assert not list(out.iterdir()) and not list(unpacked.glob('muon-ad-bag-*'))


def test_other_readers_open_a_recording(tmp_path):
    """Every message decodes with the schema in the file, and belongs to an image of the bag."""
    assert main(['replay', str(BAG), '--record', 'out.mcap', '--every', '2',
                 '--remap', f'{DETECTIONS}:=/found', '--picture', 'sheet.png']) == 0
    with open_bag(BAG) as bag:
        times = [message.time_ns for message in bag.messages([COLOR])]
    with open('out.mcap', 'rb') as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        messages = [(channel.topic, schema, message.log_time, decoded) for
                    schema, channel, message, decoded in reader.iter_decoded_messages()]
    found = [row for row in messages if row[0] == '/found']
    style = [row for row in messages if row[0] == f'{STYLE}/compressed']
    assert len(found) + len(style) == len(messages)
    assert [row[2] for row in found] == times
    assert [row[2] for row in style] == times[::2]
    for _, schema, log_time, array in found:
        assert (schema.name, schema.encoding) == ('muon_ad_msgs/msg/DetectionArray', 'ros2msg')
        stamp = array.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec == log_time
        assert array.header.frame_id == 'camera_color_optical_frame'
        assert array.detections[0].label == 'person'
        assert array.detections[0].position_valid
    for _, schema, _, picture in style:
        assert schema.name == 'sensor_msgs/msg/CompressedImage'
        decoded = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape == (240, 320, 3)
    assert cv2.imread('sheet.png').shape[1] == 3 * 320


def test_raw_images_are_those_of_the_png(tmp_path):
    for name, options in (('png', []), ('raw', ['--raw'])):
        assert main(['replay', str(BAG), '--record', f'{name}.mcap', '--only', 'style',
                     '--duration', '0.1', *options]) == 0
    png, raw = (read_recording(f'{name}.mcap').results[STYLE] for name in ('png', 'raw'))
    assert raw[0].type == 'sensor_msgs/msg/Image'
    assert np.array_equal(png[0].value, raw[0].value)


def test_the_bag_is_what_its_script_draws(pictures):
    """Within rounding: another version of OpenCV may interpolate otherwise."""
    scene = Scene(View.from_fov(160, 120, 62))
    with open_bag(BAG) as bag:
        depths = [picture_of(m.data, m.type)[1] for m in bag.messages([DEPTH])]
    assert len(pictures) == len(depths) == 15
    for number in (0, 7, 14):
        drawn, metres = scene.render(number / 5)
        assert np.abs(drawn.astype(int) - pictures[number]).mean() < 1
        assert np.median(np.abs(metres * 1000 - depths[number])) <= 1


@pytest.mark.parametrize(
    'storage, compression',
    [('mcap', ''), ('mcap', 'message'), ('mcap', 'file'), ('sqlite3', ''), ('sqlite3', 'message')],
)
@pytest.mark.parametrize('with_metadata', [True, False])
def test_bags_of_every_kind(tmp_path, storage, compression, with_metadata, capsys):
    """The committed bag, written anew as a folder of another kind, gives the same results."""
    folder = tmp_path / 'folder'
    with (
        open_bag(BAG) as bag,
        BagWriter(folder, storage=storage, compression=compression) as writer,
    ):
        for message in bag.serialized(end_ns=bag.start_ns + 250_000_000):
            writer.write(message.topic, message.type, message.time_ns, message.data)
    if not with_metadata:
        (folder / 'metadata.yaml').unlink()
    assert expect('--only', 'detection', '--tolerance-count', '13', bag=folder) == 0
    assert '2 person' in capsys.readouterr().out


@pytest.mark.parametrize(
    'name, images', [('soccer_goal_12.mcap', 2), ('ros_numpy_test.bag', 2)]
)
def test_bags_of_other_people(data, name, images, capsys):
    assert main(['replay', str(data / 'bags' / name), '--record', 'out.mcap']) == 0
    assert f'{images} images in' in capsys.readouterr().out
    results = read_recording('out.mcap').results
    assert sum(len(found) for topic, found in results.items() if 'style' in topic) == images


@pytest.mark.parametrize('kept, played', [(400_000, True), (3_000, False)])
def test_truncated_bag_plays_what_is_readable(tmp_path, kept, played, capsys):
    (tmp_path / 'cut.mcap').write_bytes(BAG.read_bytes()[:kept])
    status = main(['replay', 'cut.mcap', '--only', 'detection'])
    said = capsys.readouterr()
    if played:
        assert status == 1
        assert 'cut.mcap is damaged; what is readable was played' in said.out
        assert 'at byte 43' in said.out
        return
    assert status == 2
    assert 'no images of colour; it has no topics at all; damaged: ' in said.err


def test_replay_needs_neither_ros_nor_torch():
    code = (
        'import sys, muon_ad.replay.command, muon_ad.testing.networks\n'
        "print([name for name in ('torch', 'rclpy', 'sensor_msgs') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout.strip() == '[]'

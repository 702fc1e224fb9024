"""Sources of frames: every frame of a file, in order and at its pace; clear ends and errors."""

import errno
import os
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from muon_ad.test_pattern import draw_strip
from muon_ad.test_pattern import read_number
from muon_ad_nodes.parts import argus_source
from muon_ad_nodes.parts import v4l2_source
from muon_ad_nodes.parts.argus_source import argus_pipeline
from muon_ad_nodes.parts.argus_source import open_gstreamer
from muon_ad_nodes.parts.file_sources import FolderSource
from muon_ad_nodes.parts.file_sources import VideoSource
from muon_ad_nodes.parts.pattern_source import PatternSource
from muon_ad_nodes.parts.source import EndOfInput
from muon_ad_nodes.parts.source import FrameError
from muon_ad_nodes.parts.source import Request
from muon_ad_nodes.parts.source import SourceError
from muon_ad_nodes.parts.v4l2_source import is_device
from muon_ad_nodes.parts.v4l2_source import V4l2Source

RUNNING = threading.Event()     # never set
FAST = 240.0
SIZE = (192, 144)


def request(**wishes) -> Request:
    return Request(time.time_ns, **wishes)


def rgb(frame) -> np.ndarray:
    pixels = frame.pictures['image'].pixels()
    assert frame.pictures['image'].size == pixels.shape[1::-1]
    return pixels


def numbered(number: int) -> np.ndarray:
    picture = np.full((*SIZE[::-1], 3), (200, 90, 30), np.uint8)
    draw_strip(picture, number)
    return picture


def write_video(path, frames=12, fps=25.0, codec='MJPG'):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, SIZE)
    assert writer.isOpened()
    for number in range(frames):
        writer.write(cv2.cvtColor(numbered(number), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def write_images(folder, count=4):
    for number in range(count):
        bgr = cv2.cvtColor(numbered(number), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f'{number:02d}.png'), bgr)
    return folder


def play(source, limit=1000):
    """Read to the end: frames, what was skipped, and how it ended."""
    frames, skipped = [], []
    for _ in range(limit):
        try:
            frame = source.read(RUNNING, 5.0)
        except FrameError as error:
            skipped.append(str(error))
            continue
        except EndOfInput as end:
            return frames, skipped, str(end)
        if frame is not None:
            frames.append(frame)
    return frames, skipped, ''


def test_a_video_gives_every_frame_in_order(tmp_path):
    source = VideoSource(write_video(tmp_path / 'a.avi'), request(fps=FAST))
    frames, skipped, end = play(source)
    assert [read_number(rgb(frame)) for frame in frames] == list(range(12))
    assert not skipped
    assert end == 'end of input after 12 frames'
    assert rgb(frames[0]).dtype == np.uint8 and rgb(frames[0]).shape == (144, 192, 3)
    np.testing.assert_allclose(rgb(frames[0])[10, 10], (200, 90, 30), atol=6)     # RGB, not BGR
    source.close()


def test_a_video_keeps_its_own_pace_and_stamps_rise(tmp_path):
    source = VideoSource(write_video(tmp_path / 'a.avi', frames=6, fps=50.0), request())
    begun = time.monotonic()
    frames, _, _ = play(source)
    assert len(frames) == 6
    assert time.monotonic() - begun >= 6 / 50 - 0.001        # never faster
    stamps = [frame.arrival_ns for frame in frames]
    assert stamps == sorted(set(stamps))


def test_a_slow_consumer_loses_no_frame_of_a_file(tmp_path):
    source = VideoSource(write_video(tmp_path / 'a.avi', frames=5), request(fps=FAST))
    numbers = []
    with pytest.raises(EndOfInput):
        while True:
            time.sleep(0.02)        # the consumer's work, five times the frame period
            numbers.append(read_number(rgb(source.read(RUNNING, 5.0))))
    assert numbers == list(range(5))


def test_a_video_loops(tmp_path):
    source = VideoSource(write_video(tmp_path / 'a.avi', frames=3), request(fps=FAST, loop=True))
    frames, skipped, end = play(source, limit=9)
    numbers = [read_number(rgb(frame)) for frame in frames]
    assert numbers[:6] == [0, 1, 2, 0, 1, 2]
    assert not skipped and not end


def test_a_truncated_video_plays_what_is_there_and_says_where_it_stopped(tmp_path):
    path = write_video(tmp_path / 'a.avi', frames=40)
    os.truncate(path, path.stat().st_size // 2)
    frames, _, end = play(VideoSource(path, request(fps=FAST)))
    assert 5 < len(frames) < 35
    whole = frames[:-1]     # FFmpeg may deliver the last one half
    assert [read_number(rgb(frame)) for frame in whole] == list(range(len(whole)))
    assert end.startswith(f'end of input after frame {len(frames)} of the 40')
    frames, skipped, _ = play(VideoSource(path, request(fps=FAST, loop=True)), limit=30)
    assert len(frames) > 5 and 'starts over' in skipped[0]


@pytest.mark.parametrize('loop', [False, True])
def test_a_mp4_without_its_index_is_an_error(tmp_path, loop):
    path = write_video(tmp_path / 'a.mp4', codec='mp4v')
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(SourceError, match='a.mp4: no frame can be decoded.*index'):
        VideoSource(path, request(loop=loop))


def test_what_is_no_video_is_named(tmp_path):
    with pytest.raises(SourceError, match='which is not there'):
        VideoSource(tmp_path / 'none.mp4', request())
    with pytest.raises(SourceError, match='which is a folder.*set source to folder'):
        VideoSource(tmp_path, request())
    (tmp_path / 'empty.mp4').touch()
    with pytest.raises(SourceError, match='is empty'):
        VideoSource(tmp_path / 'empty.mp4', request())
    (tmp_path / 'text.mp4').write_text('this is no video\n' * 100)
    with pytest.raises(SourceError, match='no frame can be decoded'):
        VideoSource(tmp_path / 'text.mp4', request())


def test_a_folder_gives_its_images_by_name(tmp_path):
    write_images(tmp_path)
    (tmp_path / 'readme.txt').write_text('not an image')
    frames, skipped, end = play(FolderSource(tmp_path, request(fps=FAST)))
    assert [read_number(rgb(frame)) for frame in frames] == [0, 1, 2, 3]
    assert not skipped and end == 'end of input after 4 images'


def test_broken_images_are_skipped_and_named(tmp_path):
    write_images(tmp_path)
    (tmp_path / '01.png').write_bytes(b'broken')
    (tmp_path / '02.png').write_bytes(b'')
    frames, skipped, end = play(FolderSource(tmp_path, request(fps=FAST)))
    assert [read_number(rgb(frame)) for frame in frames] == [0, 3]
    assert len(skipped) == 2 and '01.png' in skipped[0] and '02.png' in skipped[1]
    assert end


def test_an_absurd_header_is_a_broken_image(tmp_path):
    write_images(tmp_path, 1)
    (tmp_path / '00.ppm').write_bytes(b'P6 100000 100000 255\n')
    frames, skipped, _ = play(FolderSource(tmp_path, request(fps=FAST)))
    assert len(frames) == 1 and '00.ppm' in skipped[0]


def test_a_folder_loops(tmp_path):
    source = FolderSource(write_images(tmp_path, 2), request(fps=FAST, loop=True))
    frames, _, end = play(source, limit=5)
    assert [read_number(rgb(frame)) for frame in frames] == [0, 1, 0, 1, 0] and not end


def test_what_is_no_folder_of_images_is_named(tmp_path):
    with pytest.raises(SourceError, match='which is not there'):
        FolderSource(tmp_path / 'none', request())
    with pytest.raises(SourceError, match='no images in this folder.*jpg'):
        FolderSource(tmp_path, request())
    (tmp_path / 'a.jpg').write_bytes(b'broken')
    with pytest.raises(SourceError, match='none of its 1 images can be decoded'):
        FolderSource(tmp_path, request())
    with pytest.raises(SourceError, match='which is a file'):
        FolderSource(tmp_path / 'a.jpg', request())


@pytest.mark.parametrize(
    ('wishes', 'size'),
    [({}, SIZE), ({'width': 96}, (96, 72)), ({'height': 288}, (384, 288)),
     ({'width': 100, 'height': 100}, (100, 100))],
)
def test_size_is_as_asked(tmp_path, wishes, size):
    frame = FolderSource(write_images(tmp_path, 1), request(**wishes)).read(RUNNING, 5.0)
    assert rgb(frame).shape == (size[1], size[0], 3)


def test_the_pattern_counts_its_frames_and_shows_the_scene():
    source = PatternSource(request(width=192, height=144, fps=FAST))
    frames, _, _ = play(source, limit=4)
    assert [read_number(rgb(frame)) for frame in frames] == [0, 1, 2, 3]
    assert rgb(frames[0]).std() > 30
    calibration = source.calibration('image')
    assert calibration.calibrated and (calibration.width, calibration.height) == (192, 144)


def test_a_pattern_too_small_for_its_number_is_an_error():
    with pytest.raises(SourceError, match='width and height give 48x36'):
        PatternSource(request(width=48))


def test_waiting_ends_when_told(tmp_path):
    source = FolderSource(write_images(tmp_path, 2), request(fps=0.01))
    assert source.read(RUNNING, 5.0) is not None
    stopping = threading.Event()
    threading.Timer(0.05, stopping.set).start()
    assert source.read(stopping, 60.0) is None
    assert source.read(RUNNING, 0.01) is None


def test_a_missing_video_device_is_named_with_those_there():
    with pytest.raises(SourceError, match='/dev/video97 is not there; video devices'):
        V4l2Source('97', request())
    with pytest.raises(SourceError, match='is not a device'):
        V4l2Source(__file__, request())
    with pytest.raises(SourceError, match='/dev/null: cannot be opened for capture'):
        V4l2Source('/dev/null', request())


class FakeCapture:
    """What OpenCV has of a device: frames with the driver's time, until it is unplugged."""

    def __init__(self):
        self.good, self.taken_ms = True, 1234.5

    def read(self):
        return self.good, np.zeros((*SIZE[::-1], 3), np.uint8) if self.good else None

    def get(self, _setting):
        return self.taken_ms

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return True

    def set(self, *_setting):
        return True

    def release(self):
        self.good = False


def test_a_video_device_tells_when_a_frame_was_taken_and_when_it_is_gone(monkeypatch):
    capture, there = FakeCapture(), [True]
    monkeypatch.setattr(v4l2_source.cv2, 'VideoCapture', lambda *_: capture)
    monkeypatch.setattr(v4l2_source, 'is_device', lambda _path: there[0])
    source = V4l2Source('42', request())
    frame = source.read(RUNNING, 1.0)
    assert (frame.domain, frame.device_ns, frame.number) == ('hardware_clock', 1_234_500_000, 0)
    capture.taken_ms = 0.0
    assert source.read(RUNNING, 1.0).device_ns is None      # a driver that does not tell
    capture.good = False
    assert source.read(RUNNING, 1.0) is None                # may come again
    there[0] = False
    with pytest.raises(SourceError, match='/dev/video42: the device is gone'):
        source.read(RUNNING, 1.0)


def test_a_device_that_leaves_while_it_is_looked_at_is_gone():
    class Leaving(type(Path())):
        def stat(self, **_options):
            raise OSError(errno.ENODEV, 'No such device')

    assert not is_device(Leaving('/dev/video42'))
    assert is_device(Path('/dev/null'))


@pytest.mark.skipif(not os.path.exists('/dev/video0'), reason='no /dev/video0 on this machine')
def test_a_video_device_gives_frames():
    source = V4l2Source('0', request())
    frames, _, _ = play(source, limit=10)
    source.close()
    assert frames


def test_the_pipeline_for_argus_asks_for_a_mode_by_caps():
    pipeline = argus_pipeline(1, request(width=1920, height=1080, fps=30.0))
    assert pipeline.startswith('nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),')
    assert 'width=1920,height=1080,framerate=30/1,format=NV12 ! nvvidconv' in pipeline
    assert pipeline.endswith('video/x-raw,format=BGRx')


def test_without_gstreamer_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(argus_source, 'Gst', None)
    if argus_source.opencv_has_gstreamer():
        pytest.skip('this OpenCV has GStreamer')
    with pytest.raises(SourceError, match='python3-gi.*gir1.2-gst-plugins-base'):
        open_gstreamer(argus_pipeline(0, request()), request())


needs_gstreamer = pytest.mark.skipif(
    argus_source.Gst is None, reason='PyGObject with GStreamer is not installed'
)
LIVE = 'videotestsrc is-live=true pattern=red ! video/x-raw,width=322,height=240,framerate=60/1'


@needs_gstreamer
def test_a_gstreamer_pipeline_gives_frames():
    source = open_gstreamer(f'{LIVE} ! videoconvert', request(width=161, height=120))
    frames, _, _ = play(source, limit=5)
    source.close()
    assert len(frames) == 5
    assert rgb(frames[0]).shape == (120, 161, 3)
    np.testing.assert_allclose(rgb(frames[0])[60, 80], (255, 0, 0), atol=2)


@needs_gstreamer
def test_a_live_pipeline_tells_when_a_frame_was_taken():
    source = open_gstreamer(f'{LIVE} ! videoconvert', request())
    frames, _, _ = play(source, limit=5)
    source.close()
    assert {frame.domain for frame in frames} == {'hardware_clock'}
    taken = [frame.device_ns for frame in frames]
    assert taken == sorted(set(taken))


@needs_gstreamer
def test_a_live_pipeline_that_ends_is_a_lost_camera():
    """As nvarguscamerasrc does when its daemon fails."""
    source = open_gstreamer(f'{LIVE.replace(" is-live", " num-buffers=3 is-live")} ! videoconvert',
                            request())
    with pytest.raises(SourceError, match='the pipeline of the camera ended'):
        while True:
            source.read(RUNNING, 5.0)
    source.close()


@needs_gstreamer
def test_gstreamers_own_errors_reach_the_user():
    with pytest.raises(SourceError, match='no element "nosuchelement"'):
        open_gstreamer('nosuchelement', request())
    with pytest.raises(SourceError, match='GStreamer: .*none.mp4'):
        open_gstreamer('filesrc location=/nowhere/none.mp4 ! decodebin ! videoconvert', request())


@needs_gstreamer
def test_a_pipeline_that_ends_says_so():
    source = open_gstreamer('videotestsrc num-buffers=3 ! videoconvert', request())
    with pytest.raises(EndOfInput, match='end of input: the pipeline ended'):
        while True:
            source.read(RUNNING, 5.0)
    source.close()

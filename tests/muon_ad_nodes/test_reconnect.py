"""A source that is lost, stalls, comes back or needs a reset: what is done, said and counted."""

import threading
import time

import pytest

from muon_ad_nodes.parts import reconnect
from muon_ad_nodes.parts.reconnect import Reconnecting
from muon_ad_nodes.parts.source import EndOfInput
from muon_ad_nodes.parts.source import Frame
from muon_ad_nodes.parts.source import FrameError
from muon_ad_nodes.parts.source import SourceError

RUNNING = threading.Event()     # never set


class Camera:
    """Plugged in or not, delivering or not; each `opened` one is good until it is unplugged."""

    def __init__(self):
        self.plugged = self.delivers = self.bus_answers = True
        self.opened = []
        self.resets = 0

    def open(self):
        if not self.plugged:
            raise SourceError('nothing is plugged in')
        self.opened.append(Opened(self))
        return self.opened[-1]

    def present(self):
        if not self.bus_answers:
            raise SourceError('the bus cannot be asked')
        return self.plugged

    def reset(self):
        self.resets += 1
        self.delivers = True


class Opened:
    def __init__(self, camera):
        self.camera = camera
        self.closed = False
        self.number = 0

    def read(self, stopping, _timeout_s):
        if not self.camera.plugged:
            raise SourceError('it was unplugged')
        if not self.camera.delivers:
            stopping.wait(0.002)
            return None
        self.number += 1
        return Frame({}, 0, self.number)

    def calibration(self, stream):
        return stream

    def close(self):
        self.closed = True


@pytest.fixture
def camera(monkeypatch):
    monkeypatch.setattr(reconnect, 'FIRST_DELAY_S', 0.01)
    monkeypatch.setattr(reconnect, 'LONGEST_DELAY_S', 0.04)
    monkeypatch.setattr(reconnect, 'POLL_S', 0.002)
    monkeypatch.setattr(reconnect, 'FIRST_FRAME_S', 0.05)
    return Camera()


def read_until(source, condition, what):
    """Read until a condition holds; return the last frame."""
    deadline = time.monotonic() + 10
    while True:
        frame = source.read(RUNNING, 0.02)
        if condition(frame):
            return frame
        assert time.monotonic() < deadline, f'waited in vain for {what}: {source.trouble}'


def test_an_unplugged_camera_is_opened_again_when_it_is_back(camera):
    source = Reconnecting(camera.open, 5.0, camera.present)
    source.open()
    assert source.read(RUNNING, 1.0).number == 1
    camera.plugged = False
    assert source.read(RUNNING, 0.02) is None
    assert camera.opened[0].closed
    assert source.trouble.startswith('it was unplugged; attempt 1 to open the camera in 0.01 s')
    assert source.calibration('color') is None
    read_until(source, lambda _: 'attempt 3' in source.trouble, 'a third attempt')
    assert source.trouble.startswith('nothing is plugged in; attempt 3')
    camera.plugged = True
    frame = read_until(source, lambda frame: frame is not None, 'a frame')
    assert frame.number == 1 and len(camera.opened) == 2
    assert source.trouble == ''
    assert source.calibration('color') == 'color'
    assert source.values() == {'losses': '1', 'stalls': '0', 'reopened': '1', 'resets': '0'}


def test_delays_double_up_to_a_limit_and_begin_anew_after_a_frame(camera):
    source = Reconnecting(camera.open, 5.0)
    source.open()
    for _ in range(2):
        camera.plugged = False
        said = []
        while len(said) < 5:
            source.read(RUNNING, 0.02)
            if source.trouble not in said:
                said.append(source.trouble)
        assert [text.rpartition(' in ')[2] for text in said] == [
            '0.01 s', '0.02 s', '0.04 s', '0.04 s', '0.04 s']
        camera.plugged = True
        read_until(source, lambda frame: frame is not None, 'a frame')


def test_a_camera_that_comes_back_is_not_kept_waiting(camera, monkeypatch):
    monkeypatch.setattr(reconnect, 'FIRST_DELAY_S', 1000.0)
    monkeypatch.setattr(reconnect, 'LONGEST_DELAY_S', 1000.0)
    source = Reconnecting(camera.open, 5.0, camera.present)
    source.open()
    camera.plugged = False
    source.read(RUNNING, 0.02)
    source.read(RUNNING, 0.02)      # sees that it is gone
    camera.plugged = True
    read_until(source, lambda frame: frame is not None, 'a frame')


def test_while_the_bus_cannot_be_asked_the_camera_counts_as_gone(camera):
    source = Reconnecting(camera.open, 5.0, camera.present, camera.reset)
    source.open()
    source.read(RUNNING, 0.02)
    camera.plugged = camera.bus_answers = False
    read_until(source, lambda _: 'attempt 4' in source.trouble, 'a fourth attempt')
    camera.plugged = camera.bus_answers = True
    read_until(source, lambda frame: frame is not None, 'a frame')


def test_silence_is_a_stall_and_a_stall_is_cured_by_opening_it_again(camera):
    source = Reconnecting(camera.open, 0.05, camera.present, camera.reset)
    source.open()
    source.read(RUNNING, 0.02)
    camera.delivers = False
    read_until(source, lambda _: source.trouble, 'the stall to be noticed')
    assert source.trouble.startswith('no frame from the camera for 0.1 s; attempt 1')
    camera.delivers = True
    read_until(source, lambda frame: frame is not None, 'a frame')
    assert source.values() == {'losses': '0', 'stalls': '1', 'reopened': '1', 'resets': '0'}


def test_a_stall_that_opening_does_not_cure_ends_with_a_reset(camera):
    source = Reconnecting(camera.open, 0.02, camera.present, camera.reset)
    source.open()
    camera.delivers = False     # until it is reset
    read_until(source, lambda frame: frame is not None, 'a frame')
    assert camera.resets == source.resets == 1
    assert source.stalls == reconnect.RESET_EVERY
    assert all(opened.closed for opened in camera.opened[:-1])


def test_a_camera_that_is_not_there_is_not_reset(camera):
    source = Reconnecting(camera.open, 5.0, camera.present, camera.reset)
    source.open()
    camera.plugged = False
    read_until(source, lambda _: 'attempt 7' in source.trouble, 'many attempts')
    assert camera.resets == 0


def test_a_reset_is_done_on_request(camera):
    source = Reconnecting(camera.open, 5.0, camera.present, camera.reset)
    source.open()
    assert source.read(RUNNING, 0.02) is not None
    source.request_reset()
    frame = read_until(source, lambda frame: frame is not None, 'a frame')
    assert frame.number == 1 and camera.resets == 1 and camera.opened[0].closed


def test_silence_counts_from_the_first_read_and_files_never_stall(camera):
    source = Reconnecting(camera.open, 0.03)
    source.open()
    time.sleep(0.05)        # inactive
    assert source.read(RUNNING, 0.02) is not None
    patient = Reconnecting(camera.open, 0.0)
    patient.open()
    camera.delivers = False
    for _ in range(30):
        assert patient.read(RUNNING, 0.02) is None
    assert patient.stalls == 0


def test_the_first_frame_may_take_longer_than_the_next(camera, monkeypatch):
    monkeypatch.setattr(reconnect, 'FIRST_FRAME_S', 1000.0)
    source = Reconnecting(camera.open, 0.02)
    source.open()
    camera.delivers = False
    for _ in range(30):
        source.read(RUNNING, 0.02)
    assert source.stalls == 0
    camera.delivers = True
    assert source.read(RUNNING, 0.02) is not None
    camera.delivers = False
    read_until(source, lambda _: source.stalls == 1, 'the stall')


def test_what_is_no_loss_passes_through(camera, monkeypatch):
    source = Reconnecting(camera.open, 5.0)
    source.open()
    for error in (FrameError('one'), EndOfInput('end')):
        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(Opened, 'read', fail)
        with pytest.raises(type(error)):
            source.read(RUNNING, 0.02)
    assert not camera.opened[0].closed and source.losses == 0


def test_the_first_opening_fails_loudly_and_waiting_ends_when_told(camera):
    camera.plugged = False
    source = Reconnecting(camera.open, 5.0)
    with pytest.raises(SourceError, match='nothing is plugged in'):
        source.open()
    camera.plugged = True
    source.open()
    source.open()       # is open: nothing to do
    assert len(camera.opened) == 1
    camera.plugged = False
    source.read(RUNNING, 0.02)
    stopping = threading.Event()
    stopping.set()
    assert source.read(stopping, 60.0) is None
    source.close()

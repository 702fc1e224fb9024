"""A connected RealSense, as far as the SDK's entry points go: found, unplugged, stalled, reset.

What stands in for the hardware is the outermost edge, rs.context and rs.pipeline; the framesets
are the SDK's own, from its software device.
"""

import json
import threading
import time

import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_srvs.srv import Empty

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.nodes import realsense_camera
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts import realsense_frames
from muon_ad_nodes.parts import realsense_hardware
from muon_ad_nodes.parts import reconnect
from muon_ad_nodes.parts.metadata_topic import MetadataMessage
from muon_ad_nodes.parts.realsense_frames import Framer
from muon_ad_nodes.parts.realsense_hardware import Bus
from muon_ad_nodes.parts.realsense_hardware import HardwareCamera
from muon_ad_nodes.parts.realsense_sdk import Profile
from muon_ad_nodes.parts.realsense_sdk import rs
from muon_ad_nodes.parts.realsense_sdk import Wishes
from muon_ad_nodes.parts.realsense_simulated import SimulatedCamera
from muon_ad_nodes.parts.source import SourceError
from muon_ad_nodes.parts.stamps import nanoseconds

OK = TransitionCallbackReturn.SUCCESS
RUNNING = threading.Event()     # never set
STREAMS = ('color', 'depth')
SMALL = Profile(96, 72, 30)
VGA = Profile(640, 480, 30)
DEVICE = {'source': 'device', 'serial_no': '222'}


class FakeUsb:
    """What is plugged in, and how it behaves; stands in for rs.context."""

    def __init__(self):
        self.plugged = {'111', '222'}
        self.usb_type = '3.2'
        self.stalled = False
        self.cured_by_reset = True
        self.resets = []
        self.options = {}
        self.configs = []
        self.started = 0
        self.changed = None
        self.answers = True
        self.resolves = lambda config: True

    def query_devices(self):
        if not self.answers:
            raise RuntimeError('failed to set power state')
        return [FakeDevice(self, serial_no) for serial_no in sorted(self.plugged)]

    def set_devices_changed_callback(self, callback):
        self.changed = callback


class FakeDevice:
    def __init__(self, usb, serial_no):
        self._usb = usb
        self._serial_no = serial_no

    def supports(self, _info):
        return True

    def get_info(self, info):
        if info == rs.camera_info.serial_number:
            return self._serial_no
        return self._usb.usb_type

    def hardware_reset(self):
        self._usb.resets.append(self._serial_no)
        if self._usb.cured_by_reset:
            self._usb.stalled = False


class FakeConfig:
    def __init__(self, usb):
        self.usb = usb
        self.serial_no = ''
        self.streams = []

    def enable_device(self, serial_no):
        self.serial_no = serial_no

    def enable_stream(self, *wish):
        self.streams.append(wish)

    def can_resolve(self, _pipeline):
        return self.usb.resolves(self)


class FakeSensor:
    def __init__(self, kind, options):
        self.is_depth_sensor = lambda: kind == 'depth'
        self.is_color_sensor = lambda: kind == 'color'
        self.supports = lambda _option: True
        self.set_option = lambda option, value: options.update({(kind, option): value})


class FakePipeline:
    """Framesets of the software device, for as long as the camera is plugged in and well."""

    def __init__(self, usb):
        self._usb = usb
        self._camera = None
        self._serial_no = ''

    def start(self, config):
        if config.serial_no not in self._usb.plugged:
            raise RuntimeError('No device connected')
        self._usb.configs.append(config)
        self._usb.started += 1
        self._serial_no = config.serial_no
        framer = Framer(STREAMS, align=False)
        self._camera = SimulatedCamera(Wishes(SMALL, SMALL), framer, time.time_ns)
        return self

    def get_device(self):
        return self

    def query_sensors(self):
        return [FakeSensor(kind, self._usb.options) for kind in STREAMS]

    def try_wait_for_frames(self, timeout_ms):
        if self._usb.stalled or self._serial_no not in self._usb.plugged:
            time.sleep(min(timeout_ms, 5) * 1e-3)
            return False, None
        frames = self._camera.take(RUNNING, timeout_ms * 1e-3)
        return frames is not None, frames

    def stop(self):
        if self._serial_no not in self._usb.plugged:
            raise RuntimeError('the device was removed')
        self._camera.close()


@pytest.fixture
def usb(monkeypatch):
    usb = FakeUsb()
    monkeypatch.setattr(realsense_hardware, '_context', lambda: usb)
    monkeypatch.setattr(realsense_hardware, 'POLL_S', 0.01)
    monkeypatch.setattr(rs, 'pipeline', lambda _context: FakePipeline(usb))
    monkeypatch.setattr(rs, 'pipeline_wrapper', lambda pipeline: pipeline)
    monkeypatch.setattr(rs, 'config', lambda: FakeConfig(usb))
    monkeypatch.setattr(reconnect, 'FIRST_DELAY_S', 0.01)
    monkeypatch.setattr(reconnect, 'LONGEST_DELAY_S', 0.05)
    monkeypatch.setattr(reconnect, 'FIRST_FRAME_S', 1.0)
    return usb


class Told:
    """What a camera tells of its connection."""

    def __init__(self):
        self.connection, self.warning = {}, ''

    def __call__(self, connection, warning):
        self.connection, self.warning = connection, warning


def open_camera(serial_no, wishes=None, told=None, bus=None):
    return HardwareCamera(
        wishes or Wishes(VGA, VGA), Framer(STREAMS, align=False), bus or Bus(serial_no),
        time.time_ns, told or Told(),
    )


@pytest.fixture
def running(bench, usb):
    """Run the node on the fake camera: node, images and statuses."""

    def run(**parameters):
        node = bench.run(realsense_camera.make, **{**DEVICE, **parameters})
        color = bench.listen(Image, '/camera/color/image_raw', qos.SENSOR)
        statuses = bench.listen(TaskStatus, '/camera/status', qos.LATCHED)
        assert node.trigger_configure() == OK
        assert node.trigger_activate() == OK
        bench.wait(lambda: color, 'images')
        return node, color, statuses

    return run


def values(statuses):
    return {each.key: each.value for each in statuses[-1].values} if statuses else {}


def test_a_connected_camera_is_set_up_and_streamed(running, usb):
    _, color, _ = running(
        depth_module__depth_profile='848x480x30', depth_module__emitter_enabled=0
    )
    config, = usb.configs
    assert config.serial_no == '222'
    assert (rs.stream.depth, 848, 480, rs.format.z16, 30) in config.streams
    assert (rs.stream.color, 640, 480, rs.format.rgb8, 30) in config.streams
    assert usb.options['depth', rs.option.emitter_enabled] == 0
    assert usb.options['color', rs.option.enable_auto_exposure] == 1
    assert usb.options['color', rs.option.global_time_enabled] == 1
    age = time.time_ns() - nanoseconds(color[-1].header.stamp)
    assert 0 < age < 20e9


def test_the_wrong_camera_is_refused_naming_those_connected(usb):
    with pytest.raises(SourceError, match="serial_no is '333'.*'111', '222'"):
        open_camera('333')
    with pytest.raises(SourceError, match="several cameras.*'111', '222'"):
        open_camera('')
    usb.resolves = lambda config: False
    with pytest.raises(SourceError, match='111 cannot stream color 640x480x30.*USB 3.2'):
        open_camera('111')
    usb.plugged.clear()
    with pytest.raises(SourceError, match=r'no RealSense is connected \(looked for 111\)'):
        open_camera('111')


def test_the_camera_that_was_chosen_stays_the_one(usb):
    usb.plugged = {'111'}
    bus = Bus('')
    assert open_camera('', bus=bus)._serial_no == '111'
    usb.plugged = {'111', '222'}
    assert open_camera('', bus=bus)._serial_no == '111'
    usb.plugged = {'222'}
    with pytest.raises(SourceError, match="RealSense 111 is gone; connected are .'222'"):
        open_camera('', bus=bus)


@pytest.mark.parametrize('told_by_sdk', [True, False])
def test_the_bus_is_looked_at_by_itself_and_sooner_when_the_sdk_tells(
    usb, monkeypatch, told_by_sdk
):
    monkeypatch.setattr(realsense_hardware, 'POLL_S', 1000.0 if told_by_sdk else 0.0)
    bus = Bus('222')
    assert bus.present()
    usb.plugged = set()
    if told_by_sdk:
        assert bus.present()        # looked not long ago
        usb.changed(None)
    assert not bus.present()


def test_usb_2_gives_less_and_says_so(usb):
    usb.usb_type = '2.1'
    usb.resolves = lambda config: all(wish[4] == 15 for wish in config.streams)
    told = Told()
    camera = open_camera('222', Wishes(VGA, Profile(1280, 720, 30)), told)
    camera.read(RUNNING, 0.5)
    camera.close()
    assert {wish[1:3] + wish[4:] for wish in usb.configs[-1].streams} == {(640, 480, 15)}
    assert told.connection == {
        'serial_no': '222', 'usb_type': '2.1',
        'color_profile': '640x480x15', 'depth_profile': '640x480x15',
    }
    assert '222 is connected over USB 2.1' in told.warning and '1280x720x30' in told.warning
    alone = open_camera('222', Wishes(None, VGA), told)
    assert alone._wishes == Wishes(None, Profile(640, 480, 15))
    usb.usb_type = '3.2'        # a mode that the camera has not got
    with pytest.raises(SourceError, match='cannot stream'):
        open_camera('222')
    usb.usb_type = '2.1'
    usb.resolves = lambda config: True
    open_camera('222', told=told)
    assert told.warning == '' and told.connection['color_profile'] == '640x480x30'


def test_an_unplugged_camera_is_missed_and_taken_up_again(bench, running, usb):
    node, color, statuses = running()
    usb.plugged = {'111'}
    bench.wait(lambda: statuses and 'RealSense 222 is gone' in statuses[-1].message, 'the word')
    assert statuses[-1].state == 'active'
    bench.wait(lambda: "serial_no is '222'; connected are ['111']" in statuses[-1].message,
               'an attempt')
    color.clear()
    usb.plugged = {'111', '222'}
    usb.changed(None)
    bench.wait(lambda: color, 'images again')
    bench.wait(lambda: statuses[-1].message == '' and 'losses' in values(statuses), 'all is well')
    assert values(statuses)['losses'] == values(statuses)['reopened'] == '1'
    assert values(statuses)['usb_type'] == '3.2'
    assert usb.started == 2
    assert node.trigger_deactivate() == OK


def test_a_bus_that_cannot_be_asked_ends_nothing(bench, running, usb):
    node, color, statuses = running()
    usb.plugged = {'111'}
    bench.wait(lambda: statuses and 'connected are' in statuses[-1].message, 'an attempt')
    usb.answers = False
    bench.wait(lambda: node.failed.is_set() or 'power state' in statuses[-1].message, 'the word')
    usb.plugged = {'111', '222'}
    usb.answers = True
    color.clear()
    bench.wait(lambda: node.failed.is_set() or color, 'images again')
    assert not node.failed.is_set()


def test_a_camera_that_does_not_tell_its_geometry_is_opened_again(
    bench, running, usb, monkeypatch
):
    def lost(_frame):
        raise RuntimeError('xioctl(UVCIOC_CTRL_QUERY) failed')

    node, color, statuses = running()
    with monkeypatch.context() as broken:
        broken.setattr(realsense_frames, 'calibration_of', lost)
        usb.plugged = {'111'}
        bench.wait(lambda: statuses and 'connected are' in statuses[-1].message, 'an attempt')
        usb.plugged = {'111', '222'}
        expected = 'RealSense 222: xioctl(UVCIOC_CTRL_QUERY) failed; attempt'
        bench.wait(
            lambda: node.failed.is_set() or expected in statuses[-1].message, 'the next attempt'
        )
    color.clear()
    bench.wait(lambda: node.failed.is_set() or color, 'images again')
    assert not node.failed.is_set()


def test_a_stalled_camera_is_started_again_and_then_reset(bench, running, usb):
    node, color, statuses = running(stall_s=0.2)
    usb.stalled = True
    bench.wait(lambda: usb.resets == ['222'], 'a reset')
    color.clear()
    bench.wait(lambda: color, 'images again')
    assert usb.started >= reconnect.RESET_EVERY
    bench.wait(lambda: values(statuses).get('resets') == '1', 'the status')
    assert int(values(statuses)['stalls']) >= reconnect.RESET_EVERY


def test_the_camera_is_reset_by_service(bench, running, usb):
    node, color, _ = running()
    client = bench.probe.create_client(Empty, '/camera/hw_reset')
    bench.wait(client.service_is_ready, 'the service')
    client.call_async(Empty.Request())
    bench.wait(lambda: usb.resets == ['222'] and usb.started == 2, 'the reset')
    color.clear()
    bench.wait(lambda: color, 'images again')
    assert node.trigger_deactivate() == OK
    client.call_async(Empty.Request())
    bench.wait(lambda: usb.resets == ['222', '222'], 'the reset of an inactive camera')


def test_every_frame_has_its_metadata(bench, running, usb):
    color, depth = (
        bench.listen(MetadataMessage, f'/camera/{stream}/metadata') for stream in STREAMS
    )
    _, _, statuses = running()
    bench.wait(lambda: len(color) > 2 and len(depth) > 2, 'metadata')
    for stream, messages in (('color', color), ('depth', depth)):
        found = [json.loads(message.json_data) for message in messages]
        assert messages[0].header.frame_id == f'camera_{stream}_optical_frame'
        numbers = [each['frame_number'] for each in found]
        assert numbers == sorted(set(numbers))
        assert found[0]['clock_domain'] == 'hardware_clock'
        assert found[0]['frame_timestamp'] == pytest.approx(numbers[0] * 1000 / SMALL.fps)
    bench.wait(lambda: values(statuses).get('clock_mapping') == 'fitted', 'the status')
    assert values(statuses)['clock_domain'] == 'hardware_clock'
    assert float(values(statuses)['clock_residual_ms']) >= 0

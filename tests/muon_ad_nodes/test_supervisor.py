"""The supervisor against real processes that die, stop, or hang."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image

from muon_ad_msgs.msg import DropReason
from muon_ad_msgs.msg import StageLatency
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.nodes import supervisor
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts import registry
from muon_ad_nodes.parts import shared_memory
from muon_ad_nodes.parts.images import to_message
from muon_ad_nodes.parts.processes import find_nodes
from muon_ad_nodes.parts.processes import identity

FRAIL = Path(__file__).with_name('frail_node.py')
HANG_S = 4.0


@pytest.fixture
def start():
    """Return a function that starts `/<name>` as a process; all of them are killed afterwards."""
    names = []

    def start(name: str, command: tuple = (str(FRAIL),), **environment: str) -> subprocess.Popen:
        names.append(f'/{name}')
        return subprocess.Popen(
            [sys.executable, *command, '--ros-args', '-r', f'__node:={name}',
             '-r', f'image_raw:={name}/image_raw'],
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), **environment},
        )  # fmt: skip

    yield start
    for recipe in find_nodes([f'{name}' for name in names]).values():
        recipe.kill()
    shared_memory.remove_stale()


class Watch:
    """What a supervisor reports: of each node its last status and its line in /diagnostics."""

    def __init__(self, bench, names: list[str]) -> None:
        self.bench = bench
        self.statuses: dict[str, list[TaskStatus]] = {
            name: bench.listen(TaskStatus, f'/{name}/status', qos.LATCHED) for name in names
        }
        self.diagnostics: list[DiagnosticArray] = bench.listen(DiagnosticArray, '/diagnostics')

    def line(self, name: str) -> DiagnosticStatus | None:
        """The newest line of a node."""
        lines = self.diagnostics[-1].status if self.diagnostics else ()
        return next((line for line in lines if line.name == f'muon_ad: /{name}'), None)

    def values(self, name: str) -> dict[str, str]:
        """The newest values of a node."""
        line = self.line(name)
        return {value.key: value.value for value in line.values} if line else {}

    def wait_for_active(self, name: str, but_not: int = 0) -> int:
        """Wait until a node is active and well, in another process than `but_not`."""
        heard = self.statuses[name]

        def well() -> bool:
            line = self.line(name)
            return bool(heard) and heard[-1].state == 'active' and heard[-1].pid != but_not \
                and line is not None and line.level == DiagnosticStatus.OK

        self.bench.wait(well, f'{name} to be active', seconds=60)
        return heard[-1].pid


@pytest.fixture
def watched(bench):
    """Return a function that starts a supervisor in this process."""

    def watched(*names: str, **parameters) -> Watch:
        node = bench.run(
            supervisor.Supervisor, nodes=[f'/{name}' for name in names], hang_s=HANG_S,
            **{'restart_delay_s': 0.1, **parameters},
        )
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        watch = Watch(bench, list(names))
        watch.node = node
        return watch

    return watched


def test_hung_nodes_are_killed_and_started_again(bench, start, watched):
    """One is stopped, in one the worker hangs; a third is well and stays as it is."""
    children = {name: start(name) for name in ('stopped', 'stuck', 'well')}
    watch = watched(*children)
    before = {name: watch.wait_for_active(name) for name in children}
    assert watch.values('well')['frailty'] == 'great'
    assert watch.values('well')['attempts used'] == '0 of 5'

    children['stopped'].send_signal(signal.SIGSTOP)
    publisher = bench.probe.create_publisher(Image, '/stuck/image_raw', qos.PUBLISH)
    bench.wait(lambda: publisher.get_subscription_count() > 0, 'the node to subscribe')
    white = to_message(np.full((8, 8, 3), 255, np.uint8), 'rgb8', Time(), '')

    def died() -> bool:
        publisher.publish(white)    # again and again: the first may come before they are matched
        return children['stuck'].poll() is not None

    bench.wait(died, 'the stuck node to be killed', 60.0)
    for name in ('stopped', 'stuck'):
        assert children[name].wait(60) == -signal.SIGKILL
        watch.wait_for_active(name, but_not=before[name])
        values = watch.values(name)
        assert (values['hangs'], values['restarts']) == ('1', '1')
        assert values['attempts used'] == '1 of 5'
        assert 'hung: ' in values['last trouble'] and 'killed' in values['last trouble']
    assert 'no status for' in watch.values('stopped')['last trouble']
    assert 'at work on one frame' in watch.values('stuck')['last trouble']
    assert watch.statuses['well'][-1].pid == before['well']
    assert watch.values('well')['last trouble'] == ''


def test_node_that_dies_before_its_first_status(start, watched, bench, tmp_path):
    gate = tmp_path / 'gate'
    gate.write_text('wait')
    child = start('infant', FRAIL_GATE=str(gate))
    watch = watched('infant')
    bench.wait(lambda: watch.values('infant').get('state') == 'starting', 'it to be found')
    assert not watch.statuses['infant']
    gate.write_text('die')
    assert child.wait(60) == 1
    bench.wait(lambda: watch.values('infant').get('attempts used', '')[0] != '0', 'its death')
    gate.unlink()
    watch.wait_for_active('infant', but_not=child.pid)
    assert watch.values('infant')['last trouble'].startswith('the process died')


def test_node_that_dies_before_anyone_saw_it(start, watched, bench, monkeypatch, tmp_path):
    """Of which /proc tells nothing any more when the supervisor comes."""
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(tmp_path))
    ours = identity(os.getpid())
    monkeypatch.setattr(registry, 'launcher', lambda: ours)
    child = start('unseen', ('-m', 'muon_ad_nodes.main', 'frame_sync'))
    bench.wait(lambda: registry.registered('/unseen', ours), 'word of how it was started')
    child.kill()
    child.wait()
    watch = watched('unseen')
    watch.wait_for_active('unseen', but_not=child.pid)
    assert watch.values('unseen')['restarts'] == '1'
    assert watch.values('unseen')['last trouble'].startswith('the process died')


def test_a_node_that_was_given_up_has_no_figures_of_its_dead_process(start, watched, bench):
    child = start('hopeless')
    watch = watched('hopeless', restart_limit=0)
    watch.wait_for_active('hopeless')
    assert watch.values('hopeless')['pid'] == str(child.pid)
    child.kill()
    bench.wait(lambda: 'given up' in watch.line('hopeless').message, 'it to be given up')
    assert 'pid' not in watch.values('hopeless')
    assert watch.values('hopeless')['attempts used'] == '0 of 0'


def test_node_that_someone_else_started_again_is_not_started_twice(start, watched, bench):
    first = start('twin')
    watch = watched('twin', restart_delay_s=3.0)
    watch.wait_for_active('twin')
    first.kill()
    first.wait()
    second = start('twin')
    assert watch.wait_for_active('twin', but_not=first.pid) == second.pid
    bench.wait(lambda: 'the process died' in watch.values('twin')['last trouble'], 'the report')
    assert watch.values('twin')['restarts'] == '0'


def test_all_stand_still_and_nobody_is_blamed(bench, start):
    """As when a machine is suspended, or a container paused: for longer than `hang_s`."""
    child = start('sleeper')
    guard = start(
        'guard', ('-m', 'muon_ad_nodes.main', 'supervisor', '--ros-args', '-p', 'hang_s:=1.5',
                  '-p', 'nodes:=["/sleeper"]'),
    )  # fmt: skip
    watch = Watch(bench, ['sleeper'])
    assert watch.wait_for_active('sleeper') == child.pid
    for process in (child, guard):
        process.send_signal(signal.SIGSTOP)
    time.sleep(4.0)
    heard = len(watch.diagnostics)
    # The worst order: the supervisor looks while the node is still away.
    for process in (guard, child):
        process.send_signal(signal.SIGCONT)
    bench.wait(lambda: len(watch.diagnostics) > heard + 3, 'reports again', seconds=60)
    assert watch.wait_for_active('sleeper') == child.pid
    assert watch.values('sleeper')['hangs'] == '0'


def test_inactive_supervisor_takes_no_notice(start, watched, bench):
    start('free')
    watch = watched('free')
    watch.wait_for_active('free')
    watch.node.trigger_deactivate()
    seen = watch.node._statuses['/free']
    heard = len(watch.statuses['free'])
    bench.wait(lambda: len(watch.statuses['free']) > heard + 1, 'more statuses')
    assert watch.node._statuses['/free'] is seen
    watch.node.trigger_activate()
    bench.wait(lambda: watch.node._statuses['/free'] is not seen, 'notice again')
    watch.wait_for_active('free')
    assert watch.values('free')['hangs'] == '0'


def test_shared_memory_of_a_killed_node_goes_when_it_is_old_enough(
    start, watched, bench, monkeypatch
):
    """Not at its death, when it may be too young to be told from that of a starting node."""
    monkeypatch.setattr(supervisor, 'STARTING_S', 2.0)
    child = start('brief')
    watch = watched('brief', restart_limit=0)
    watch.wait_for_active('brief')
    maps = Path(f'/proc/{child.pid}/fd')
    locks = {os.readlink(descriptor) for descriptor in maps.iterdir()}
    segments = [Path(name[:-3]) for name in locks if name.startswith('/dev/shm/fast')
                and name.endswith('_el') and '_port' not in name]
    assert segments
    # Those that others map are removed by Fast DDS itself, after a while; this one by nobody else.
    segments.append(shared_memory.FOLDER / f'fastdds_{child.pid:016x}')
    segments[-1].touch()
    child.kill()
    child.wait()
    bench.wait(
        lambda: watch.line('brief').message.startswith('given up after 0 attempts'), 'its death'
    )
    assert all(segment.exists() for segment in segments)
    bench.wait(lambda: not any(map(Path.exists, segments)), 'the clean-up', seconds=60)


def test_diagnostics_tell_every_reason_and_percentile():
    status = TaskStatus(
        dropped_newer=5, dropped_invalid=1,
        drops=[DropReason(reason='replaced by a newer frame', frames=5),
               DropReason(reason='encoding is cmyk', frames=1)],
        stages=[StageLatency(name='total', p50_ms=20.0, p95_ms=25.0, p99_ms=31.0)],
    )
    values = dict(supervisor._values(status))
    assert values['dropped: replaced by a newer frame'] == '5'
    assert values['dropped: encoding is cmyk'] == '1'
    found = [values[f'total {percentile} (ms)'] for percentile in ('p50', 'p95', 'p99')]
    assert found == ['20.0', '25.0', '31.0']

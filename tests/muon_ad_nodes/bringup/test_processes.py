"""The bringup with real processes: output, deaths, restarts, and every way to stop."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from muon_ad_nodes.parts import registry
from muon_ad_nodes.parts import shared_memory
from muon_ad_nodes.parts.processes import identity
from muon_ad_nodes.parts.processes import Recipe

MARK = 'MUON_AD_TEST_RUN'


class Run:
    """A bringup in a process of its own, whose output is collected."""

    def __init__(self, path: Path, **constants: float) -> None:
        self.mark = uuid.uuid4().hex
        self.started = time.time()
        program = [
            'import sys; from muon_ad_nodes.bringup import __main__, processes',
            *(f'processes.{name} = {value}' for name, value in constants.items()),
            'sys.exit(__main__.main())',
        ]
        words = ['-c', '\n'.join(program)] if constants else ['-m', 'muon_ad_nodes.bringup']
        self.process = subprocess.Popen(
            [sys.executable, *words, str(path)],
            env={**os.environ, MARK: self.mark, 'PYTHONPATH': os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip('\n'))

    def saw(self, pattern: str) -> bool:
        """Whether a line contains the pattern."""
        return any(re.search(pattern, line) for line in list(self.lines))

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        """Wait for a condition; fail with the output so far."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f'waited {seconds} s in vain for {what}; output:\n' + self.text())
            time.sleep(0.005)

    def wait_for(self, pattern: str) -> None:
        """Wait for a line of output."""
        self.wait(lambda: self.saw(pattern), f'output {pattern!r}')

    def pid_of(self, label: str) -> int:
        """The number of a node's process, as the bringup told it."""
        return int(re.search(rf'\[{label}\]: process started with pid \[(\d+)\]', self.text())[1])

    def text(self) -> str:
        """All output so far."""
        return '\n'.join(self.lines)

    def end(self, seconds: float = 30.0) -> int:
        """Wait for the end; return the exit status."""
        status = self.process.wait(seconds)
        self._reader.join(seconds)
        return status

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.end()

    def relatives(self) -> list[psutil.Process]:
        """Every living process of this run, children that lost their parent included."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get(MARK) == self.mark
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def leftovers(self) -> list[str]:
        """Shared memory made since the start that no living process uses."""
        unused = shared_memory._unused()
        return [
            path.name
            for path, _ in unused
            if path.exists() and path.stat().st_ctime >= self.started
        ]

    def close(self) -> None:
        """End whatever a failed test left."""
        for process in self.relatives():
            process.kill()
        self.process.wait()
        self._reader.join()


@pytest.fixture
def run(toys, write, tmp_path, monkeypatch):
    """Return a function that starts a bringup with nodes `exec[:attributes]`."""
    runs = []
    monkeypatch.setenv('MARK', str(tmp_path / 'mark'))

    def run(*toys: str, body: str = '', **constants: float) -> Run:
        for toy in toys:
            name, _, attributes = toy.partition(':')
            body += f'<node pkg="toys" exec="{name}" output="screen" {attributes}/>\n'
        runs.append(Run(write(body), **constants))
        return runs[-1]

    yield run
    for each in runs:
        each.close()


def test_output_is_labelled_and_a_clean_end_gives_zero(run):
    bringup = run('finisher', 'shouter')
    assert bringup.end() == 0
    assert '[finisher-1] first' in bringup.lines
    assert '[finisher-1] last without newline' in bringup.lines
    assert bringup.saw(r'\[INFO\] \[finisher-1\]: process started with pid \[\d+\]')
    assert bringup.saw(r'\[INFO\] \[finisher-1\]: process has finished cleanly \[pid \d+\]')
    # A long line comes in pieces, and the last may be a single letter.
    shouted = [line.removeprefix('[shouter-2] ') for line in bringup.lines]
    assert ''.join(line for line in shouted if set(line) == {'x'}) == 'x' * 200000
    assert '[shouter-2] caf\u00e9' in bringup.lines


def test_a_death_is_told_and_gives_one_while_the_others_run_on(run):
    bringup = run('failing', 'talker:args="a b"', body='<set_env name="COLOUR" value="red"/>\n')
    bringup.wait_for(r'\[failing-1\]: process has died \[pid \d+, exit code 3, cmd .*failing')
    bringup.wait_for(r'\[talker-2\] arguments: a b --ros-args')
    bringup.wait_for(r'\[talker-2\] colour: red')
    assert bringup.process.poll() is None
    assert bringup.stop() == 1
    assert not bringup.relatives()


def test_a_node_that_is_started_again_has_not_failed(run):
    bringup = run('flaky:respawn="true" respawn_delay="0.1"')
    bringup.wait_for('exit code 4')
    bringup.wait_for('second start')
    assert bringup.stop() == 0


def test_how_nodes_were_started_is_kept_while_it_runs(run):
    """Also of one that has died; for the supervisor, which starts nodes again."""
    bringup = run('talker:name="speaker" namespace="hall"', 'failing:name="goner"')
    bringup.wait_for(r'\[talker-1\] arguments')
    bringup.wait_for('exit code 3')
    launcher = identity(bringup.process.pid)
    talker, goner = (registry.registered(name, launcher) for name in ('/hall/speaker', '/goner'))
    assert talker == replace(Recipe.of(bringup.pid_of('talker-1')), command=talker.command)
    assert talker.command[1:3] == ('--ros-args', '-r') and talker.alive()
    assert goner.pid == bringup.pid_of('failing-2') and not goner.alive()
    bringup.stop()
    assert registry.registered('/hall/speaker', launcher) is None


def test_a_node_that_someone_else_stopped_has_failed(run):
    bringup = run('talker')
    bringup.wait_for(r'\[talker-1\] arguments')
    os.kill(bringup.pid_of('talker-1'), signal.SIGINT)
    assert bringup.end() == 1
    assert bringup.saw('exit code -2')


def test_no_restart_is_awaited_when_stopping(run):
    bringup = run('failing:respawn="true" respawn_delay="1000"')
    bringup.wait_for('exit code 3')
    assert bringup.stop() == 1


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_way_to_ask_stops_all_in_order(run, number):
    bringup = run('talker', 'chatter')
    bringup.wait_for(r'\[talker-1\] arguments')
    bringup.wait_for(r'\[chatter-2\] ready')
    assert bringup.stop(number) == 0, bringup.text()
    assert bringup.saw("sending signal 'SIGINT'")
    assert not bringup.saw('SIGTERM')
    assert not bringup.relatives()
    assert not bringup.leftovers()


def test_sigterm_for_what_ignores_sigint(run):
    bringup = run('stubborn', GRACE_S=0.2)
    bringup.wait_for('ready')
    assert bringup.stop() == 0
    assert bringup.saw("sending signal 'SIGTERM'")
    assert not bringup.saw('SIGKILL')


def test_sigkill_for_what_ignores_both_and_that_is_a_failure(run):
    bringup = run('deaf', GRACE_S=0.2)
    bringup.wait_for('ready')
    assert bringup.stop() == 1
    assert bringup.saw("sending signal 'SIGKILL'")
    assert bringup.saw('exit code -9')


def test_a_second_request_hastens(run):
    # Without the half second in which two requests are taken for one.
    bringup = run('stubborn', GRACE_S=1000, SAME_REQUEST_S=0)
    bringup.wait_for('ready')
    bringup.process.send_signal(signal.SIGINT)
    bringup.wait_for("sending signal 'SIGINT'")
    assert bringup.stop() == 0
    assert bringup.saw("sending signal 'SIGTERM'")


def test_one_request_that_comes_twice_is_one(run, tmp_path):
    bringup = run('slow', GRACE_S=1000, SAME_REQUEST_S=1000)
    bringup.wait_for('ready')
    bringup.process.send_signal(signal.SIGINT)
    bringup.wait_for('tick')
    bringup.process.send_signal(signal.SIGINT)
    seen = len(bringup.lines)
    bringup.wait(lambda: len(bringup.lines) > seen + 10, 'the node at work')
    (tmp_path / 'mark').mkdir()
    assert bringup.end() == 0, bringup.text()


def test_what_a_node_leaves_behind_ends_with_it(run):
    bringup = run('parent')
    assert bringup.end() == 0
    assert bringup.saw('left behind: ')
    bringup.wait(lambda: not bringup.relatives(), 'the end of the process left behind')


def test_nodes_die_with_a_killed_bringup_and_the_next_removes_their_memory(run):
    bringup = run('chatter', 'deaf')
    bringup.wait_for(r'\[chatter-1\] ready')
    bringup.wait_for(r'\[deaf-2\] ready')
    bringup.stop(signal.SIGKILL)
    bringup.wait(lambda: not bringup.relatives(), 'the end of the nodes')
    assert bringup.leftovers()
    following = run('finisher')
    assert following.end() == 0
    assert following.saw(r'removed \d+ shared-memory files of dead processes')
    assert not bringup.leftovers()


def test_memory_of_a_killed_node_is_removed(run):
    bringup = run('chatter', 'chatter')
    bringup.wait_for(r'\[chatter-1\] ready')
    bringup.wait_for(r'\[chatter-2\] ready')
    os.kill(bringup.pid_of('chatter-1'), signal.SIGKILL)
    bringup.wait_for('exit code -9')
    seen = len(bringup.lines)
    bringup.wait(lambda: any('[chatter-2] .' in x for x in bringup.lines[seen:]), 'the survivor')
    assert bringup.stop() == 1
    assert not bringup.leftovers()


def nothing(bringup: Run) -> bool:
    """The bringup's own interpreter has just been started."""
    return True


def first_process(bringup: Run) -> bool:
    """The first node's interpreter has just been started."""
    return bringup.saw('process started')


def importing(bringup: Run) -> bool:
    """A node is importing rclpy."""
    return any('/_rclpy' in maps for maps in _maps(bringup))


def first_segment(bringup: Run) -> bool:
    """A node has made its first shared memory."""
    return any('/dev/shm/fast' in maps for maps in _maps(bringup))


def images_flow(bringup: Run) -> bool:
    """Both nodes receive images."""
    return all(bringup.saw(rf'\[chatter-{number}\] ready') for number in (1, 2))


def _maps(bringup: Run) -> list[str]:
    texts = []
    for process in bringup.relatives():
        try:
            texts.append(Path(f'/proc/{process.pid}/maps').read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return texts


MOMENTS = (nothing, first_process, importing, first_segment, images_flow)


@pytest.mark.parametrize('moment', MOMENTS, ids=lambda moment: moment.__name__)
def test_ctrl_c_at_any_moment_leaves_nothing(run, moment):
    bringup = run('chatter', 'chatter')
    bringup.wait(lambda: moment(bringup), moment.__doc__)
    bringup.stop()
    assert not bringup.relatives()
    assert not bringup.leftovers()


def test_reader_that_goes_away_stops_the_nodes(toys, write):
    path = write('<node pkg="toys" exec="chatter" output="screen"/>')
    words = [sys.executable, '-m', 'muon_ad_nodes.bringup', str(path)]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    bringup = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE)
    try:
        bringup.stdout.readline()
        bringup.stdout.close()
        assert bringup.wait(30) == 0
    finally:
        bringup.kill()


def test_program_that_cannot_be_started(run, toys):
    program = toys.parent.parent / 'lib' / 'toys' / 'talker'
    program.write_text('#!/nonexistent/interpreter\n')
    bringup = run('talker', 'finisher')
    assert bringup.end() == 1
    assert bringup.saw(r'\[ERROR\] \[talker-1\]: cannot start .*talker')
    assert bringup.saw(r'\[finisher-2\] first')

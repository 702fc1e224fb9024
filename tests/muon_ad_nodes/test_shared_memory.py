"""Shared memory of killed processes is removed, that of living ones is not."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import release_participants
from support import wait_until

from muon_ad_nodes.parts import shared_memory

CHATTER = Path(__file__).with_name('chatter.py')


class Chatter:
    """A ROS process that hears itself."""

    def __init__(self) -> None:
        self.heard = 0
        self.process = subprocess.Popen(
            [sys.executable, str(CHATTER)], stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.wait_for_images()

    def _read(self) -> None:
        for _ in self.process.stdout:
            self.heard += 1

    def wait_for_images(self) -> None:
        """Wait until three more of its own images have come back."""
        target, deadline = self.heard + 3, time.monotonic() + 30
        while self.heard < target:
            assert time.monotonic() < deadline, 'the process hears nothing'
            time.sleep(0.01)

    def files(self) -> set[Path]:
        """The files in /dev/shm that it maps or keeps open."""
        maps = Path(f'/proc/{self.process.pid}/maps').read_text()
        found = {Path(name) for name in re.findall(r'/dev/shm/fast\S+', maps)}
        for descriptor in Path(f'/proc/{self.process.pid}/fd').iterdir():
            target = os.readlink(descriptor).removesuffix(' (deleted)')
            if target.startswith('/dev/shm/fast'):
                found.add(Path(target))
        return found

    def segment(self) -> Path:
        """Its own segment: the one whose lock it keeps open."""
        (lock,) = (path for path in self.files() if re.fullmatch(r'.*_[0-9a-f]{16}_el', path.name))
        return Path(str(lock).removesuffix('_el'))

    def ports(self) -> set[str]:
        """The ports that it reads, of which it keeps the locks open."""
        return {
            path.name.removesuffix('_el')
            for path in self.files() if re.fullmatch(r'.*_port\d+_el', path.name)
        }

    def end(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        self.process.wait(30)
        self._reader.join()


@pytest.fixture
def chatter():
    """Return a function that starts such a process."""
    # What earlier tests left in this process would map the segments of these.
    release_participants()
    started = []

    def start() -> Chatter:
        started.append(Chatter())
        return started[-1]

    yield start
    for each in started:
        each.end(signal.SIGKILL)
    shared_memory.remove_stale()


def test_killed_process_loses_its_memory_and_the_living_keeps_its_own(chatter):
    victim, survivor = chatter(), chatter()
    segment = victim.segment()
    assert segment in victim.files()
    # Each maps the other's files as it finds them, so only what one of them uses is certain.
    used = victim.files() | survivor.files()

    assert not used & set(shared_memory.remove_stale())
    assert all(path.exists() for path in used)

    victim.end(signal.SIGKILL)
    assert segment.exists()
    # The survivor may still map what it has received from; nobody else uses the victim's now.
    survivor.wait_for_images()
    removed = set(shared_memory.remove_stale())
    assert not removed & survivor.files()
    survivor.wait_for_images()

    survivor.end(signal.SIGINT)
    shared_memory.remove_stale()
    unused = {path for path, _ in shared_memory._unused()}
    assert not unused & used
    assert not segment.exists()


def test_a_new_process_does_not_take_ports_of_a_killed_one_that_others_map(chatter):
    survivor, victim = chatter(), chatter()
    ports = victim.ports()
    assert ports
    wait_until(lambda: ports <= {path.name for path in survivor.files()}, 20, 'both to talk')
    survivor.process.send_signal(signal.SIGSTOP)        # so that it does not let go of them
    victim.end(signal.SIGKILL)
    assert not chatter().ports() & ports
    survivor.process.send_signal(signal.SIGCONT)


def test_a_lone_killed_process(chatter):
    victim = chatter()
    segment = victim.segment()
    victim.end(signal.SIGKILL)
    assert segment.exists()
    removed = shared_memory.remove_stale()
    assert {segment, segment.with_name(segment.name + '_el')} <= set(removed)
    assert not segment.exists()


def names(folder: Path) -> list[str]:
    """The files that are left in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder that stands in for /dev/shm, for what Fast DDS 3 does not leave."""
    monkeypatch.setattr(shared_memory, 'FOLDER', tmp_path)
    monkeypatch.setattr(shared_memory, 'SETTLE_S', 0.0)
    return tmp_path


@pytest.mark.parametrize('generation', ['fastdds', 'fastrtps'])
def test_names_of_both_generations_and_no_others(folder, generation):
    ours = [
        f'{generation}_0123456789abcdef', f'{generation}_0123456789abcdef_el',
        f'{generation}_port7400', f'{generation}_port7400_el', f'{generation}_port7400_sl',
        f'sem.{generation}_port7400_mutex', f'{generation}_port17911_el',
    ]  # fmt: skip
    others = ['fastdds_notes', 'sem.other', 'fastdds_port', 'xfastdds_port1', 'lttng-ust-wait-6']
    for name in ours + others:
        (folder / name).touch()
    assert [path.name for path in shared_memory.remove_stale()] == sorted(ours)
    assert names(folder) == sorted(others)


def test_one_lock_protects_its_whole_group_only(folder):
    import fcntl

    for name in ('fastdds_port1', 'fastdds_port1_sl', 'sem.fastdds_port1_mutex', 'fastdds_port2'):
        (folder / name).touch()
    with (folder / 'fastdds_port1_sl').open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        shared_memory.remove_stale()
        assert names(folder) == ['fastdds_port1', 'fastdds_port1_sl', 'sem.fastdds_port1_mutex']
    shared_memory.remove_stale()
    assert names(folder) == []


def test_mapping_protects_without_a_lock(folder):
    import mmap

    path = folder / 'fastdds_port3'
    path.write_bytes(bytes(4096))
    with path.open('r+b') as file, mmap.mmap(file.fileno(), 4096):
        assert shared_memory.remove_stale() == []
    assert shared_memory.remove_stale() == [path]


def test_ports_of_the_dead_are_avoided_and_no_others(folder):
    import fcntl
    import mmap

    ports = {owner: folder / f'fastdds_port{n}' for n, owner in enumerate(OWNERS)}
    with ExitStack() as mapping:
        for owner, path in ports.items():
            lock = path.with_name(f'{path.name}_el')
            path.write_bytes(bytes(4096))
            lock.touch()
            if owner == 'living':
                fcntl.flock(mapping.enter_context(lock.open()), fcntl.LOCK_EX)
            if owner != 'dead, mapped by nobody':
                file = mapping.enter_context(path.open('r+b'))
                mapping.enter_context(mmap.mmap(file.fileno(), 4096))
            if owner == 'dead, its file replaced':
                path.unlink()
                path.write_bytes(bytes(4096))
        dangerous = sorted(
            ports[owner].name for owner in ('dead, mapped', 'dead, its file replaced')
        )
        with shared_memory.ports_of_the_dead_avoided() as avoided:
            assert avoided == dangerous
            with shared_memory.ports_of_the_dead_avoided() as by_another:
                assert by_another == dangerous
            assert locked_ports(folder) == {*dangerous, ports['living'].name}
        assert locked_ports(folder) == {ports['living'].name}
        shared_memory.remove_stale()
        assert set(ports.values()) - set(folder.iterdir()) == {ports['dead, mapped by nobody']}


OWNERS = ('living', 'dead, mapped', 'dead, its file replaced', 'dead, mapped by nobody')


def locked_ports(folder: Path) -> set[str]:
    """The ports whose locks somebody holds."""
    return {
        path.name.removesuffix('_el')
        for path in folder.glob('*_el') if shared_memory._is_locked(path)
    }


def test_nothing_to_do(folder):
    assert shared_memory.remove_stale() == []


def test_what_was_just_made_is_left_alone_where_an_age_is_given():
    path = shared_memory.FOLDER / f'fastdds_{os.getpid():016x}'
    path.touch()
    try:
        assert path not in shared_memory.remove_stale(older_than_s=60.0)
        assert path in shared_memory.remove_stale()
    finally:
        path.unlink(missing_ok=True)

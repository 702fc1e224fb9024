"""Makes this machine ready: `python3 -m tools.setup [run|learn|lint]`.

Steps already done are recognised by the contents they were made from and by the files they left,
so a second call takes a moment and no network; an interrupted or damaged one is made good.
"""

import argparse
import fcntl
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.setup import console
from tools.setup import host
from tools.setup import venv
from tools.setup import workspace
from tools.setup.stamps import digest
from tools.setup.stamps import Stamp

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / '.venv'
STAMPS = VENV / '.setup'
REQUIREMENTS = ROOT / 'requirements'
INTERRUPTED = 130

INCLUDES = """
import json, numpy, sysconfig
print(json.dumps([sysconfig.get_path('include'), numpy.get_include()]))
"""


@dataclass(frozen=True)
class Step:
    """One stage of the set-up; `make` fills the stamp's trees from what `key` is a digest of."""

    title: str
    stamp: Stamp
    key: str
    make: Callable[[], None]


class Setup:
    """The steps for one interpreter and one ROS, with the environment their commands run in."""

    def __init__(self, python: host.Python, ros: host.Ros | None, lock: int) -> None:
        self.python = python
        self.ros = ros
        self.pins = REQUIREMENTS / f'lock-{python.minor}.txt'
        self.packages = venv.site_packages(VENV, python)
        self.environment = workspace.clean_environment(os.environ, ROOT, ros)
        self.run = functools.partial(console.run, environment=self.environment, lock=lock)
        identity = [python.executable, python.version, str(ros), str(ROOT)]
        self.origin = digest(*identity, REQUIREMENTS / 'uv.txt')
        recipe = [*REQUIREMENTS.glob('*.txt'), *Path(__file__).parent.glob('*.py')]
        self.recipe = digest(self.origin, *sorted(recipe))

    def steps(self, profile: str) -> list[Step]:
        """Return the steps that `profile` needs, in order."""
        suite = [self._environment(), self._suite()]
        return {
            'run': [*suite, self._workspace()],
            'learn': [*suite, self._packages('learn', ['learn', 'test']), self._workspace()],
            'lint': [self._environment(), self._packages('lint', ['lint'])],
        }[profile]

    def _environment(self) -> Step:
        make = functools.partial(venv.create, ROOT, self.python, self.ros is not None, self.run)
        title = f'virtual environment with Python {self.python.version}'
        return Step(title, Stamp(STAMPS / 'environment.json', (VENV / 'bin',)), self.origin, make)

    def _packages(self, name: str, groups: list[str]) -> Step:
        files = [REQUIREMENTS / f'{group}.txt' for group in groups]
        make = functools.partial(venv.install, ROOT, files, self.pins, self.run)
        stamp = Stamp(STAMPS / f'{name}.json', (VENV / 'bin', VENV / 'lib', VENV / 'share'))
        return Step(f'packages: {", ".join(groups)}', stamp, self.recipe, make)

    def _suite(self) -> Step:
        groups = ['runtime']
        if not (self.ros and self.python.colcon):
            groups.append('colcon')
        if self.ros is None:
            groups.append('ros')
        step = self._packages('suite', groups)
        libusb = host.has_libusb()

        def make() -> None:
            step.make()
            if self.ros is None:
                self._repair_ros()
            venv.link_libusb(VENV, self.packages, libusb)
            venv.connect_workspace(ROOT, self.packages, self.python)

        return Step(step.title, step.stamp, digest(step.key, str(libusb)), make)

    def _repair_ros(self) -> None:
        answer = subprocess.run(
            [str(VENV / 'bin' / 'python'), '-c', INCLUDES], env=self.environment,
            stdout=subprocess.PIPE, text=True, check=True,
        )
        changed = venv.repair_ros_wheels(VENV, *json.loads(answer.stdout))
        console.say(f'      include paths of the ROS wheels corrected in {changed} files')

    def _workspace(self) -> Step:
        home = ROOT / 'ros_ws'
        stamp = Stamp(home / 'install' / '.setup.json', (home / 'build', home / 'install'))
        tools = [REQUIREMENTS / 'colcon.txt', REQUIREMENTS / 'ros.txt', Path(workspace.__file__)]
        key = digest(self.origin, workspace.fingerprint(home / 'src'), *tools)
        python = VENV / 'bin' / 'python'
        generators = Path(self.python.executable) if self.ros else python
        make = functools.partial(workspace.build, home, python, generators, self.run)
        return Step('ROS workspace (colcon build)', stamp, key, make)


def pending(steps: list[Step]) -> list[tuple[Step, str]]:
    """Return the steps to run, each with the reason.

    Packages are added to a sound environment; a spoilt one is made anew with everything in it,
    because uv trusts what a package's metadata says and would not see that its files are missing.
    """
    states = [(step, step.stamp.state(step.key)) for step in steps]
    inside = {state for step, state in states if step.stamp.path.parent == STAMPS}
    anew = states[0][1] != 'current' or not inside.isdisjoint(('unfinished', 'damaged'))
    todo = []
    for step, state in states:
        if state != 'current':
            todo.append((step, state))
        elif anew and step.stamp.path.parent == STAMPS:
            todo.append((step, 'the environment is made anew'))
    return todo


def set_up(profile: str, lock: int) -> None:
    """Bring everything that `profile` needs up to date; raise SetupError where that fails."""
    start = time.monotonic()
    host.require_plain_path(ROOT)
    ros = host.sourced_ros(os.environ, ROOT)
    setup = Setup(host.find_python(ros), ros, lock)
    todo = pending(setup.steps(profile))
    if not todo:
        console.say(f'set-up is complete ({time.monotonic() - start:.1f} s)')
        return
    host.require_tools(setup.python)
    if profile != 'lint':
        if ros is None:
            host.require_wheels()
        console.say(f'ROS 2: {ros.distro}, as sourced' if ros else 'ROS 2: Kilted, from wheels')
    for number, (step, reason) in enumerate(todo, 1):
        note = '' if reason == 'new' else f' (again: {reason})'
        with console.progress(f'[{number}/{len(todo)}] {step.title}{note}'):
            step.stamp.begin()
            step.make()
            step.stamp.finish(step.key)
    console.say(f'set-up is complete ({time.monotonic() - start:.1f} s)')


def only_one(folder: Path) -> int:
    """Wait until no other set-up works in `folder`; return the lock, held until we are gone."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        console.say('another set-up is running in this folder: waiting for it')
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def main() -> int:
    """Run the set-up; the exit status is 0 when everything is there."""
    parser = argparse.ArgumentParser(prog='python3 -m tools.setup', description=__doc__)
    parser.add_argument(
        'profile', nargs='?', default='run', choices=('run', 'learn', 'lint'),
        help='run: what the suite needs; learn: also torch and pytest; lint: only ruff',
    )
    profile = parser.parse_args().profile
    # make hands SIGTERM on; treated like Ctrl-C, it also ends what we started.
    for sign in console.INTERRUPTS:
        signal.signal(sign, signal.default_int_handler)
    try:
        set_up(profile, only_one(ROOT))
    except console.SetupError as error:
        print(f'set-up: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        hint = 'if another user made it, `make clean` as that user'
        print(f'set-up: {error}; {hint}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('set-up: interrupted; the next run makes it good', file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == '__main__':
    sys.exit(main())

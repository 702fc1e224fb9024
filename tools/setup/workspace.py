"""The ROS workspace: what its build depends on, and the build."""

import os
import shutil
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path

from tools.setup.console import say
from tools.setup.console import SetupError
from tools.setup.environment import BOOTSTRAPPER_GUARD
from tools.setup.environment import GUARD
from tools.setup.host import entries
from tools.setup.host import Ros
from tools.setup.stamps import digest

PATH_VARIABLES = (
    'AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH', 'COLCON_PREFIX_PATH', 'LD_LIBRARY_PATH',
    'PYTHONPATH',
)
# Left by the make that called us, an active environment, or a Python that prepared its paths.
UNWANTED = ('MAKEFLAGS', 'MFLAGS', 'MAKELEVEL', 'PYTHONHOME', 'VIRTUAL_ENV', BOOTSTRAPPER_GUARD)
# Installed by name through links; their contents, like those of Python modules, stay live.
LINKED = ('launch', 'models', 'resource')
BUILD_FILES = ('package.xml', 'setup.py', 'setup.cfg', 'CMakeLists.txt')
COLCON = 'import sys; from colcon_core.command import main; sys.exit(main())'


def fingerprint(source: Path) -> str:
    """Return a digest of what makes a new build necessary in the packages below `source`."""
    contents = [path for name in BUILD_FILES for path in source.glob(f'*/{name}')]
    contents += [path for kind in ('msg', 'srv', 'action') for path in source.rglob(f'*.{kind}')]
    linked = [folder for name in LINKED for folder in source.glob(f'*/{name}')]
    names = [path for folder in linked for path in folder.resolve().rglob('*')]
    listed = sorted(str(path) for path in [*contents, *names] if path.name != '__pycache__')
    return digest('\n'.join(listed), *sorted(contents))


def clean_environment(environ: Mapping[str, str], root: Path, ros: Ros | None) -> dict[str, str]:
    """Return the variables for set-up commands: the sourced ROS or our wheels, nothing older."""
    result = {name: value for name, value in environ.items() if name not in UNWANTED}
    for name in PATH_VARIABLES:
        kept = os.pathsep.join(entries(environ, name, root))
        result.pop(name, None)
        if kept:
            result[name] = kept
    venv = root / '.venv'
    if ros is None:
        result.pop('PYTHONPATH', None)
        result.update(AMENT_PREFIX_PATH=str(venv), CMAKE_PREFIX_PATH=str(venv))
    result['PATH'] = os.pathsep.join([str(venv / 'bin'), environ.get('PATH', os.defpath)])
    result['PYTHONNOUSERSITE'] = '1'
    result['COLCON_LOG_LEVEL'] = 'error'  # it warns that the wheels' prefix is no workspace
    result[GUARD] = str(root / 'ros_ws' / 'install')  # what is being built is not used yet
    return result


def build(
    workspace: Path, python: Path, generators: Path, run: Callable[[list[str]], None]
) -> None:
    """Build every package from scratch with colcon, so that nothing half-made is kept.

    The nodes will run with the interpreter `python`. The message generators run with `generators`:
    the system's where ROS is sourced, because they want the versions that this ROS came with.
    """
    for folder in (workspace / 'build', workspace / 'install'):
        if folder.exists():
            shutil.rmtree(folder)
    log = workspace / 'log'
    try:
        run([
            str(python), '-c', COLCON, '--log-base', str(log), 'build',
            '--base-paths', str(workspace / 'src'), '--build-base', str(workspace / 'build'),
            '--install-base', str(workspace / 'install'), '--merge-install', '--symlink-install',
            '--event-handlers', 'console_stderr-', '--cmake-args', '--no-warn-unused-cli',
            '-DBUILD_TESTING=OFF', f'-DPython3_EXECUTABLE={generators}',
        ])
    except SetupError:
        for errors in sorted(log.glob('latest_build/*/stderr.log')):
            say(f'--- {errors}\n' + '\n'.join(errors.read_text().splitlines()[-30:]))
        raise

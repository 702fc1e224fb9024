"""What this machine offers: a supported Python, a sourced ROS 2, compilers, libusb."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.setup.console import SetupError

PYTHONS = ('3.12', '3.11', '3.10')
DISTROS = ('humble', 'jazzy', 'kilted')
CMAKE_MINIMUM = (3, 20)

PROBE = """
import importlib.util, json, platform, sys, sysconfig
from os.path import exists, join
print(json.dumps({
    'executable': getattr(sys, '_base_executable', None) or sys.executable,
    'version': platform.python_version(),
    'headers': exists(join(sysconfig.get_path('include'), 'Python.h')),
    'ensurepip': getattr(importlib.util.find_spec('ensurepip'), 'origin', None) is not None,
    'colcon': importlib.util.find_spec('colcon_core') is not None,
}))
"""


@dataclass(frozen=True)
class Python:
    """An interpreter outside any virtual environment, and what comes with it."""

    executable: str
    version: str
    headers: bool
    ensurepip: bool
    colcon: bool

    @property
    def minor(self) -> str:
        """The version's first two numbers, such as '3.11'."""
        return '.'.join(self.version.split('.')[:2])


@dataclass(frozen=True)
class Ros:
    """A ROS 2 that is sourced in this shell."""

    distro: str
    prefixes: tuple[str, ...]
    python: str | None


def sourced_ros(environ: Mapping[str, str], root: Path) -> Ros | None:
    """Return the sourced ROS 2, None where none is; raise SetupError for one we do not know."""
    distro = environ.get('ROS_DISTRO')
    if not distro:
        return None
    if distro not in DISTROS:
        raise SetupError(
            f'ROS_DISTRO={distro} is sourced, but Muon-AD knows {", ".join(DISTROS)}: source one '
            'of these, or use a shell without ROS (unset ROS_DISTRO) to have ROS from wheels'
        )
    prefixes = entries(environ, 'AMENT_PREFIX_PATH', root)
    homes = [
        path for path in entries(environ, 'PYTHONPATH', root) if (Path(path) / 'rclpy').is_dir()
    ]
    if not prefixes or not homes:
        raise SetupError(
            f'ROS_DISTRO={distro} is set, but its rclpy is not on PYTHONPATH: source '
            f'/opt/ros/{distro}/setup.bash, or unset ROS_DISTRO to have ROS from wheels'
        )
    version = re.search(r'python(3\.\d+)', homes[0])
    return Ros(distro, tuple(prefixes), version.group(1) if version else None)


def entries(environ: Mapping[str, str], variable: str, root: Path) -> list[str]:
    """Return the paths in `variable`, those of our own workspace and environment left out."""
    paths = environ.get(variable, '').split(os.pathsep)
    return [path for path in paths if path and root not in (Path(path), *Path(path).parents)]


def require_plain_path(root: Path) -> None:
    """Raise SetupError for a folder that colcon's scripts and search paths cannot name."""
    if re.search(r"[\s:;\"']", str(root)):
        raise SetupError(
            f'{root}: executables cannot start from a path with spaces, colons or quotes; '
            'move the project'
        )


def find_python(ros: Ros | None) -> Python:
    """Return the interpreter for the environment: the running one if it fits, else one on PATH."""
    wanted = (ros.python,) if ros and ros.python else PYTHONS
    running = getattr(sys, '_base_executable', None) or sys.executable
    names = [running, *(f'python{version}' for version in wanted)]
    for name in names:
        python = probe(name)
        if python and python.minor in wanted:
            return python
    if ros:
        raise SetupError(f'ROS {ros.distro} needs Python {wanted[0]}, which is not on PATH')
    raise SetupError(
        f'Python {platform.python_version()} is not supported: install Python 3.10, 3.11 or 3.12 '
        '(apt install python3.12 python3.12-venv python3.12-dev), or name one with PYTHON='
    )


def probe(name: str) -> Python | None:
    """Ask the interpreter `name` what it has; None where there is none that runs."""
    path = shutil.which(name)
    if path is None:
        return None
    # -E: a sourced ROS on PYTHONPATH must not answer for the interpreter; a pyenv shim may fail.
    answer = subprocess.run([path, '-E', '-s', '-c', PROBE], capture_output=True, text=True)
    return Python(**json.loads(answer.stdout)) if answer.returncode == 0 else None


def require_tools(python: Python) -> None:
    """Raise SetupError naming everything that is missing and the packages that have it."""
    missing = {tool: tool for tool in ('gcc', 'g++', 'cmake', 'make') if not shutil.which(tool)}
    if not python.headers:
        missing[f'Python.h of {python.executable}'] = f'python{python.minor}-dev'
    if not python.ensurepip and not shutil.which('uv'):
        missing[f'venv of {python.executable}'] = f'python{python.minor}-venv'
    if missing:
        sudo = '' if os.geteuid() == 0 else 'sudo '
        raise SetupError(
            f'missing: {", ".join(missing)}; install with: '
            f'{sudo}apt install {" ".join(missing.values())}'
        )
    _require_cmake()


def _require_cmake() -> None:
    answer = subprocess.run(['cmake', '--version'], capture_output=True, text=True, check=True)
    version = re.search(r'(\d+)\.(\d+)', answer.stdout)
    if tuple(map(int, version.groups())) < CMAKE_MINIMUM:
        raise SetupError(
            f'cmake {version.group()} is too old: 3.20 or newer is needed (pip install cmake)'
        )


def require_wheels() -> None:
    """Raise SetupError where ROS 2 is not published as wheels."""
    if (platform.system(), platform.machine()) != ('Linux', 'x86_64'):
        raise SetupError(
            f'no ROS wheels for {platform.system()} {platform.machine()}: install ROS 2 '
            f'({", ".join(DISTROS)}) and source its setup.bash, then try again'
        )


def has_libusb() -> bool:
    """Tell whether the system has the library that pyrealsense2 loads."""
    clean = {name: value for name, value in os.environ.items() if name != 'LD_LIBRARY_PATH'}
    load = [sys.executable, '-I', '-S', '-c', "import ctypes; ctypes.CDLL('libusb-1.0.so.0')"]
    return subprocess.run(load, env=clean, stderr=subprocess.DEVNULL).returncode == 0

"""The virtual environment: creation, pinned packages, the repair of the ROS wheels, libusb."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tools.setup import environment
from tools.setup.host import Python

Run = Callable[[list], None]

NAME = 'muon_ad_environment'


def create(root: Path, python: Python, system_packages: bool, run: Run) -> None:
    """Make `.venv` anew, with uv in it. ROS packages of the system need `system_packages`."""
    venv = root / '.venv'
    if venv.is_symlink():
        venv.unlink()
    elif venv.exists():
        shutil.rmtree(venv)
    options = ['--system-site-packages'] if system_packages else []
    pin = ['--requirement', str(root / 'requirements' / 'uv.txt')]
    if python.ensurepip:
        run([python.executable, '-m', 'venv', *options, str(venv)])
        run([str(venv / 'bin' / 'python'), '-m', 'pip', 'install', '--quiet', *pin])
    else:  # Debian without python3-venv, but with an uv
        uv = shutil.which('uv')
        run([uv, 'venv', '--quiet', *options, '--python', python.executable, str(venv)])
        run([uv, 'pip', 'install', '--quiet', '--python', str(venv / 'bin' / 'python'), *pin])


def install(root: Path, files: list[Path], lock: Path, run: Run) -> None:
    """Install the pinned requirements in `files`, their own dependencies pinned by `lock`."""
    python = root / '.venv' / 'bin' / 'python'
    requirements = [part for file in files for part in ('--requirement', str(file))]
    uv = str(root / '.venv' / 'bin' / 'uv')
    # Compiled once here, rather than by every node at its start where nothing may be written.
    run([
        uv, 'pip', 'install', '--compile-bytecode', '--python', str(python), *requirements,
        '--constraint', str(lock),
    ])


def site_packages(venv: Path, python: Python) -> Path:
    """Return the folder of installed packages."""
    return venv / 'lib' / f'python{python.minor}' / 'site-packages'


def repair_ros_wheels(venv: Path, include: str, numpy_include: str) -> int:
    """Put our include paths into the wheels' CMake files; return how many files were changed.

    The wheels export `/opt/python/cpXY-cpXY/include/pythonX.Y` and NumPy's headers under the same
    prefix: folders of the machine that built them. CMake stops where they do not exist.
    """
    changed = 0
    for file in (venv / 'share').rglob('*.cmake'):
        text = file.read_text()
        fixed = rewrite_includes(text, include, numpy_include)
        if fixed != text:
            # uv links files into its cache: write a new file instead of changing the cached one.
            file.unlink()
            file.write_text(fixed)
            changed += 1
    return changed


def rewrite_includes(text: str, include: str, numpy_include: str) -> str:
    """Return the CMake `text` with the builder's two include paths replaced."""
    builder = r'/opt/_?python/[^/;"\s]+'
    text = re.sub(rf'{builder}/[^;"\s]*?numpy/(_core|core)/include', lambda _: numpy_include, text)
    return re.sub(rf'{builder}/include/python3\.\d+', lambda _: include, text)


def link_libusb(venv: Path, packages: Path, system_has_it: bool) -> None:
    """Put libusb from the wheel where the loader looks, only where the system has none."""
    link = venv / 'lib' / 'libusb-1.0.so.0'
    link.unlink(missing_ok=True)
    if not system_has_it:
        link.symlink_to(packages / 'libusb_package' / 'libusb-1.0.so')


def connect_workspace(root: Path, packages: Path, python: Python) -> None:
    """Make the workspace importable, and `muon-ad` a command, from the environment itself."""
    shutil.copyfile(environment.__file__, packages / f'{NAME}.py')
    workspace = root / 'ros_ws'
    folders = [
        workspace / 'install' / 'lib' / f'python{python.minor}' / 'site-packages',
        workspace / 'install' / 'local' / 'lib' / f'python{python.minor}' / 'dist-packages',
        workspace / 'build' / 'muon_ad',
        workspace / 'build' / 'muon_ad_nodes',
    ]
    lines = [f'import {NAME}; {NAME}.activate()', *map(str, folders)]
    (packages / 'muon_ad.pth').write_text('\n'.join(lines) + '\n')
    command = root / '.venv' / 'bin' / 'muon-ad'
    command.unlink(missing_ok=True)
    command.symlink_to(workspace / 'install' / 'bin' / 'muon-ad')

import os
import subprocess
import sys
from pathlib import Path

from tools.setup import environment
from tools.setup import venv

EXPORT = (
    'set_target_properties(m PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_IMPORT_PREFIX}/include;'
    '/opt/python/cp311-cp311/include/python3.11;'
    '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include")\n'
)


def test_both_include_paths_of_the_builder_are_replaced():
    fixed = venv.rewrite_includes(EXPORT, r'/usr/include\1', '/venv/numpy/core/include')
    assert fixed == (
        'set_target_properties(m PROPERTIES INTERFACE_INCLUDE_DIRECTORIES '
        r'"${_IMPORT_PREFIX}/include;/usr/include\1;/venv/numpy/core/include")' '\n'
    )


def test_repair_leaves_the_cached_copy_of_a_file_alone(tmp_path):
    cached = tmp_path / 'cache.cmake'
    cached.write_text(EXPORT)
    share = tmp_path / 'venv' / 'share'
    share.mkdir(parents=True)
    os.link(cached, share / 'export.cmake')
    assert venv.repair_ros_wheels(tmp_path / 'venv', '/usr/include', '/numpy') == 1
    assert cached.read_text() == EXPORT
    assert '/opt/python' not in (share / 'export.cmake').read_text()
    assert venv.repair_ros_wheels(tmp_path / 'venv', '/usr/include', '/numpy') == 0


def test_libusb_is_linked_only_where_the_system_has_none(tmp_path):
    (tmp_path / 'lib').mkdir()
    link = tmp_path / 'lib' / 'libusb-1.0.so.0'
    venv.link_libusb(tmp_path, tmp_path / 'packages', system_has_it=False)
    assert os.readlink(link) == str(tmp_path / 'packages' / 'libusb_package' / 'libusb-1.0.so')
    venv.link_libusb(tmp_path, tmp_path / 'packages', system_has_it=True)
    assert not link.is_symlink()


def test_prepend_puts_paths_first_and_only_once(monkeypatch):
    monkeypatch.setenv('SOME_PATH', '/b:/a::/c')
    environment.prepend('SOME_PATH', '/a', '/d')
    assert os.environ['SOME_PATH'] == '/a:/d:/b:/c'


def test_python_starts_again_with_the_workspace_on_its_paths(tmp_path):
    """As under a sourced ROS, where no wheels start Python again; twice would not end."""
    project = tmp_path / 'project'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', project / '.venv'], check=True)
    python = project / '.venv' / 'bin' / 'python'
    [packages] = project.glob('.venv/lib/python3*/site-packages')
    (packages / 'environment.py').write_text(Path(environment.__file__).read_text())
    (packages / 'a.pth').write_text('import environment; environment.activate()\n')
    show = 'import os, sys; print(os.environ["LD_LIBRARY_PATH"], os.environ["AMENT_PREFIX_PATH"])'
    clean = {'PATH': os.environ['PATH'], 'AMENT_PREFIX_PATH': '/opt/ros/humble'}
    out = subprocess.run([python, '-c', show], env=clean, stdout=subprocess.PIPE, text=True)
    libraries, prefixes = out.stdout.split()
    assert libraries == f'{project}/ros_ws/install/lib:{project}/.venv/lib'
    assert prefixes == f'{project}/ros_ws/install:/opt/ros/humble'

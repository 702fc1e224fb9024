import shutil
import sys

import pytest

from tools.setup import host
from tools.setup.console import SetupError


@pytest.fixture
def humble(tmp_path):
    """The variables of a shell in which a (pretended) ROS 2 Humble is sourced."""
    home = tmp_path / 'opt' / 'local' / 'lib' / 'python3.10' / 'dist-packages'
    (home / 'rclpy').mkdir(parents=True)
    return {
        'ROS_DISTRO': 'humble', 'AMENT_PREFIX_PATH': str(tmp_path / 'opt'), 'PYTHONPATH': str(home)
    }


def test_without_ros_distro_nothing_is_sourced(tmp_path):
    assert host.sourced_ros({'AMENT_PREFIX_PATH': '/opt/x'}, tmp_path) is None


def test_a_sourced_ros_is_found_with_its_python(humble, tmp_path):
    ros = host.sourced_ros(humble, tmp_path / 'project')
    assert ros == host.Ros('humble', (str(tmp_path / 'opt'),), '3.10')


def test_the_own_workspace_on_the_paths_is_not_the_sourced_ros(humble, tmp_path):
    root = tmp_path / 'project'
    own = f'{root}/ros_ws/install:{humble["AMENT_PREFIX_PATH"]}'
    assert host.sourced_ros({**humble, 'AMENT_PREFIX_PATH': own}, root).prefixes == (
        humble['AMENT_PREFIX_PATH'],
    )


def test_a_ros_without_its_paths_is_refused(tmp_path):
    with pytest.raises(SetupError, match='source /opt/ros/jazzy/setup.bash'):
        host.sourced_ros({'ROS_DISTRO': 'jazzy'}, tmp_path)


def test_an_unknown_ros_is_refused_by_name(humble, tmp_path):
    with pytest.raises(SetupError, match='ROS_DISTRO=foxy.*humble, jazzy, kilted'):
        host.sourced_ros({**humble, 'ROS_DISTRO': 'foxy'}, tmp_path)


@pytest.mark.parametrize('name', ['my robot', 'a:b', "it's"])
def test_a_path_that_breaks_executables_is_refused(tmp_path, name):
    host.require_plain_path(tmp_path / 'my-robot')
    with pytest.raises(SetupError, match='move the project'):
        host.require_plain_path(tmp_path / name)


def test_the_running_python_is_preferred_and_described():
    python = host.find_python(None)
    assert python.minor == f'{sys.version_info.major}.{sys.version_info.minor}'
    assert shutil.which(python.executable)


def test_a_python_that_ros_does_not_have_is_an_error():
    with pytest.raises(SetupError, match='ROS humble needs Python 3.99'):
        host.find_python(host.Ros('humble', ('/opt/ros/humble',), '3.99'))


def test_a_name_on_path_that_does_not_run_is_skipped(tmp_path, monkeypatch):
    broken = tmp_path / 'python3.12'
    broken.write_text('#!/bin/sh\nexit 127\n')
    broken.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert host.probe('python3.12') is None
    assert host.probe('python3.10') is None


def test_everything_missing_is_named_with_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    python = host.Python('/usr/bin/python3', '3.11.2', False, False, False)
    with pytest.raises(SetupError) as error:
        host.require_tools(python)
    assert 'missing: gcc, g++, cmake, make, Python.h' in str(error.value)
    assert 'apt install gcc g++ cmake make python3.11-dev python3.11-venv' in str(error.value)


def test_an_old_cmake_is_refused(monkeypatch, tmp_path):
    for tool in ('gcc', 'g++', 'make'):
        (tmp_path / tool).touch(mode=0o755)
    cmake = tmp_path / 'cmake'
    cmake.write_text('#!/bin/sh\necho cmake version 3.18.4\n')
    cmake.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
    python = host.Python('/usr/bin/python3', '3.11.2', headers=True, ensurepip=True, colcon=False)
    with pytest.raises(SetupError, match='cmake 3.18 is too old'):
        host.require_tools(python)

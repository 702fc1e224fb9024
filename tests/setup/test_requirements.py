import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / 'requirements'
GROUPS = ('runtime', 'colcon', 'ros', 'learn', 'test', 'lint', 'uv')
LOCKS = sorted(FOLDER.glob('lock-*.txt'))


def pins(path: Path) -> list[tuple[str, str, str]]:
    """Return (name, version, marker) of every line of a requirement file."""
    lines = [line.split('#')[0].strip() for line in path.read_text().splitlines()]
    found = [re.fullmatch(r'([\w.-]+)(?:\[\w+\])?==([^\s;]+)(?:\s*;\s*(.*))?', line)
             for line in lines if line]
    assert all(found), f'{path}: every line is name==version'
    return [(match[1].lower(), match[2], match[3] or '') for match in found]


@pytest.mark.parametrize('group', GROUPS)
def test_everything_is_pinned(group):
    assert pins(FOLDER / f'{group}.txt')


def test_there_is_a_lock_for_each_supported_python():
    assert [path.stem for path in LOCKS] == ['lock-3.10', 'lock-3.11', 'lock-3.12']


@pytest.mark.parametrize('lock', LOCKS, ids=lambda path: path.stem)
def test_the_lock_follows_the_requirements(lock):
    """After a change of requirements: `make lock`."""
    locked = {(name, version) for name, version, _ in pins(lock)}
    wanted = {
        (name, version)
        for group in GROUPS if group != 'uv'
        for name, version, marker in pins(FOLDER / f'{group}.txt')
        if 'python_version' not in marker
    }
    assert wanted <= locked


@pytest.mark.parametrize('lock', LOCKS, ids=lambda path: path.stem)
def test_no_stranger_with_the_name_of_a_ros_package(lock):
    names = {name for name, _, _ in pins(lock)}
    assert not names & {'launch', 'rclpy', 'rosbag2', 'cv-bridge', 'cvbridge3', 'ros2cli'}

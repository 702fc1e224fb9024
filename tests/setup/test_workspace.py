import pytest

from tools.setup import workspace
from tools.setup.host import Ros


@pytest.fixture
def source(tmp_path):
    """A workspace with one package whose models folder is a link, as in ours."""
    package = tmp_path / 'src' / 'nodes'
    (package / 'nodes').mkdir(parents=True)
    (package / 'nodes' / 'main.py').write_text('pass')
    (package / 'setup.py').write_text('setup()')
    (package / 'Status.msg').write_text('int32 x')
    (tmp_path / 'models' / 'style').mkdir(parents=True)
    (tmp_path / 'models' / 'style' / 'model.yaml').write_text('a')
    (package / 'models').symlink_to(tmp_path / 'models')
    return tmp_path / 'src'


@pytest.mark.parametrize('change', [
    lambda src: (src / 'nodes' / 'Status.msg').write_text('int64 x'),
    lambda src: (src / 'nodes' / 'setup.py').write_text('setup(1)'),
    lambda src: (src / 'nodes' / 'models' / 'style' / 'new.onnx').touch(),
    lambda src: (src / 'nodes' / 'models' / 'style' / 'model.yaml').unlink(),
])
def test_what_is_compiled_or_installed_by_name_asks_for_a_build(source, change):
    before = workspace.fingerprint(source)
    change(source)
    assert workspace.fingerprint(source) != before


def test_what_is_linked_stays_live_without_a_build(source):
    before = workspace.fingerprint(source)
    (source / 'nodes' / 'nodes' / 'main.py').write_text('changed')
    (source / 'nodes' / 'models' / 'style' / 'model.yaml').write_text('changed')
    assert workspace.fingerprint(source) == before


def test_the_wheels_alone_are_on_the_paths_without_ros(tmp_path):
    environ = {
        'PATH': '/usr/bin', 'PYTHONPATH': '/somewhere', 'MAKEFLAGS': ' -j --jobserver-fds=3,4',
        'LD_LIBRARY_PATH': f'{tmp_path}/.venv/lib:/usr/local/lib', 'HOME': '/home/me',
    }
    result = workspace.clean_environment(environ, tmp_path, None)
    assert result['AMENT_PREFIX_PATH'] == result['CMAKE_PREFIX_PATH'] == f'{tmp_path}/.venv'
    assert result['LD_LIBRARY_PATH'] == '/usr/local/lib'
    assert result['PATH'] == f'{tmp_path}/.venv/bin:/usr/bin'
    assert result['HOME'] == '/home/me'
    assert not {'MAKEFLAGS', 'PYTHONPATH'} & set(result)


def test_a_sourced_ros_stays_on_the_paths_without_our_own_workspace(tmp_path):
    environ = {
        'AMENT_PREFIX_PATH': f'{tmp_path}/ros_ws/install:/opt/ros/jazzy',
        'PYTHONPATH': '/opt/ros/jazzy/lib/python3.12/site-packages',
    }
    ros = Ros('jazzy', ('/opt/ros/jazzy',), '3.12')
    result = workspace.clean_environment(environ, tmp_path, ros)
    assert result['AMENT_PREFIX_PATH'] == '/opt/ros/jazzy'
    assert result['PYTHONPATH'] == environ['PYTHONPATH']
    assert 'CMAKE_PREFIX_PATH' not in result

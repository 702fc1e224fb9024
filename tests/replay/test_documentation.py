"""docs/testing.md: its examples run exactly as written, and its tables name what there is."""

import inspect
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from muon_ad.replay.compare import Tolerances
from muon_ad.replay.networks import Choice
from muon_ad.runtime.installed import find_package
from muon_ad.runtime.package import load_package
from muon_ad.testing.bags import write_bag
from muon_ad.testing.networks import replay_bag
from muon_ad.testing.result import Result

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / 'docs' / 'testing.md').read_text(encoding='utf-8')
EXAMPLES = dict(re.findall(r'```python\n# (\w+\.py)\n(.*?)```', TEXT, re.DOTALL))


def run_pytest(folder, *options):
    """Run pytest as a reader of the document would, in a process and folder of its own."""
    environment = {
        **os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
        'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '', 'COLUMNS': '200',
    }
    return subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *options],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )


@pytest.fixture
def suite(tmp_path):
    """A folder with every example of the document."""
    for name, code in EXAMPLES.items():
        (tmp_path / name).write_text(code, encoding='utf-8')
    return tmp_path


def test_examples_run_as_written(suite):
    """The golden is made first, as the document says; then everything holds against it."""
    assert len(EXAMPLES) == 6
    count = sum(code.count('def test_') for code in EXAMPLES.values())
    for options in (['--update-goldens'], []):
        done = run_pytest(suite, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f'{count} passed' in done.stdout
        written = 'goldens/detector.mcap: 4 of /detections' in done.stdout
        assert written == bool(options), 'what was written is listed'
    assert (suite / 'goldens' / 'detector.mcap').is_file()


def test_failure_is_as_shown(suite):
    code = EXAMPLES['test_person.py'].replace('score=0.5', 'score=0.9')
    (suite / 'test_person.py').write_text(code, encoding='utf-8')
    done = run_pytest(suite, 'test_person.py')
    assert done.returncode == 1
    shown = re.search(r'```\n(\'person\' of score.*?)```', TEXT, re.DOTALL).group(1)
    # The score itself may be rounded otherwise on another machine.
    pattern = re.escape(' '.join(shown.split())).replace(r'0\.71', r'0\.7\d')
    assert re.search(pattern, ' '.join(done.stdout.replace('\nE', '\n').split()))
    assert '__tracebackhide__' not in done.stdout, 'the plugin shows its own lines'


def arguments(function):
    return {name for name, one in inspect.signature(function).parameters.items()
            if one.kind is one.KEYWORD_ONLY}


def documented(heading):
    """Return the names in the first column of the tables below a heading."""
    section = TEXT.split(f'\n## {heading}')[1].split('\n## ')[0]
    names = []
    for row in re.findall(r'^\| (`.*?) \|', section, re.MULTILINE):
        names += re.findall(r'`(\w+)', row)
    return set(names)


def test_tables_are_complete():
    assert documented('make_bag') == arguments(write_bag) | {'images', 'name'}
    choice = {field.name for field in fields(Choice)}
    assert documented('run_networks') == (arguments(replay_bag) | choice)
    assert documented('Goldens') == {field.name for field in fields(Tolerances)}
    assert documented('The result') == {
        name for name in vars(Result) if name.startswith('assert_')
    }
    from muon_ad_nodes.lock_step import play

    methods = {'start', 'run', 'play', 'listen', 'wait'}
    assert documented('node_bench') == methods | arguments(play)


def test_classes_of_the_shipped_detector():
    classes = load_package(find_package('detector_default')).classes
    sentence = re.search(r'The shipped detector knows (.*?)\.', TEXT, re.DOTALL)[1]
    assert tuple(re.findall('`(.*?)`', ' '.join(sentence.split()))) == classes


def test_defaults_are_as_documented():
    for field in fields(Tolerances):
        row = re.search(rf'^\| `{field.name}` \| (\S+) \|', TEXT, re.MULTILINE)
        assert float(row.group(1)) == field.default


def test_plugin_costs_other_tests_nothing():
    """Importing it imports neither ROS nor anything of the networks."""
    heavy = ('numpy', 'cv2', 'onnxruntime', 'rclpy', 'rosbags', 'rich')
    code = (
        'import sys, muon_ad.testing, muon_ad_nodes.testing\n'
        f'print([name for name in {heavy} if name in sys.modules])'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout.strip() == '[]'


@pytest.mark.parametrize('way', ['installed', 'named', 'both'])
def test_every_way_to_load_the_plugin(tmp_path, way):
    """As an installed package offers it to pytest, by name, and both at once."""
    (tmp_path / 'test_it.py').write_text('def test_it(make_bag, node_bench): pass\n')
    if way != 'installed':
        (tmp_path / 'conftest.py').write_text(EXAMPLES['conftest.py'])
    if way != 'named':
        installed = tmp_path / 'some_robot-1.dist-info'
        installed.mkdir()
        (installed / 'METADATA').write_text('Metadata-Version: 2.1\nName: some\nVersion: 1\n')
        setup = (ROOT / 'ros_ws' / 'src' / 'muon_ad' / 'setup.py').read_text(encoding='utf-8')
        entry = re.search(r"'pytest11': \['(.*?)'\]", setup).group(1)
        (installed / 'entry_points.txt').write_text(f'[pytest11]\n{entry}\n')
    done = run_pytest(tmp_path, '--import-mode=importlib')
    assert done.returncode == 0, done.stdout + done.stderr
    assert '1 passed' in done.stdout

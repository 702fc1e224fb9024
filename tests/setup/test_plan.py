import subprocess
import sys
from pathlib import Path

import pytest

from tools.setup import __main__ as program
from tools.setup.stamps import Stamp


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """The three steps of a finished set-up: environment, packages, workspace."""
    stamps = tmp_path / '.venv' / '.setup'
    monkeypatch.setattr(program, 'STAMPS', stamps)
    places = {
        'environment': (stamps / 'environment.json', tmp_path / '.venv' / 'bin'),
        'packages': (stamps / 'packages.json', tmp_path / '.venv' / 'lib'),
        'workspace': (tmp_path / 'install' / '.setup.json', tmp_path / 'install'),
    }
    result = []
    for title, (path, tree) in places.items():
        tree.mkdir(parents=True, exist_ok=True)
        (tree / 'file').touch()
        step = program.Step(title, Stamp(path, (tree,)), 'key', lambda: None)
        step.stamp.finish('key')
        result.append(step)
    return result


def titles(steps):
    return [step.title for step, _ in program.pending(steps)]


def test_nothing_is_to_be_done_after_a_finished_setup(steps):
    assert titles(steps) == []


def test_changed_packages_go_into_the_environment_that_is_there(steps):
    steps[1].stamp.finish('older key')
    assert titles(steps) == ['packages']


def test_unfinished_packages_spoil_the_environment(steps):
    steps[1].stamp.begin()
    assert titles(steps) == ['environment', 'packages']


def test_a_lost_interpreter_means_everything_in_the_environment_again(steps, tmp_path):
    (tmp_path / '.venv' / 'bin' / 'file').unlink()
    assert program.pending(steps) == [
        (steps[0], 'damaged'), (steps[1], 'the environment is made anew')
    ]


def test_an_interrupted_build_leaves_the_environment_alone(steps):
    steps[2].stamp.begin()
    assert titles(steps) == ['workspace']


def test_only_one_setup_works_in_a_folder(tmp_path):
    first = program.only_one(tmp_path)
    code = f'from tools.setup.__main__ import only_one; only_one({str(tmp_path)!r}); print("in")'
    second = subprocess.Popen(
        [sys.executable, '-u', '-c', code], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert 'another set-up is running' in second.stdout.readline()
    program.os.close(first)
    assert second.stdout.readline() == 'in\n'
    assert second.wait(10) == 0

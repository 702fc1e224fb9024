"""Recipes of a launch, kept for those who did not see the process."""

import os
import subprocess
import sys

import pytest
from support import wait_until

from muon_ad_nodes.parts import processes
from muon_ad_nodes.parts import registry
from muon_ad_nodes.parts.processes import Recipe

RECIPE = Recipe(
    77, 123, ('node', '-r', '__node:=a b'), {'PATH': '/bin', 'ODD': '\udcff\n'}, '/tmp'
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder for files of this user's running programs."""
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(tmp_path))
    return tmp_path


def test_the_last_recipe_of_a_node_of_this_launch():
    registry.register('/ns/eye', Recipe(1, 1, ('old',), {}, '/'), '5:6')
    registry.register('/ns/eye', RECIPE, '5:6')
    assert registry.registered('/ns/eye', '5:6') == RECIPE
    assert registry.registered('/ns/eye', '5:7') is None
    assert registry.registered('/eye', '5:6') is None
    registry.forget('5:6')
    assert registry.registered('/ns/eye', '5:6') is None
    registry.forget('5:6')


def test_nobody_else_can_read_it_or_put_in_what_would_be_run(folder):
    registry.register('/eye', RECIPE, '5:6')
    root, = folder.iterdir()
    assert root.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in root.glob('*/*')} == {0}
    root.chmod(0o777)
    for act in (lambda: registry.register('/eye', RECIPE, '5:6'),
                lambda: registry.registered('/eye', '5:6')):
        with pytest.raises(PermissionError, match='closed to others'):
            act()


def test_launches_that_have_ended_are_forgotten():
    child = subprocess.Popen([sys.executable, '-S', '-c', 'input()'], stdin=subprocess.PIPE)
    ended, ours = processes.identity(child.pid), processes.identity(os.getpid())
    for launcher in (ended, ours):
        registry.register('/eye', RECIPE, launcher)
    registry.forget_ended()
    assert registry.registered('/eye', ended) == RECIPE
    child.communicate(b'\n')
    wait_until(lambda: not processes.identity(child.pid), 10, 'the end')
    registry.forget_ended()
    assert registry.registered('/eye', ended) is None
    assert registry.registered('/eye', ours) == RECIPE


def test_the_launcher_is_the_parent_or_what_a_supervisor_names(monkeypatch):
    monkeypatch.delenv(processes.KEEPERS, raising=False)
    assert registry.launcher() == processes.identity(os.getppid())
    monkeypatch.setenv(processes.KEEPERS, '12:34 56:78')
    assert registry.launcher() == '56:78'

"""Processes seen through /proc, and started anew."""

import os
import signal
import subprocess
import sys

import pytest
from support import wait_until

from muon_ad_nodes.parts import processes
from muon_ad_nodes.parts.processes import Recipe

SLEEP = [sys.executable, '-S', '-c', 'import time; print(1, flush=True); time.sleep(600)']


@pytest.fixture
def sleeper(tmp_path):
    """A process with an environment and folder of its own, past its start."""
    environment = {**os.environ, 'COLOUR': 'blue = 1'}
    child = subprocess.Popen(SLEEP, env=environment, cwd=tmp_path, stdout=subprocess.PIPE)
    child.stdout.readline()
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_recipe_starts_the_same_again(sleeper, tmp_path):
    recipe = Recipe.of(sleeper.pid)
    assert recipe.folder == str(tmp_path)
    again = recipe.start()
    try:
        wait_until(lambda: Recipe.of(again.pid).command == recipe.command, 10, 'the new process')
        assert Recipe.of(again.pid).environment['COLOUR'] == 'blue = 1'
        assert recipe.command[1:] == tuple(SLEEP[1:])
    finally:
        processes.end(again)
    assert again.returncode == -signal.SIGINT


def test_alive_until_it_ends(sleeper):
    recipe = Recipe.of(sleeper.pid)
    assert recipe.alive()
    sleeper.kill()
    # Also while it is a zombie, not waited for.
    wait_until(lambda: not recipe.alive(), 10, 'the death to show')
    with pytest.raises(ProcessLookupError):
        Recipe.of(sleeper.pid)


def test_another_process_with_the_same_number_is_not_it(sleeper):
    recipe = Recipe.of(sleeper.pid)
    impostor = Recipe(recipe.pid, recipe.started - 1, recipe.command, {}, '/')
    assert not impostor.alive()


def test_end_kills_what_ignores_interrupts():
    code = 'import signal, time; signal.signal(2, signal.SIG_IGN); print(1, flush=True);' \
        'time.sleep(600)'
    child = subprocess.Popen([sys.executable, '-S', '-c', code], stdout=subprocess.PIPE)
    child.stdout.readline()
    processes.end(child, seconds=0.1)
    assert child.returncode == -signal.SIGKILL
    child.stdout.close()

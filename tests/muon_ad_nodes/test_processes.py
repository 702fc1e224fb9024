"""Processes seen through /proc, and started anew."""

import os
import signal
import subprocess
import sys

import pytest
from support import wait_until

from muon_ad_nodes.parts import processes
from muon_ad_nodes.parts.arguments import full_name
from muon_ad_nodes.parts.processes import find_nodes
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


def test_what_is_started_again_ends_when_nobody_is_left_to_look_after_it(tmp_path):
    """It outlives who started it, and ends with what started that in turn."""
    script = tmp_path / 'kept.py'
    script.write_text(
        'import sys\n'
        'from muon_ad_nodes.parts import processes\n'
        'processes.KEEPER_PERIOD_S = 0.05\n'
        'if processes.KEEPERS in processes.os.environ:\n'
        '    processes.wait_until_forsaken()\n'
        'else:\n'
        '    again = processes.Recipe.of(processes.os.getpid()).start()\n'
        '    print(again.pid, flush=True)\n'
        '    sys.stdin.readline()\n'
        '    processes.os._exit(0)\n'
    )
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    shell = subprocess.Popen(
        ['sh', '-c', '"$0" "$1"; exec sleep 600', sys.executable, script], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )
    kept = Recipe.of(int(shell.stdout.readline()))
    starter = processes._parent(kept.pid)
    shell.stdin.write(b'\n')
    shell.stdin.flush()
    wait_until(lambda: processes._parent(kept.pid) != starter, 10, 'the starter to end')
    # Its keeper is looked for some times meanwhile.
    with pytest.raises(subprocess.TimeoutExpired):
        shell.wait(0.3)
    assert kept.alive()
    shell.kill()
    shell.wait()
    wait_until(lambda: not kept.alive(), 10, 'the end of what nobody keeps')
    for stream in (shell.stdin, shell.stdout):
        stream.close()


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


def test_kill_means_this_very_process(sleeper):
    recipe = Recipe.of(sleeper.pid)
    with pytest.raises(ProcessLookupError):
        Recipe(recipe.pid, recipe.started - 1, recipe.command, {}, '/').kill()
    assert recipe.alive()
    recipe.kill()
    assert sleeper.wait(10) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        recipe.kill()


@pytest.mark.parametrize('words, default, name', [
    ('exe --ros-args -r __node:=eye -r __ns:=/left', '', '/left/eye'),
    ('exe --ros-args --remap __ns:=/ -r __node:=eye', '', '/eye'),
    ('exe --ros-args -r __node:=a -r __node:=b', '', '/b'),
    ('exe --ros-args -r __ns:=/left', 'eye', '/left/eye'),
    ('exe --ros-args -r image:=x __node:=y', '', ''),
    ('', '', ''),
])  # fmt: skip
def test_name_of_the_node_in_a_command_line(words, default, name):
    assert full_name(words.split(), default) == name


@pytest.fixture
def start_named():
    """Return a function that starts a process with the command line of a node."""
    started = []

    def start(name: str, *code: str, domain: str = '') -> subprocess.Popen:
        domain = domain or os.environ.get('ROS_DOMAIN_ID', '')
        command = [*(code or SLEEP), '--ros-args', '-r', f'__node:={name}', '-r', '__ns:=/test']
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, 'ROS_DOMAIN_ID': domain}
        )
        started.append(child)
        child.stdout.readline()
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


def test_nodes_are_found_by_their_command_lines(start_named):
    node = start_named('found')
    start_named('another')
    assert find_nodes(['/test/found', '/test/none']) == {'/test/found': Recipe.of(node.pid)}
    # Of two the later; of those in another domain none.
    later = start_named('found')
    start_named('found', domain='231')
    start_named('elsewhere', domain='231')
    found = find_nodes(['/test/found', '/test/elsewhere'])
    assert {name: recipe.pid for name, recipe in found.items()} == {'/test/found': later.pid}


def test_what_ros2_run_started_is_found_and_not_ros2_run(start_named):
    code = 'import subprocess, sys; subprocess.run([sys.executable, "-S", "-c", ' \
        '"import time; print(1, flush=True); time.sleep(600)", *sys.argv[1:]])'
    wrapper = start_named('wrapped', sys.executable, '-S', '-c', code)
    inner = find_nodes(['/test/wrapped'])['/test/wrapped']
    assert inner.pid != wrapper.pid
    inner.kill()
    assert wrapper.wait(10) == 0


def test_a_number_of_another_container_is_no_node_of_ours(start_named, sleeper):
    recipe = Recipe.of(start_named('eye').pid)
    assert recipe.may_be('/test/eye')
    assert not recipe.may_be('/test/other')
    plain = Recipe.of(sleeper.pid)
    assert plain.may_be('/any') == ('AMENT_PREFIX_PATH' in os.environ)
    assert not Recipe(1, 1, ('bash',), {}, '/').may_be('/any')

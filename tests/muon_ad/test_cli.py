"""The command line: overview, errors, and a command that runs."""

import os
import shutil
import subprocess
import sys

import pytest

from muon_ad.cli import COMMANDS
from muon_ad.cli import main


def test_overview_lists_every_command(capsys):
    assert main(['--help']) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)


def test_unknown_command(capsys):
    assert main(['make', 'coffee']) == 2
    assert "no command 'make coffee'" in capsys.readouterr().err


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), '--help'])
    assert ended.value.code == 0
    assert f'muon-ad {command}' in capsys.readouterr().out


def test_models_list(negative_package, tmp_path, capsys):
    assert main(['models', 'list', str(tmp_path)]) == 1
    folder = shutil.copytree(negative_package, tmp_path / 'negative')
    assert main(['models', 'list', str(tmp_path)]) == 0
    assert 'negative' in capsys.readouterr().out
    (folder / 'transfer.onnx').write_bytes(b'')
    assert main(['models', 'list', str(tmp_path)]) == 1
    assert 'sha256' in capsys.readouterr().out


def test_bad_input_is_one_line(tmp_path, capsys):
    arguments = ['models', 'import', 'no_such_model', str(tmp_path / 'out'), '--random-weights']
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith('muon-ad models import: ')
    assert 'no_such_model' in said
    assert said.count('\n') == 1


@pytest.mark.parametrize('missing', ['rclpy', 'muon_ad_nodes'])
def test_command_that_needs_ros_says_so(missing):
    code = (
        f'import sys; sys.modules[{missing!r}] = None\n'
        "from muon_ad.cli import main; sys.exit(main(['top']))"
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f'muon-ad top: there is no {missing}, ')
    assert 'setup.bash' in done.stderr and done.stderr.count('\n') == 1

"""Command line of the bringup."""

import argparse
import math
import os
import shlex
import signal
import sys
from pathlib import Path

import yaml

from muon_ad_nodes.bringup.launch import Argument
from muon_ad_nodes.bringup.launch import declared_everywhere
from muon_ad_nodes.bringup.launch import find_file
from muon_ad_nodes.bringup.launch import load
from muon_ad_nodes.bringup.launch import Node
from muon_ad_nodes.bringup.parse import LaunchError
from muon_ad_nodes.bringup.parse import parse
from muon_ad_nodes.bringup.processes import run


def main(words: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(words)
    # A node may print what the terminal's encoding lacks.
    sys.stdout.reconfigure(errors='replace')
    try:
        path = find_file(options.file)
        if options.show_args:
            arguments = declared_everywhere(parse(path))
            return _print('\n'.join(_described(argument) for argument in arguments))
        launch = load(path, _given(options.arguments), os.environ)
    except LaunchError as error:
        print(f'bringup: {error}', file=sys.stderr)
        return 2
    if options.print_commands:
        return _print('\n\n'.join(_shown(node) for node in launch.nodes))
    return run(launch)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m muon_ad_nodes.bringup',
        description="Run a launch file of ROS's XML frontend without ROS's launch.",
    )
    parser.add_argument('file', help='launch file, or name of an installed one (multitask)')
    parser.add_argument('arguments', nargs='*', metavar='arg:=value', help='launch arguments')
    parser.add_argument(
        '--show-args', action='store_true', help='show the arguments of the file and end'
    )
    parser.add_argument(
        '--print-commands',
        action='store_true',
        help='print what would run, as commands for bash, and end',
    )
    return parser


def _given(words: list[str]) -> dict[str, str]:
    given = {}
    for word in words:
        name, separator, value = word.partition(':=')
        if not (name and separator):
            raise LaunchError(f'malformed launch argument {word!r}; expected name:=value')
        given[name] = value
    return given


def _print(text: str) -> int:
    """Print and end well, even where a pager or `head` has stopped to read."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(text)
    return 0


def _described(argument: Argument) -> str:
    needed = 'required' if argument.default is None else f'default: {argument.default!r}'
    choices = f'; one of {", ".join(argument.choices)}' if argument.choices else ''
    return f'{argument.name}:=\n    {argument.description}\n    ({needed}{choices})'


def _shown(node: Node) -> str:
    """Return a command for bash that runs the node as the bringup would."""
    variables = [
        shlex.quote(f'{name}={value}')
        for name, value in node.environment.items()
        if os.environ.get(name) != value
    ]
    removed = [f'-u {name}' for name in os.environ if name not in node.environment]
    files = {}
    for index, entry in enumerate(node.parameters):
        if isinstance(entry, Path):
            files[str(entry)] = shlex.quote(str(entry))
        else:
            document = node.parameter_document(entry)
            text = yaml.safe_dump(document, default_flow_style=True, width=math.inf)
            files[f'parameters {index}'] = f'<(echo {shlex.quote(text.strip())})'
    command = [files.get(word) or shlex.quote(word) for word in node.command(list(files))]
    prefix = ['env', *removed, *variables] if removed or variables else []
    return f'# {node.full_name or node.executable.name}\n' + ' '.join(prefix + command)


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # nothing runs yet: processes.run() handles its own signals
        sys.exit(130)

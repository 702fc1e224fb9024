"""`muon-ad top`: all tasks in the domain, live in the terminal, or as JSON for scripts."""

import argparse
import dataclasses
import itertools
import json
import os
import sys
import time
from contextlib import suppress

from rich.console import Console
from rich.live import Live

from muon_ad_nodes.parts.discovery import nothing_found
from muon_ad_nodes.parts.executor import spinning
from muon_ad_nodes.top.rows import TaskRow
from muon_ad_nodes.top.view import View
from muon_ad_nodes.top.watcher import make
from muon_ad_nodes.top.watcher import Watcher

SHOWN, NONE_FOUND = 0, 1
# Where the output goes to a file, whose width nobody can ask for.
FILE_WIDTH = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('--json', action='store_true',
                        help='print a JSON document in place of the view; several: one a line')
    often = parser.add_mutually_exclusive_group()
    often.add_argument('--once', action='store_true',
                       help='show the tasks once (default with --json, or outside a terminal)')
    often.add_argument('--count', type=int, metavar='N', help='show them N times')
    often.add_argument('--watch', action='store_true',
                       help='show them until interrupted (default in a terminal)')
    parser.add_argument('--period', type=float, default=1.0, metavar='S',
                        help='seconds from one time to the next (default: %(default)g)')
    parser.add_argument('--wait', type=float, default=5.0, metavar='S',
                        help='how long to look for tasks, and to listen to the last one found '
                        '(default: %(default)g)')


def run(args: argparse.Namespace) -> int:
    """Show the tasks; return SHOWN or NONE_FOUND."""
    _check(args)
    console = Console() if sys.stdout.isatty() else Console(width=FILE_WIDTH)
    live = console.is_terminal and not (args.json or args.once or args.count)
    try:
        with spinning(make) as watcher:
            return (_show_live if live else _print)(watcher, args, console)
    except BrokenPipeError:
        # Whoever read has had enough. Python would complain once more, flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SHOWN


def document(rows: list[TaskRow], domain_id: int) -> dict:
    """Return what --json prints."""
    return {'domain_id': domain_id, 'tasks': [dataclasses.asdict(row) for row in rows]}


def _check(args: argparse.Namespace) -> None:
    if args.count is not None and args.count < 1:
        raise ValueError(f'--count is {args.count}; expected 1 or more, or --watch')
    if not args.period > 0:
        raise ValueError(f'--period is {args.period:g}; expected seconds above 0')
    if not args.wait >= 0:
        raise ValueError(f'--wait is {args.wait:g}; expected seconds, 0 or more')


def _show_live(watcher: Watcher, args: argparse.Namespace, console: Console) -> int:
    begun = time.monotonic()
    # An interrupt is how one leaves.
    with suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as it:
        while True:
            rows = watcher.rows()
            patient = rows or time.monotonic() - begun < args.wait
            notice = '' if patient else _complaint(watcher, args)
            it.update(View(rows, _heading(rows, watcher.domain_id), notice), refresh=True)
            time.sleep(args.period)
    return SHOWN


def _print(watcher: Watcher, args: argparse.Namespace, console: Console) -> int:
    rows = watcher.settle(args.wait)
    if not rows:
        print(f'muon-ad top: {_complaint(watcher, args)}', file=sys.stderr)
    several = args.watch or args.count
    for number in itertools.count() if args.watch else range(args.count or 1):
        if number:
            time.sleep(args.period)
            rows = watcher.rows()
        if args.json:
            found = document(rows, watcher.domain_id)
            print(json.dumps(found, indent=None if several else 2), flush=True)
        elif rows:
            console.print(View(rows, _heading(rows, watcher.domain_id)))
    return SHOWN if rows else NONE_FOUND


def _complaint(watcher: Watcher, args: argparse.Namespace) -> str:
    return nothing_found('task', args.wait, watcher.domain_id, os.environ)


def _heading(rows: list[TaskRow], domain_id: int) -> str:
    hosts = {row.host for row in rows}
    tasks = '1 task' if len(rows) == 1 else f'{len(rows)} tasks'
    machines = '1 machine' if len(hosts) == 1 else f'{len(hosts)} machines'
    return f'muon-ad top: {tasks} on {machines}, ROS domain {domain_id}, {time.strftime("%X")}'

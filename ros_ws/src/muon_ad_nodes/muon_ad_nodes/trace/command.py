"""`muon-ad trace`: records the ways of all frames for a while, for ui.perfetto.dev."""

import argparse
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from tqdm import tqdm

from muon_ad_msgs.msg import FrameTrace
from muon_ad_nodes.parts.discovery import nothing_found
from muon_ad_nodes.parts.executor import spinning
from muon_ad_nodes.trace.events import trace_document
from muon_ad_nodes.trace.recorder import make
from muon_ad_nodes.trace.recorder import Recorder
from muon_ad_nodes.trace.report import stages_table

WRITTEN, NONE_FOUND = 0, 1
LONGEST_S = 600.0
# Without a task for so long, there is none.
WAIT_S = 5.0
# Tasks that are found later are in the trace from then on.
QUIET_S = 1.0
_STEP_S = 0.1
# Where the output goes to a file, whose width nobody can ask for.
FILE_WIDTH = 140


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('--seconds', type=float, default=5.0, metavar='N',
                        help='how long to record; an interrupt ends it earlier (default: '
                        '%(default)g)')
    parser.add_argument('--out', type=Path, default=Path('trace.json'), metavar='FILE',
                        help='where to write the trace (default: %(default)s)')


def run(args: argparse.Namespace) -> int:
    """Record, write the trace, say what is in it; return WRITTEN or NONE_FOUND."""
    if not 0 < args.seconds <= LONGEST_S:
        raise ValueError(
            f'--seconds is {args.seconds:g}; expected more than 0, up to {LONGEST_S:g}'
        )
    if not args.out.absolute().parent.is_dir():
        raise ValueError(f'--out is {args.out}; expected a file in a folder that is there')
    with spinning(make) as recorder:
        tasks = recorder.discovery.settle(WAIT_S, QUIET_S)
        if not tasks:
            text = nothing_found('task', WAIT_S, recorder.domain_id, os.environ)
            print(f'muon-ad trace: {text}', file=sys.stderr)
            return NONE_FOUND
        traces = _record(recorder, args.seconds)
    if not traces:
        print(f'muon-ad trace: none of {len(tasks)} tasks was done with a frame within '
              f'{args.seconds:g} s; `muon-ad top` shows whether they are active', file=sys.stderr)
        return NONE_FOUND
    args.out.write_text(json.dumps(trace_document(traces)))
    console = Console() if sys.stdout.isatty() else Console(width=FILE_WIDTH)
    console.print(stages_table(traces))
    text = f'{args.out}: open it at https://ui.perfetto.dev'
    console.print(text, highlight=False, markup=False)
    return WRITTEN


def _record(recorder: Recorder, seconds: float) -> list[FrameTrace]:
    recorder.traces = []
    begun = time.monotonic()
    layout = '{l_bar}{bar}| {n:.0f} of {total:g} s{postfix}'
    bar = tqdm(total=seconds, bar_format=layout, leave=False, disable=None)
    with suppress(KeyboardInterrupt), bar:
        while (spent := time.monotonic() - begun) < seconds:
            bar.set_postfix_str(f'{len(recorder.traces)} frames', refresh=False)
            bar.n = spent
            bar.refresh()
            time.sleep(min(_STEP_S, seconds - spent))
    return recorder.traces

"""Claim: the first stylised frame comes within 6 s of the start, on a warm machine.

Starts multitask.launch.xml through the bringup again and again, on its built-in input, and notes
when a subscriber, running beforehand, hears of the task that is first to deliver a stylised frame:

  process      its process was made (by the kernel's clock, 10 ms)
  status       its first status: Python, ROS and numpy are loaded, the node is there
  configured   the network is loaded and warmed up, the built-in styles are encoded
  active       it is ready for frames
  first frame  the first stylised frame has arrived

The first run is not counted: it fills the page cache. A round is one start.

How to read it: seconds from the start of the bringup; `first_frame_over_aim` is the last stage
over 6 s: below 1 is good. `name:=value` on the command line goes to the launch file.
"""

import psutil
from _common import console
from _common import finish
from _common import run
from _common import shown
from _common import spread
from _common import table
from _ros import Event
from _ros import FIRST_FRAME
from _ros import parse_with_launch_arguments
from _ros import watched_suite

AIM_S = 6.0
# What an event may say that shows a stage as reached.
EVENTS = {
    'status': ('unconfigured', 'inactive', 'active'),
    'configured': ('inactive', 'active'),
    'active': ('active',),
    FIRST_FRAME: (FIRST_FRAME,),
}
STAGES = ('process', *EVENTS)


def stages(heard: list[Event]) -> dict[str, Event] | None:
    """Return the first event of each stage, for the task that delivered first.

    None until there is a stylised frame, and all that comes before it was heard of. The process is
    not an event: it is known from the status.
    """
    frame = next((event for event in heard if event.state == FIRST_FRAME), None)
    if frame is None:
        return None
    own = [event for event in heard if event.task == frame.task]
    found = {
        stage: next((event for event in own if event.state in states), None)
        for stage, states in EVENTS.items()
    }
    return None if None in found.values() else found


def start_once(arguments: dict[str, str]) -> dict[str, float]:
    """Start the suite and end it; return the seconds from its start to each stage."""
    with watched_suite(arguments, 'startup') as watched:
        reached = watched.wait(stages, 'a stylised frame')
        made = psutil.Process(reached['status'].pid).create_time()
    moments = {'process': made} | {stage: event.at for stage, event in reached.items()}
    return {stage: moment - watched.begun for stage, moment in moments.items()}


def main() -> None:
    """Measure, show and write."""
    chosen, arguments = parse_with_launch_arguments(__doc__)
    rounds = 2 if chosen.quick else 10
    cold = start_once(arguments)
    console.print(f'not counted: first frame after {cold["first frame"]:.2f} s')
    runs = []
    for number in range(1, rounds + 1):
        runs.append(start_once(arguments))
        console.print(f'round {number}/{rounds}: first frame {runs[-1]["first frame"]:.2f} s')
    summary = {stage: spread([run[stage] for run in runs]) for stage in STAGES}
    filled = table('From the start of the bringup', 'stage', 'seconds', 'of them since the last')
    steps = dict(zip(STAGES, (None, *STAGES), strict=False))
    for stage, before in steps.items():
        step = spread([run[stage] - (run[before] if before else 0.0) for run in runs])
        filled.add_row(stage, shown(summary[stage], 2), shown(step, 2))
    ratios = {'first_frame_over_aim': spread([run['first frame'] / AIM_S for run in runs])}
    finish(
        'startup', filled, ratios, summary, first_run=cold, aim_s=AIM_S,
        settings={'rounds': rounds, 'quick': chosen.quick, 'arguments': arguments},
    )


if __name__ == '__main__':
    run(main)

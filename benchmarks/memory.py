"""Claim: every node of the running suite stays below 300 MB resident, and none has torch loaded.

Starts multitask.launch.xml on its built-in input, waits until every node is active, lets it run
for some seconds, then reads /proc/<pid> of every node again and again. A round is one launch.

Resident memory (RSS) counts shared libraries and the shared memory of images in every process
that maps them; the proportional share (PSS) counts them once, so that only PSS may be summed up.
1 MB is 1e6 bytes. Libraries are taken from /proc/<pid>/maps; that ONNX Runtime is found there,
where it has to be, shows that torch would be found, too.

How to read it: `rss_max_over_aim` is the largest node's RSS over 300 MB: below 1 is good.
`name:=value` on the command line goes to the launch file. Ends with status 1 if torch is loaded.
"""

import re
import time
from pathlib import Path

import psutil
from _common import console
from _common import finish
from _common import run
from _common import shown
from _common import spread
from _common import table
from _ros import Event
from _ros import FIRST_FRAME
from _ros import launch
from _ros import parse_with_launch_arguments
from _ros import watched_suite

AIM_MB = 300.0
# Until allocators, caches and the statistics' windows are filled.
SETTLE_S = 10.0
SAMPLE_S = 0.5
NETWORKS = ('style_transfer', 'object_detector')


def active(heard: list[Event], tasks: tuple[str, ...]) -> dict[str, int] | None:
    """Return the process id of each task once all of them are active, by their last status."""
    last = {event.task: event for event in heard if event.state != FIRST_FRAME}
    if any(task not in last or last[task].state != 'active' for task in tasks):
        return None
    return {task: last[task].pid for task in tasks}


def loaded(maps: str, package: str) -> bool:
    """Return whether /proc/<pid>/maps shows a file of a Python package, or a library named so."""
    name = re.escape(package)
    return re.search(rf'/{name}/|/(?:lib)?{name}[^/\n]*\.so\b', maps) is not None


def sample(pids: dict[str, int], seconds: float) -> dict[str, dict[str, float]]:
    """Return the largest RSS and PSS of each process in MB over some seconds."""
    processes = {task: psutil.Process(pid) for task, pid in pids.items()}
    most = {task: {'rss_mb': 0.0, 'pss_mb': 0.0} for task in pids}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for task, process in processes.items():
            memory = process.memory_full_info()
            most[task]['rss_mb'] = max(most[task]['rss_mb'], memory.rss / 1e6)
            most[task]['pss_mb'] = max(most[task]['pss_mb'], memory.pss / 1e6)
        time.sleep(SAMPLE_S)
    return most


def libraries(pids: dict[str, int]) -> dict[str, dict[str, bool]]:
    """Return for each process whether it has torch and ONNX Runtime loaded."""
    maps = {task: Path(f'/proc/{pid}/maps').read_text() for task, pid in pids.items()}
    return {
        task: {name: loaded(text, name) for name in ('torch', 'onnxruntime')}
        for task, text in maps.items()
    }


def measure(arguments: dict[str, str], seconds: float) -> tuple[dict, dict]:
    """Launch the suite once; return memory and libraries of each node."""
    tasks = tuple(node.full_name for node in launch(arguments).nodes)
    with watched_suite(arguments, 'memory') as watched:
        pids = watched.wait(lambda heard: active(heard, tasks), f'active {", ".join(tasks)}')
        time.sleep(SETTLE_S)
        return sample(pids, seconds), libraries(pids)


def check(found: dict[str, dict[str, bool]]) -> list[str]:
    """Return the nodes with torch. Raises RuntimeError where the search itself finds nothing."""
    blind = [
        task for task, has in found.items()
        if task.rpartition('/')[2] in NETWORKS and not has['onnxruntime']
    ]
    if blind:
        raise RuntimeError(f'no ONNX Runtime seen in {", ".join(blind)}: the search is broken')
    return [task for task, has in found.items() if has['torch']]


def main() -> int:
    """Measure, show and write; return the exit status."""
    chosen, arguments = parse_with_launch_arguments(__doc__)
    rounds, seconds = (1, 3.0) if chosen.quick else (4, 10.0)
    memory, with_torch = [], set()
    for number in range(1, rounds + 1):
        most, found = measure(arguments, seconds)
        memory.append(most)
        with_torch.update(check(found))
        task, figures = max(most.items(), key=lambda item: item[1]['rss_mb'])
        console.print(f'round {number}/{rounds}: largest is {task}, {figures["rss_mb"]:.0f} MB')
    summary = {
        task: {key: spread([most[task][key] for most in memory]) for key in ('rss_mb', 'pss_mb')}
        for task in memory[0]
    }
    filled = table('Memory of each node', 'node', 'RSS MB', 'PSS MB', 'torch loaded')
    for task, figures in summary.items():
        cells = shown(figures['rss_mb'], 0), shown(figures['pss_mb'], 0)
        filled.add_row(task, *cells, 'yes' if task in with_torch else 'no')
    largest = [max(figures['rss_mb'] for figures in most.values()) for most in memory]
    total = [sum(figures['pss_mb'] for figures in most.values()) for most in memory]
    ratios = {
        'rss_max_over_aim': spread([value / AIM_MB for value in largest]),
        'nodes_with_torch': spread([float(len(with_torch))]),
    }
    finish(
        'memory', filled, ratios, summary, total_pss_mb=spread(total), aim_mb=AIM_MB,
        with_torch=sorted(with_torch), settings={'rounds': rounds, 'seconds': seconds,
                                                 'quick': chosen.quick, 'arguments': arguments},
    )
    return int(bool(with_torch))


if __name__ == '__main__':
    run(main)

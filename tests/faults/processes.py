"""Blows to the processes of a graph under the supervisor, and how long until they are back."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from launched import Graph
from support import wait_until

SECTION = 'Processes under the supervisor'
HANG_S = 3.0


@dataclass(frozen=True)
class Blow:
    """What is done to a process, and what /diagnostics says of the node."""

    command: str
    number: signal.Signals
    trouble: str
    counter: str

    def row(self, name: str) -> tuple[str, tuple[str]]:
        """What is injected, and the column of the table."""
        said = f'"{self.trouble}", `{self.counter}` rises; started again'
        return f'`{self.command}` {name}', (said,)


KILL = Blow('kill -9', signal.SIGKILL, 'the process died', 'restarts')
STOP = Blow('kill -STOP', signal.SIGSTOP, 'hung: no status', 'hangs')


class Watched:
    """A graph, and for each victim the results that come only where it works."""

    def __init__(self, graph: Graph, victims: dict[str, tuple[type, str]]) -> None:
        self.graph = graph
        self.results = {
            name: graph.listen(kind, topic) for name, (kind, topic) in victims.items()
        }
        self.diagnostics = graph.listen(DiagnosticArray, '/diagnostics')

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition."""
        self.graph.wait(condition, 90, what)

    def told(self, name: str) -> dict[str, str]:
        """What /diagnostics says of a node."""
        newest = self.diagnostics[-1].status if self.diagnostics else ()
        return {
            value.key: value.value
            for status in newest if status.name.endswith(f' {name}') for value in status.values
        }

    def forget(self) -> None:
        """Forget all results so far."""
        for results in self.results.values():
            results.clear()

    def pid(self, name: str) -> int:
        """The newest process of a node."""
        return self.graph.statuses[name].pid

    def wait_for_work(self) -> None:
        """Wait for results of every victim, and for the supervisor to know them."""
        self.wait(lambda: all(self.results.values()), 'results of every task')
        self.wait(lambda: len(self.graph.statuses) == self.graph.nodes, 'every status')
        self.wait(lambda: all(map(self.told, self.results)), 'every node in /diagnostics')

    def close(self) -> None:
        """End all of it, and the processes that a supervisor had started again."""
        pids = {status.pid for status in self.graph.statuses.values()}
        self.graph.close()
        # Those see within a second that nobody is left.
        wait_until(lambda: not any(map(is_alive, pids)), 20, f'the end of {pids}')


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    return Path(f'/proc/{pid}').exists()


def strike(watched: Watched, blow: Blow, names: list[str]) -> dict[str, float]:
    """Do it to these nodes; return after how many seconds each had a result of a new process."""
    old = {name: watched.pid(name) for name in names}
    counted = {name: int(watched.told(name)[blow.counter]) for name in names}
    for pid in old.values():
        os.kill(pid, blow.number)
    struck = time.monotonic()
    watched.wait(
        lambda: all(
            watched.pid(name) != old[name] and watched.graph.statuses[name].state == 'active'
            for name in names
        ),
        f'{names} to come back',
    )
    watched.forget()
    back: dict[str, float] = {}

    def all_back() -> bool:
        for name in names:
            if name not in back and watched.results[name]:
                back[name] = time.monotonic() - struck
        return len(back) == len(names)

    watched.wait(all_back, f'results of {names}')
    watched.wait(
        lambda: all(int(watched.told(name)[blow.counter]) > counted[name] for name in names),
        f'{blow.counter} of {names} to rise',
    )
    for name in names:
        assert watched.told(name)['last trouble'].startswith(blow.trouble)
    return back

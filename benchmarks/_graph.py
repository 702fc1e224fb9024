"""Single nodes of the suite with cameras of known timing, and what is heard of them."""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

from _ros import isolate
from _ros import launch
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from sensor_msgs.msg import Image

from muon_ad_msgs.msg import DetectionArray
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts.executor import spinning
from muon_ad_nodes.parts.processes import end
from muon_ad_nodes.parts.serialised import stamp_of
from muon_ad_nodes.parts.shared_memory import remove_stale
from muon_ad_nodes.parts.stamps import nanoseconds

LIMIT_S = 60.0
POLL_S = 0.01
# Topic and type of what a task publishes, below its namespace.
RESULTS = {
    'style_transfer': ('style/image', Image), 'object_detector': ('detections', DetectionArray),
}
UP = (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
DOWN = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
# Above all that is measured, so that results are noted when they come, in every phase alike.
LISTENER_PRIORITY = 95


class Camera:
    """A camera process; see _camera.py."""

    def __init__(self, topic: str, size: tuple[int, int]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name('_camera.py')), topic,
             '{}x{}'.format(*size)],
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,     # Ctrl-C is ours
        )

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self.process.pid

    def run(self, fps: float) -> dict[str, int]:
        """Send at this rate from now on; return the frames sent so far, and when they began.

        Raises RuntimeError where the process has ended.
        """
        print(fps, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f'ended early: {" ".join(self.process.args)}')
        return json.loads(line)

    def close(self) -> None:
        """End it in order."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Graph(Node):
    """Starts cameras and tasks in a namespace each, and notes what the tasks publish.

    `results` has, by full name of the task, (stamp, arrival) in ns since the epoch of each result;
    `statuses` its newest status.
    """

    def __init__(self) -> None:
        super().__init__('benchmark_graph')
        self.results: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.statuses: dict[str, TaskStatus] = {}
        self._clients_of: dict[str, object] = {}
        self._cameras: list[Camera] = []
        self._tasks: list[subprocess.Popen] = []

    def camera(self, namespace: str, size: tuple[int, int]) -> Camera:
        """Start a camera on `<namespace>/image_raw`; it sends nothing yet."""
        self._cameras.append(Camera(f'{namespace}/image_raw', size))
        return self._cameras[-1]

    def task(self, executable: str, name: str, listen: bool = True, **parameters: object) \
            -> subprocess.Popen:
        """Start a task under its full name; it is unconfigured."""
        namespace, _, own = name.rpartition('/')
        words = [
            word for key, value in parameters.items()
            for word in ('-p', f'{key.replace("__", ".")}:={json.dumps(value)}')
        ]
        self._tasks.append(subprocess.Popen(
            [sys.executable, '-m', 'muon_ad_nodes.main', executable, '--ros-args',
             '-r', f'__node:={own}', '-r', f'__ns:={namespace}', '--log-level', 'warn', *words],
            start_new_session=True,
        ))
        self.create_subscription(
            TaskStatus, f'{name}/status', lambda status: self._note_status(name, status),
            qos.LATCHED,
        )
        if listen:
            topic, kind = RESULTS[executable]
            # Serialised: to read the stamp is enough, and cheap.
            self.create_subscription(
                kind, f'{namespace}/{topic}', lambda data: self._note(name, data), qos.SENSOR,
                raw=True,
            )
        self._clients_of[name] = self.create_client(ChangeState, f'{name}/change_state')
        return self._tasks[-1]

    def take(self, name: str, transitions: tuple[int, ...]) -> None:
        """Take a task through transitions. Raises RuntimeError where one fails."""
        client = self._clients_of[name]
        self.wait(client.service_is_ready, f'the services of {name}')
        for transition in transitions:
            reply = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
            self.wait(reply.done, f'transition {transition} of {name}')
            if not reply.result().success:
                raise RuntimeError(f'{name}: transition {transition} failed; it says why above')

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition. Raises RuntimeError after LIMIT_S, or where a process ended."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            ended = [each.args for each in self._tasks if each.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f'waited in vain for {what}; ended: {ended}')
            time.sleep(POLL_S)

    def fresh_statuses(self, names: Sequence[str]) -> list[TaskStatus]:
        """Wait until each of these tasks has made a status after this call began."""
        since = time.time_ns()
        self.wait(
            lambda: all(
                name in self.statuses and _made_ns(self.statuses[name]) > since for name in names
            ),
            f'a status of {", ".join(names)}',
        )
        return [self.statuses[name] for name in names]

    def close(self) -> None:
        """End all processes in order."""
        for camera in self._cameras:
            camera.close()
        for task in self._tasks:
            end(task)

    def _note(self, name: str, data: bytes) -> None:
        self.results[name].append((stamp_of(data), time.time_ns()))

    def _note_status(self, name: str, status: TaskStatus) -> None:
        self.statuses[name] = status


def _made_ns(status: TaskStatus) -> int:
    return nanoseconds(status.header.stamp)


@contextmanager
def graph() -> Iterator[Graph]:
    """Yield a graph with the transport of the suite, in a domain of its own."""
    isolate()
    os.environ.update(launch().nodes[0].environment)
    try:
        with spinning(Graph) as made:
            try:
                yield made
            finally:
                made.close()
    finally:
        remove_stale()


def permitted() -> bool:
    """Whether this process may hand out real-time classes; puts it above what is measured."""
    try:
        realtime.set_class('fifo', LISTENER_PRIORITY)
    except PermissionError:
        return False
    return True

"""Nodes in this process, for tests: spun in a thread, brought up, listened to, played to."""

import gc
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import QoSProfile

if TYPE_CHECKING:
    from muon_ad.testing.result import Result

# The executor looks at tasks before messages: after the second round, what was there is handled.
_ROUNDS = 3


class Bench:
    """Spins nodes in a thread; `listen` collects messages, `wait` waits for a condition.

    `arguments` are those of a ROS program, such as '--ros-args', '-r', 'a:=b'; `domain_id` is the
    environment's (ROS_DOMAIN_ID) where it is None. `play` leaves its recordings in `folder`, and
    hands `update_goldens` on to its results.
    """

    def __init__(
        self, *arguments: str, domain_id: int | None = None, folder: Path | None = None,
        update_goldens: bool = False,
    ) -> None:
        self._folder = folder
        self.update_goldens = update_goldens
        rclpy.init(args=[*arguments], domain_id=domain_id)
        self._played = 0
        self._failure: Exception | None = None
        self.executor = SingleThreadedExecutor()
        self.nodes: list[Node] = []
        self.probe = rclpy.create_node('probe')
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._adopt(self.probe)
        self._thread.start()

    def run(self, make: Callable[[], Node], **parameters: object) -> Node:
        """Make a node, set parameters (`a__b` stands for `a.b`), and spin it."""
        node = make()
        for name, value in parameters.items():
            parameter = rclpy.Parameter(name.replace('__', '.'), value=value)
            result, = node.set_parameters([parameter])
            assert result.successful, result.reason
        self._adopt(node)
        return node

    def start(self, make: Callable[[], Node], **parameters: object) -> Node:
        """Do as `run` does, then configure and activate a lifecycle node."""
        node = self.run(make, **parameters)
        if isinstance(node, LifecycleNode):
            for name in ('configure', 'activate'):
                outcome = getattr(node, f'trigger_{name}')()
                assert outcome == TransitionCallbackReturn.SUCCESS, (
                    f'{node.get_name()} does not {name}: {outcome.name}; its log says why'
                )
        return node

    def play(self, bag: str | Path, results: dict[str, type], **options: object) -> 'Result':
        """Play a bag to the nodes in lock-step; see muon_ad_nodes.lock_step.play."""
        from muon_ad_nodes.lock_step import play

        return play(self, bag, results, **options)

    def new_recording(self) -> Path:
        """Return the name of a recording that is not there yet."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix='muon_ad_'))
        self._played += 1
        return self._folder / f'played_{self._played}.mcap'

    def listen(self, kind: type, topic: str, qos: QoSProfile | int = 10) -> list:
        """Return a list to which every message received on `topic` is appended."""
        messages = []
        self.probe.create_subscription(kind, topic, messages.append, qos)
        return messages

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
        """Wait for a condition, or fail naming `what`.

        Raises what a callback of a node has raised meanwhile: nothing is spun any more then.
        """
        __tracebackhide__ = True
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                pytest.fail(f'waited {seconds} s in vain for {what}')
            time.sleep(0.005)

    def settle(self) -> None:
        """Wait until the nodes have handled every message that has reached them."""
        for _ in range(_ROUNDS):
            done = threading.Event()
            self.executor.create_task(done.set)
            self.wait(done.is_set, 'a callback to return')

    def check(self) -> None:
        """Raise what a callback of a node has raised."""
        __tracebackhide__ = True
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """End every node, then ROS."""
        self._stopping.set()
        self.executor.wake()
        self._thread.join()
        for node in reversed(self.nodes):
            if hasattr(node, 'close'):
                node.close()
            self.executor.remove_node(node)
            node.destroy_node()
        self.executor.shutdown()
        rclpy.shutdown()
        self.nodes.clear()
        # Contexts that are over map shared memory until they are collected.
        gc.unfreeze()
        gc.collect()

    def _adopt(self, node: Node) -> None:
        self.nodes.append(node)
        self.executor.add_node(node)

    def _spin(self) -> None:
        try:
            while not self._stopping.is_set():
                self.executor.spin_once(timeout_sec=0.1)
        except Exception as error:  # noqa: BLE001 - a node's own, handed to the test
            self._failure = error

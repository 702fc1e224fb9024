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
from rclpy.exceptions import ParameterNotDeclaredException
from rclpy.executors import InvalidHandle  # its home differs between releases
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

if TYPE_CHECKING:
    from muon_ad.testing.result import Result

# The executor looks at tasks before messages: after the second round, what was there is handled.
_ROUNDS = 3
# Nodes that answer each other without end are left at it.
_MOST_ROUNDS = 1000
# A callback that takes longer never returns.
_RETURN_S = 20.0
_JOIN_S = 5.0


class _Executor(SingleThreadedExecutor):
    """Knows whose callback it calls, and how many messages it has handed on."""

    def __init__(self) -> None:
        super().__init__()
        self.at_work = ''
        self.handled = 0

    def wait_for_ready_callbacks(self, *args: object, **options: object) -> tuple:
        self.at_work = ''
        while (found := self._found(*args, **options)) is None:
            pass
        _, entity, node = found
        if entity is not None:
            self.at_work = _callback_of(entity, node)
        self.handled += isinstance(entity, Subscription)
        return found

    def _found(self, *args: object, **options: object) -> tuple | None:
        """Return what is ready; None where a test destroyed something meanwhile, in its thread."""
        try:
            return super().wait_for_ready_callbacks(*args, **options)
        except InvalidHandle:
            if not self.context.ok():
                raise
            return None


def _callback_of(entity: object, node: Node) -> str:
    """Name a callback as people know it."""
    of = next((
        getattr(entity, name) for name in ('topic_name', 'srv_name') if hasattr(entity, name)
    ), f'a {type(entity).__name__.lower()}')
    return f'the callback of {of} in node {node.get_name()}'


class Bench:
    """Spins nodes in a thread; `listen` collects messages, `wait` waits for a condition.

    `arguments` are those of a ROS program, such as '--ros-args', '-r', 'a:=b'; `domain_id` is the
    environment's (ROS_DOMAIN_ID) where it is None. `play` leaves its recordings in `folder`, and
    hands `update_goldens` on to its results.

    Where rclpy is initialised already and there are no arguments, the bench uses that, in its
    domain, and leaves it on. `given` has the names of the parameters that each node was given;
    `playing` says which image is being worked on.
    """

    def __init__(
        self, *arguments: str, domain_id: int | None = None, folder: Path | None = None,
        update_goldens: bool = False,
    ) -> None:
        self._folder = folder
        self.update_goldens = update_goldens
        self._borrowed = rclpy.ok() and not arguments
        if not self._borrowed:
            rclpy.init(args=[*arguments], domain_id=domain_id)
        self._context = rclpy.get_default_context()
        self._played = 0
        self.playing = ''
        self._failure: BaseException | None = None
        self._over = ''         # why nothing is spun any more
        self.executor = _Executor()
        self.nodes: list[Node] = []
        self.given: dict[Node, list[str]] = {}
        self.probe = rclpy.create_node('probe')
        self._stopping = threading.Event()
        # A daemon, for a callback that never returns must not keep the process.
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._adopt(self.probe)
        self._thread.start()

    def run(self, make: Callable[[], Node], **parameters: object) -> Node:
        """Make a node, set parameters (`a__b` stands for `a.b`), and spin it.

        Raises ValueError for a parameter that the node does not declare or take.
        """
        __tracebackhide__ = True
        node = make()
        try:
            for name, value in parameters.items():
                _set(node, name.replace('__', '.'), value)
        except ValueError:
            _destroy(node)
            raise
        self.given[node] = [name.replace('__', '.') for name in parameters]
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
        __tracebackhide__ = True
        from muon_ad_nodes.lock_step import play

        try:
            return play(self, bag, results, **options)
        except Exception as error:  # noqa: BLE001 - raised again
            problem = error
        finally:
            self.playing = ''
        # Where a node has failed or ended ROS, whatever else fails comes of it.
        if not self._context.ok():
            self._thread.join(_JOIN_S)
        if self._failure is not None:
            self.check()
        raise problem

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

    def wait(
        self, condition: Callable[[], bool], what: str | Callable[[], str], seconds: float = 20.0
    ) -> None:
        """Wait for a condition, or fail naming `what` (a function gives the text when it fails).

        Raises what a callback of a node has raised meanwhile: nothing is spun any more then.
        """
        __tracebackhide__ = True
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                text = what() if callable(what) else what
                pytest.fail(f'waited {seconds:g} s in vain for {text}')
            time.sleep(0.005)

    def settle(self) -> None:
        """Wait until the nodes have handled every message that has reached them.

        And what their callbacks have published of it, as long as nothing works in threads.
        """
        __tracebackhide__ = True
        quiet = 0
        for _ in range(_MOST_ROUNDS):
            before = self.executor.handled
            done = threading.Event()
            self.executor.create_task(done.set)
            self.wait(done.is_set, self._stuck, _RETURN_S)
            quiet = quiet + 1 if self.executor.handled == before else 0
            if quiet == _ROUNDS:
                break

    def check(self) -> None:
        """Raise what a callback of a node has raised; fail where nothing is spun any more."""
        __tracebackhide__ = True
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if self._over:
            pytest.fail(f'the nodes are not spun any more: {self._over}')

    def close(self) -> None:
        """End every node, then ROS."""
        self._stopping.set()
        self.executor.wake()
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            # Nodes cannot be destroyed below it; ROS can be ended, so that the next test begins.
            if not self._over:
                self._failure = pytest.fail.Exception(f'{self._where()} does not return')
        else:
            for node in reversed(self.nodes):
                self.executor.remove_node(node)
                _destroy(node)
            self.executor.shutdown()
        if not self._borrowed and self._context is rclpy.get_default_context():
            rclpy.shutdown()
        self.nodes.clear()
        self.given.clear()
        # Contexts that are over map shared memory until they are collected.
        gc.unfreeze()
        gc.collect()
        self._over = ''

    def _adopt(self, node: Node) -> None:
        self.nodes.append(node)
        self.executor.add_node(node)

    def _where(self) -> str:
        at = f', at {self.playing}' if self.playing else ''
        return f'{self.executor.at_work or "a callback"}{at}'

    def _stuck(self) -> str:
        """Keep, and say, whose callback does not return."""
        self._over = f'{self._where()} does not return'
        return f'{self._where()} to return'

    def _spin(self) -> None:
        try:
            while not self._stopping.is_set():
                self.executor.spin_once(timeout_sec=0.1)
                if not self._context.ok():
                    self._end(f'{self._where()} shut rclpy down')
                    return
        except SystemExit as error:
            self._end(f'{self._where()} called exit({error.code!r})')
        except BaseException as error:  # noqa: BLE001 - a node's own, handed to the test
            if self._context.ok():
                self._end(f'{self._where()} raised {error!r}', error)
            else:
                during = f', in {self._where()}' if self.executor.at_work else ''
                self._end(f'rclpy was shut down while the nodes were spun{during}')

    def _end(self, text: str, error: BaseException | None = None) -> None:
        """Keep why the thread ends; without an error the text itself is what fails the test."""
        if hasattr(error, 'add_note'):      # Python 3.11
            error.add_note(text)
        self._failure = pytest.fail.Exception(text) if error is None else error
        self._over = text


def _set(node: Node, name: str, value: object) -> None:
    __tracebackhide__ = True
    kind = type(value).__name__
    try:
        parameter = rclpy.Parameter(name, value=value)
        kind = parameter.type_.name
        result, = node.set_parameters([parameter])
        reason = '' if result.successful else result.reason or 'refused'
    except ParameterNotDeclaredException:
        reason = 'not declared'
    except TypeError as error:
        reason = str(error)
    if reason:
        declared = ', '.join(
            f'{known} ({one.type_.name})'
            for known, one in sorted(node.get_parameters_by_prefix('').items())
        )
        raise ValueError(
            f'node {node.get_name()} does not take parameter {name} = {value!r} ({kind}): '
            f'{reason}; it declares {declared}'
        )


def _destroy(node: Node) -> None:
    if hasattr(node, 'close'):
        node.close()
    node.destroy_node()

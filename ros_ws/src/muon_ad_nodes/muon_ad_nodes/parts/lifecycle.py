"""The base of the suite's nodes: lifecycle transitions that cannot fail silently, and status."""

import os
import socket
import threading
import traceback
from collections.abc import Callable
from collections.abc import Iterable
from contextlib import AbstractContextManager
from contextlib import nullcontext
from types import SimpleNamespace

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock import ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter as RclpyParameter

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts.budget import Budget
from muon_ad_nodes.parts.budget_guard import BudgetGuard
from muon_ad_nodes.parts.frame_times import FrameTimes
from muon_ad_nodes.parts.parameters import declare
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.parameters import read
from muon_ad_nodes.parts.parameters import validate
from muon_ad_nodes.parts.stages import TaskMonitor
from muon_ad_nodes.parts.trace_topic import TraceTopic

STATUS_PERIOD_S = 1.0
# States in which the executor is in a transition, and the status silent.
UNDER_WAY = {
    'configure': 'configuring',
    'activate': 'activating',
    'deactivate': 'deactivating',
    'cleanup': 'cleaningup',
}

# Of every node. They are applied by the process before the node exists (parts/realtime.py).
COMMON = (
    Parameter(
        'realtime.enabled', True,
        'Whether `realtime.policy` is asked for; set by the launch argument `realtime`.',
    ),
    Parameter(
        'realtime.policy', '',
        'Scheduling class of every thread of the process; empty leaves it as it is. Where fifo or '
        'rr is not allowed, a detector and the stylizer run as batch, every other node as other.',
        choices=('', *realtime.POLICIES),
    ),
    Parameter(
        'realtime.priority', 0,
        'Priority for fifo and rr. 0 takes what avoids inversions: cameras and bag_player 90, '
        'frame_sync 85, style_transfer 80, object_detector 40, all others 1.',
        range=(0, realtime.HIGHEST),
    ),
    Parameter(
        'realtime.nice', 0,
        'Niceness under other and batch, also where they stand in for fifo or rr; the nearest '
        'that is allowed is taken. 0 leaves it as it is.',
        range=(-20, 19),
    ),
    Parameter(
        'realtime.cpus', [],
        'CPUs the process may run on; empty means all.',
        kind='integers',
        range=(0, realtime.MOST_CPUS - 1),
    ),
    Parameter(
        'realtime.lock_memory', False,
        'Keep all memory that was once used resident (mlockall).',
    ),
    Parameter(
        'realtime.budget_ms', 0.0,
        'CPU time, of all threads together, that the work on one frame may take under fifo or rr. '
        '0 takes deadline_ms times threads, and no limit for a node that has no deadline_ms.',
        range=(0.0, 60000.0),
    ),
    Parameter(
        'realtime.budget_frames', 10,
        'Frames in a row over budget, or as much time in one of them, after which the process '
        'leaves fifo or rr, for the sake of all others; 0: never.',
        range=(0, 1000),
    ),
    Parameter(
        'realtime.recovery_frames', 100,
        'Frames in a row within budget after which it returns.',
        range=(1, 10000),
    ),
)


class SuiteNode(LifecycleNode):
    """A lifecycle node that subclasses fill in with four plain methods.

    `build` (configure), `start` (activate), `stop` (deactivate) and `teardown` (cleanup, shutdown
    and after a failed build: it must cope with a half-built node). An exception in `build` or
    `start` is logged with its traceback, what was built is torn down or stopped, and the
    transition fails; the node lives on in the state before. `settings` holds the parameters read
    at configure.

    Publishes `~/status` (muon_ad_msgs/TaskStatus, latched) every second in every state, and when
    a transition begins (state configuring, activating, deactivating, cleaningup) and ends; and
    `~/trace` (muon_ad_msgs/FrameTrace), the way of each frame, while somebody subscribes.
    """

    def __init__(self, name: str, parameters: Iterable[Parameter]) -> None:
        super().__init__(name)
        self._declarations = (*parameters, *COMMON)
        self._bad_overrides = declare(self, self._declarations)
        self.settings: SimpleNamespace | None = None
        self._trace = TraceTopic(self)
        self.monitor = TaskMonitor(
            lambda: self.get_clock().now().nanoseconds, self._trace.publish
        )
        self._state = 'unconfigured'
        self._message = ''
        self._refused = realtime.refused()
        self._warned: set[str] = set()
        self._budget_guard: BudgetGuard | None = None
        self.failed = threading.Event()
        for line in self._refused:
            self.get_logger().warning(line)
        for line in self._bad_overrides.values():
            self.get_logger().error(line)
        self._status_publisher = self.create_publisher(TaskStatus, '~/status', qos.LATCHED)
        # Steady time: a paused simulation must not silence the status.
        self._status_timer = self.create_timer(
            STATUS_PERIOD_S, self.publish_status, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self.add_on_set_parameters_callback(self._on_set_parameters)

    # What a subclass fills in.

    def build(self) -> None:
        """Create what the node needs, from `settings`. Configure."""

    def start(self) -> None:
        """Begin to work. Activate."""

    def stop(self) -> None:
        """Cease to work, so that `start` may follow. Deactivate."""

    def teardown(self) -> None:
        """Destroy what `build` created, in reverse. Cleanup, shutdown, failed configure."""

    def describe(self, status: TaskStatus) -> None:
        """Add what only this node knows, such as model and style; may add to the message."""

    def changed(self, name: str) -> None:
        """React to a dynamic parameter; `settings` has the new value already."""

    # What a subclass uses.

    @property
    def active(self) -> bool:
        """Whether the node is in the active state."""
        return self._state == 'active'

    def in_budget(self) -> AbstractContextManager[None]:
        """Mark the block as work on one frame, whose CPU time the budget limits."""
        return nullcontext() if self._budget_guard is None else self._budget_guard.frame()

    def say(self, text: str) -> None:
        """Set the line for people in the status; empty where all is well."""
        if text != self._message:
            self._message = text
            self.publish_status()

    def drop_invalid(self, reason: str, times: FrameTimes | None = None) -> None:
        """Count a refused frame, and log its reason the first time it occurs."""
        self.monitor.dropped_invalid(reason, times)
        self.warn_once(f'frame dropped: {reason} (counted in ~/status)')

    def warn_once(self, text: str) -> None:
        """Log a warning the first time it occurs after configure."""
        if text not in self._warned:
            self._warned.add(text)
            self.get_logger().warning(f'{text} (logged once)')

    def fail(self, error: Exception) -> None:
        """Report a defect in a thread of the node and end its process, to be restarted."""
        self._report('work', error)
        self.failed.set()

    def publish_status(self) -> None:
        """Publish the status now."""
        status = TaskStatus()
        status.header.stamp = self.get_clock().now().to_msg()
        status.task = self.get_fully_qualified_name()
        status.host = socket.gethostname()
        status.pid = os.getpid()
        status.state = self._state
        self.monitor.fill(status)
        asked = realtime.current_settings()
        classes = realtime.read_classes(asked)
        status.scheduling_policy = classes.policy
        status.scheduling_priority = classes.priority
        status.threads = classes.threads
        status.threads_off_policy = len(classes.off_policy)
        over_budget = '' if self._budget_guard is None else self._budget_guard.message
        if classes.off_policy and not over_budget:
            self.warn_once(f'threads outside {asked.policy}: {", ".join(classes.off_policy)}')
        status.message = '; '.join(filter(None, (self._message, over_budget, *self._refused)))
        self._describe(status)
        self._status_publisher.publish(status)

    def _describe(self, status: TaskStatus) -> None:
        """Let the node describe itself; where it cannot, the status says so and goes out."""
        try:
            self.describe(status)
        except Exception as error:  # noqa: BLE001 - a defect, which must not end the task
            trace = ''.join(traceback.format_exception(error))
            self.warn_once(f'describing failed: {error}\n{trace}')
            status.message = '; '.join(filter(None, (status.message, f'no details: {error}')))

    def close(self) -> None:
        """Stop and tear down from whatever state; for the end of the process."""
        if self._state == 'active':
            self._guard('stopping', self.stop)
        if self._state in ('active', 'inactive'):
            self._tear_down()
        self._state = 'finalized'

    # Transitions.

    def on_configure(self, _state: object) -> TransitionCallbackReturn:
        """Build the node; FAILURE leaves it unconfigured with everything torn down."""
        return self._attempt('configure', self._configure, self._tear_down, 'inactive')

    def on_activate(self, _state: object) -> TransitionCallbackReturn:
        """Start working; FAILURE leaves the node inactive."""
        return self._attempt('activate', self.start, self.stop, 'active')

    def on_deactivate(self, _state: object) -> TransitionCallbackReturn:
        """Stop working; the node is inactive afterwards."""
        self._enter(UNDER_WAY['deactivate'])
        self._guard('stopping', self.stop)
        return self._enter('inactive')

    def on_cleanup(self, _state: object) -> TransitionCallbackReturn:
        """Destroy what configure created; the node is unconfigured afterwards."""
        self._enter(UNDER_WAY['cleanup'])
        self._tear_down()
        return self._enter('unconfigured')

    def on_shutdown(self, _state: object) -> TransitionCallbackReturn:
        """Stop and tear down; the node is finalized afterwards."""
        self.close()
        return self._enter('finalized')

    def on_error(self, _state: object) -> TransitionCallbackReturn:
        """Recover from an exception that escaped a transition: back to unconfigured."""
        self._guard('stopping', self.stop)
        self._tear_down()
        return self._enter('unconfigured')

    def _attempt(
        self,
        doing: str,
        action: Callable[[], None],
        undo: Callable[[], None],
        reached: str,
    ) -> TransitionCallbackReturn:
        """Run a transition that may fail; if it does, undo it and stay in the state before."""
        before = self._state
        self._message = ''
        # Said first: nobody should take a long transition for a node that hangs.
        self._enter(UNDER_WAY[doing])
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever a driver or model raises
            self._report(doing, error)
            self._guard('rolling back', undo)
            self._enter(before)
            return TransitionCallbackReturn.FAILURE
        return self._enter(reached)

    def _configure(self) -> None:
        if self._bad_overrides:
            raise ParameterError('; '.join(self._bad_overrides.values()))
        self.settings = read(self, self._declarations)
        self.monitor.reset()
        self._warned.clear()
        self.build()
        realtime.settle()
        self._budget_guard = self._watch_budget()

    def _watch_budget(self) -> BudgetGuard | None:
        """Return what keeps a real-time class within its budget; None where there is neither."""
        settings, held = self.settings, realtime.current_settings()
        deadline_ms = getattr(settings, 'deadline_ms', 0.0) * getattr(settings, 'threads', 1)
        limit_ms = settings.realtime_budget_ms or deadline_ms
        if not (held.real_time and limit_ms and settings.realtime_budget_frames):
            return None
        budget = Budget(
            limit_ms, settings.realtime_budget_frames, settings.realtime_recovery_frames
        )
        return BudgetGuard(held, budget, self._on_budget)

    def _on_budget(self) -> None:
        said = self._budget_guard.message
        if said:
            self.get_logger().warning(said)
        else:
            self.get_logger().info('within its budget again: back in its real-time class')
        self.publish_status()

    def _tear_down(self) -> None:
        self._guard('tearing down', self.teardown)
        if self._budget_guard is not None:
            self._guard('ending the watch', self._budget_guard.close)
            self._budget_guard = None
        self.settings = None

    def _enter(self, state: str) -> TransitionCallbackReturn:
        self._state = state
        self._forget_destroyed()
        self.publish_status()
        return TransitionCallbackReturn.SUCCESS

    def _forget_destroyed(self) -> None:
        """Drop the weak references that rclpy keeps of every entity there ever was."""
        group = self.default_callback_group
        group.entities = {entity for entity in group.entities if entity() is not None}

    def _guard(self, doing: str, action: Callable[[], None]) -> None:
        """Run a clean-up step; its failure is logged and must not keep the next from running."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - a clean-up goes on
            self._report(doing, error)

    def _report(self, doing: str, error: Exception) -> None:
        """Log an exception with its traceback, and put it behind what the status says already."""
        trace = ''.join(traceback.format_exception(error))
        self.get_logger().error(f'{doing} failed: {error}\n{trace}')
        self.say('; '.join(filter(None, (self._message, f'{doing} failed: {error}'))))

    def _on_set_parameters(self, changes: list[RclpyParameter]) -> SetParametersResult:
        result = validate(changes, self._declarations, self._state in ('inactive', 'active'))
        if not result.successful:
            return result
        for change in changes:
            self._bad_overrides.pop(change.name, None)
            self._apply_dynamic(change)
        return result

    def _apply_dynamic(self, change: RclpyParameter) -> None:
        for declared in self._declarations:
            if declared.name == change.name and declared.dynamic and self.settings is not None:
                setattr(self.settings, declared.attribute, declared.check(change.value))
                self.changed(change.name)

"""Brings the nodes up in order, restarts those that die, and reports to /diagnostics."""

import socket
import subprocess
import time
from functools import partial

from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.msg import DiagnosticStatus
from diagnostic_msgs.msg import KeyValue
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.client import Client
from rclpy.clock import Clock
from rclpy.clock import ClockType
from rclpy.publisher import Publisher
from rclpy.subscription import Subscription
from rclpy.task import Future
from rclpy.timer import Timer

from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts import processes
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts import shared_memory
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.supervision import Action
from muon_ad_nodes.parts.supervision import Charge
from muon_ad_nodes.parts.supervision import next_in_order
from muon_ad_nodes.parts.supervision import Policy

CHECK_PERIOD_S = 0.1
DIAGNOSTICS_PERIOD_S = 1.0
# A node publishes its status every second; three missed ones are a sign.
STALE_S = 3.5
# Shared memory younger than this may belong to a node that is just starting.
STARTING_S = 30.0

_TRANSITIONS = {
    Action.CONFIGURE: Transition.TRANSITION_CONFIGURE,
    Action.ACTIVATE: Transition.TRANSITION_ACTIVATE,
}

PARAMETERS = (
    Parameter(
        'nodes', [],
        'Fully qualified names of the nodes to look after, in the order in which they are '
        'configured and activated.',
        kind='strings',
    ),
    Parameter(
        'restart_limit', 5,
        'Attempts to restart or reconfigure a node before it is given up.',
        range=(0, 1000),
    ),
    Parameter(
        'restart_delay_s', 0.5,
        'Wait before the first attempt; it doubles with every further one, up to 30 s.',
        range=(0.0, 30.0),
    ),
    Parameter(
        'stable_s', 30.0,
        'A node that was active for so long gets all its attempts back.',
        range=(0.1, 3600.0),
    ),
    Parameter(
        'startup_s', 30.0,
        'Wait for the first status of a node, before the nodes behind it go ahead without it.',
        range=(1.0, 600.0),
    ),
)


class Supervisor(SuiteNode):
    """Subscribes each node's `~/status`; publishes /diagnostics.

    A node whose process died is started again with the command line, environment and folder it
    had; a transition that fails is tried again. Both with doubling waits and a limit. Only nodes
    on the supervisor's own machine can be restarted.
    """

    def __init__(self) -> None:
        super().__init__('supervisor', PARAMETERS)
        self._charges: list[Charge] = []
        self._changers: dict[str, Client] = {}
        self._subscribed: list[Subscription] = []
        self._statuses: dict[str, tuple[TaskStatus, float]] = {}
        self._recipes: dict[str, processes.Recipe] = {}
        self._children: dict[str, subprocess.Popen] = {}
        self._timers_of_ours: list[Timer] = []
        self._diagnostics: Publisher | None = None

    def build(self) -> None:
        """Subscribe to the nodes and clear away what dead processes left in shared memory."""
        settings = self.settings
        if not settings.nodes:
            raise ParameterError('parameter nodes is empty; expected names of nodes to look after')
        policy = Policy(
            limit=settings.restart_limit,
            first_delay_s=settings.restart_delay_s,
            stable_s=settings.stable_s,
            startup_s=settings.startup_s,
        )
        now = time.monotonic()
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', qos.PUBLISH)
        for name in settings.nodes:
            self._charges.append(Charge(name, policy, begun=now))
            self._changers[name] = self.create_client(ChangeState, f'{name}/change_state')
            self._subscribed.append(
                self.create_subscription(
                    TaskStatus, f'{name}/status', partial(self._on_status, name), qos.LATCHED
                )
            )
        self._clean_shared_memory()

    def start(self) -> None:
        """Begin to look after the nodes."""
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timers_of_ours = [
            self.create_timer(CHECK_PERIOD_S, self._check, clock=steady),
            self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=steady),
        ]

    def stop(self) -> None:
        """Cease to look after the nodes; they run on."""
        for timer in self._timers_of_ours:
            self.destroy_timer(timer)
        self._timers_of_ours = []

    def teardown(self) -> None:
        """End the processes this node started, and forget the nodes."""
        for child in self._children.values():
            processes.end(child)
        for client in self._changers.values():
            self.destroy_client(client)
        for subscription in self._subscribed:
            self.destroy_subscription(subscription)
        if self._diagnostics is not None:
            self.destroy_publisher(self._diagnostics)
        self._diagnostics = None
        for kept in (
            self._charges, self._changers, self._subscribed, self._statuses, self._recipes,
            self._children,
        ):
            kept.clear()

    def _charge(self, name: str) -> Charge:
        return next(charge for charge in self._charges if charge.name == name)

    def _on_status(self, name: str, status: TaskStatus) -> None:
        if status.host == socket.gethostname() and not self._knows_process(name, status.pid):
            return  # the last word of a process that is gone
        now = time.monotonic()
        self._statuses[name] = (status, now)
        self._charge(name).saw_status(status.state, now)

    def _knows_process(self, name: str, pid: int) -> bool:
        """Learn how process `pid` was started; return whether it is alive."""
        recipe = self._recipes.get(name)
        if recipe is not None and recipe.pid == pid:
            return recipe.alive()
        try:
            self._recipes[name] = processes.Recipe.of(pid)
        except ProcessLookupError:
            return False
        except PermissionError as error:
            self.warn_once(f'{name} cannot be restarted from here: {error}')
        return True

    def _check(self) -> None:
        self._look_for_deaths()
        now = time.monotonic()
        for charge, action in next_in_order(self._charges, now):
            if action is Action.RESTART:
                self._restart(charge)
            else:
                self._request(charge, action)

    def _look_for_deaths(self) -> None:
        for name, recipe in self._recipes.items():
            charge, child = self._charge(name), self._children.get(name)
            # A child may end before it says anything; asking after it also ends it as a zombie.
            child_ended = child is not None and child.poll() is not None
            if child_ended:
                del self._children[name]
            if child_ended or (charge.alive and not recipe.alive()):
                charge.saw_death(time.monotonic())
                self.get_logger().error(f'{name} died; {charge.summary(time.monotonic())}')
                self._clean_shared_memory()

    def _clean_shared_memory(self) -> None:
        removed = shared_memory.remove_stale(older_than_s=STARTING_S)
        if removed:
            self.get_logger().info(
                f'removed {len(removed)} shared-memory files of processes that are gone'
            )

    def _restart(self, charge: Charge) -> None:
        recipe = self._recipes[charge.name]
        self.get_logger().info(f'{charge.name}: starting {recipe.command[0]} anew')
        charge.restarted(time.monotonic())
        try:
            self._children[charge.name] = recipe.start()
        except OSError as error:
            why = f'cannot start {recipe.command[0]}: {error}'
            charge.transition_failed(why, time.monotonic())

    def _request(self, charge: Charge, action: Action) -> None:
        client = self._changers[charge.name]
        if not client.service_is_ready():
            return
        charge.asked(time.monotonic())
        request = ChangeState.Request(transition=Transition(id=_TRANSITIONS[action]))
        client.call_async(request).add_done_callback(partial(self._on_reply, charge, action))

    def _on_reply(self, charge: Charge, action: Action, reply: Future) -> None:
        if reply.result() is not None and reply.result().success:
            self.get_logger().info(f'{charge.name}: {action.value}d')
            return
        status, _ = self._statuses[charge.name]
        now = time.monotonic()
        charge.transition_failed(f'{action.value} failed; its log says why', now)
        self.get_logger().error(f'{charge.name}: {status.message} {charge.summary(now)}')

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [self._diagnose(charge) for charge in self._charges]
        self._diagnostics.publish(message)

    def _diagnose(self, charge: Charge) -> DiagnosticStatus:
        now = time.monotonic()
        status, seen = self._statuses.get(charge.name, (None, 0.0))
        report = DiagnosticStatus(name=f'muon_ad: {charge.name}')
        summary = charge.summary(now)
        if charge.given_up or (summary and charge.state != 'active'):
            report.level, report.message = DiagnosticStatus.ERROR, summary
        elif status is None:
            report.level, report.message = DiagnosticStatus.STALE, 'not seen yet'
        elif now - seen > STALE_S:
            report.level = DiagnosticStatus.STALE
            report.message = f'silent for {now - seen:.1f} s'
        elif status.message or status.threads_off_policy:
            report.level = DiagnosticStatus.WARN
            report.message = status.message or 'threads outside their scheduling class'
        else:
            report.level, report.message = DiagnosticStatus.OK, charge.state
        report.hardware_id = status.host if status is not None else ''
        report.values = [
            KeyValue(key=key, value=value)
            for key, value in (*_values(status), ('restarts', str(charge.restarts)))
        ]
        return report


def _values(status: TaskStatus | None) -> list[tuple[str, str]]:
    """Return what a status says, as keys and values for /diagnostics."""
    if status is None:
        return []
    values = [
        ('state', status.state),
        ('pid', str(status.pid)),
        ('fps', f'{status.fps:.1f}'),
        ('frames', str(status.frames)),
        ('received', str(status.received)),
        ('dropped because newer', str(status.dropped_newer)),
        ('dropped as invalid', str(status.dropped_invalid)),
        ('deadline misses', str(status.deadline_misses)),
        ('scheduling', f'{status.scheduling_policy} {status.scheduling_priority}'),
        ('threads outside it', str(status.threads_off_policy)),
        ('cpu (% of a core)', f'{status.cpu_percent:.0f}'),
        ('memory (MB)', f'{status.rss_mb:.0f}'),
        ('model', ' '.join(filter(None, (status.model, status.variant, status.style)))),
        ('execution provider', status.execution_provider),
    ]
    for stage in status.stages:
        values.append((f'{stage.name} p50 (ms)', f'{stage.p50_ms:.1f}'))
        values.append((f'{stage.name} p99 (ms)', f'{stage.p99_ms:.1f}'))
    return [(key, value) for key, value in values if value]


def make() -> Supervisor:
    """Return the node, configured and active: nothing else would bring it up."""
    node = Supervisor()
    node.trigger_configure()
    node.trigger_activate()
    return node

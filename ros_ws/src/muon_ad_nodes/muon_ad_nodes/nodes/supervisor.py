"""Brings the nodes up in order, restarts those that die or hang, and reports to /diagnostics."""

import socket
import subprocess
import time
from contextlib import suppress
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
from muon_ad_nodes.parts import registry
from muon_ad_nodes.parts import shared_memory
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.supervision import Action
from muon_ad_nodes.parts.supervision import Attention
from muon_ad_nodes.parts.supervision import Charge
from muon_ad_nodes.parts.supervision import next_in_order
from muon_ad_nodes.parts.supervision import Policy
from muon_ad_nodes.parts.supervision import TRANSITIONS

CHECK_PERIOD_S = 0.1
# Between two looks for processes of nodes that have not said anything yet.
SEARCH_PERIOD_S = 0.5
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
        'Wait for the first status of a node, before the nodes behind it go ahead without it. '
        'After twice as long its process hangs, see hang_s.',
        range=(1.0, 600.0),
    ),
    Parameter(
        'hang_s', 10.0,
        'A node without status for so long, or at work on one frame for so long, hangs: it is '
        'killed and started again. 0 never takes it so, as for work with a debugger.',
        range=(0.0, 3600.0),
    ),
    Parameter(
        'transition_s', 300.0,
        'The same for a node in a transition, which is silent meanwhile. TensorRT takes minutes '
        'when it builds an engine for the first time.',
        range=(1.0, 7200.0),
    ),
)


class Supervisor(SuiteNode):
    """Subscribes each node's `~/status`; publishes /diagnostics.

    A node whose process died is started again with the command line, environment and folder it
    had; one that hangs is killed first; a transition that fails is tried again. All with doubling
    waits and one limit. Only nodes on the supervisor's own machine can be restarted.
    """

    def __init__(self) -> None:
        super().__init__('supervisor', PARAMETERS)
        self._charges: dict[str, Charge] = {}
        self._changers: dict[str, Client] = {}
        self._replies: dict[str, Future] = {}
        self._subscribed: list[Subscription] = []
        self._statuses: dict[str, tuple[TaskStatus, float]] = {}
        self._recipes: dict[str, processes.Recipe] = {}
        self._children: dict[str, subprocess.Popen] = {}
        self._timers_of_ours: list[Timer] = []
        self._diagnostics: Publisher | None = None
        self._attention: Attention | None = None
        self._clean_at: float | None = None

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
            hang_s=settings.hang_s,
            transition_s=settings.transition_s,
        )
        now = time.monotonic()
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', qos.PUBLISH)
        for name in settings.nodes:
            self._charges[name] = Charge(name, policy, begun=now)
            self._changers[name] = self.create_client(ChangeState, f'{name}/change_state')
            self._subscribed.append(
                self.create_subscription(
                    TaskStatus, f'{name}/status', partial(self._on_status, name), qos.LATCHED
                )
            )
        self._clean_shared_memory()
        registry.forget_ended()

    def start(self) -> None:
        """Begin to look after the nodes."""
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._attention = Attention(max(self.settings.hang_s / 4, 1.0))
        for charge in self._charges.values():
            charge.be_patient(time.monotonic())
        self._timers_of_ours = [
            self.create_timer(CHECK_PERIOD_S, self._check, clock=steady),
            self.create_timer(SEARCH_PERIOD_S, self._look_for_processes, clock=steady),
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
        self._diagnostics = self._attention = self._clean_at = None
        for kept in (
            self._charges, self._changers, self._replies, self._subscribed, self._statuses,
            self._recipes, self._children,
        ):
            kept.clear()

    def _on_status(self, name: str, status: TaskStatus) -> None:
        if not self.active:
            return
        if status.host == socket.gethostname() and not self._knows_process(name, status.pid):
            return  # the last word of a process that is gone
        now = time.monotonic()
        self._statuses[name] = (status, now)
        self._charges[name].saw_status(status.state, now, status.busy_s)

    def _knows_process(self, name: str, pid: int) -> bool:
        """Learn how process `pid` was started; return whether it is alive."""
        recipe = self._recipes.get(name)
        if recipe is not None and recipe.pid == pid:
            return recipe.alive()
        try:
            recipe = processes.Recipe.of(pid)
        except ProcessLookupError:
            return False
        except PermissionError as error:
            self.warn_once(f'{name} cannot be restarted from here: {error}')
            return True
        if recipe.may_be(name):
            self._recipes[name] = recipe
        else:
            self.warn_once(
                f'{name} cannot be restarted from here: process {pid} is {recipe.command[0]} with '
                'another node or none; does the node run in another container?'
            )
        return True

    def _look_for_processes(self) -> None:
        """Find nodes that have not said anything yet: they may die before they do, or have."""
        unknown = self._charges.keys() - self._statuses.keys() - self._recipes.keys()
        if not unknown:
            return
        for name, recipe in {**self._registered(unknown), **processes.find_nodes(unknown)}.items():
            self._recipes[name] = recipe
            self._charges[name].saw_process(time.monotonic())

    def _registered(self, names: set[str]) -> dict[str, processes.Recipe]:
        """Return how these nodes were started, of which nobody may have seen a process."""
        try:
            found = {name: registry.registered(name, registry.launcher()) for name in names}
        except (OSError, ValueError) as error:
            self.warn_once(f'nodes that die before they are seen are not started again: {error}')
            return {}
        return {name: recipe for name, recipe in found.items() if recipe is not None}

    def _check(self) -> None:
        now = time.monotonic()
        if self._attention.lost(now):
            self.get_logger().warning('was kept from looking; all nodes get a new period of grace')
            for charge in self._charges.values():
                charge.be_patient(now)
        self._look_for_deaths()
        for charge, action in next_in_order(list(self._charges.values()), now):
            if action is Action.RESTART:
                self._restart(charge)
            elif action is Action.KILL:
                self._kill(charge)
            else:
                self._request(charge, action)
        if self._clean_at is not None and now > self._clean_at:
            self._clean_at = None
            self._clean_shared_memory()

    def _look_for_deaths(self) -> None:
        for name, recipe in self._recipes.items():
            charge, child = self._charges[name], self._children.get(name)
            # A child may end before it says anything; asking after it also ends it as a zombie.
            child_ended = child is not None and child.poll() is not None
            if child_ended:
                del self._children[name]
            if charge.alive and (child_ended or not recipe.alive()):
                now = time.monotonic()
                charge.saw_death(now)
                self._statuses.pop(name, None)      # its figures are not those of a living one
                self._drop_reply(name)
                self.get_logger().error(f'{name}: {charge.summary(now)}')
                # Not yet: it may be younger than that.
                self._clean_at = now + STARTING_S

    def _clean_shared_memory(self) -> None:
        removed = shared_memory.remove_stale(older_than_s=STARTING_S)
        if removed:
            self.get_logger().info(
                f'removed {len(removed)} shared-memory files of processes that are gone'
            )

    def _kill(self, charge: Charge) -> None:
        """End a process that hangs; its death is seen, and followed by a restart, as any other."""
        now, name = time.monotonic(), charge.name
        recipe = self._recipes.get(name)
        if recipe is None:
            self.warn_once(f'{name} hangs, and its process is out of reach from here')
            return
        try:
            recipe.kill()
        except ProcessLookupError:
            return  # its death will be seen
        except OSError as error:
            self.warn_once(f'{name} hangs, and cannot be killed from here: {error}')
            return
        charge.killed(now)
        self.get_logger().error(f'{name} {charge.hang(now)}; killed process {recipe.pid}')

    def _restart(self, charge: Charge) -> None:
        now, name = time.monotonic(), charge.name
        if other := processes.find_nodes([name]).get(name):
            self.get_logger().info(f'{name}: someone else started it, as process {other.pid}')
            self._recipes[name] = other
            charge.saw_process(now)
            return
        recipe = self._recipes[name]
        self.get_logger().info(f'{name}: starting {recipe.command[0]} anew')
        try:
            child = recipe.start()
        except OSError as error:
            charge.start_failed(f'cannot start {recipe.command[0]}: {error}', now)
            self.get_logger().error(f'{name}: {charge.summary(now)}')
            return
        self._children[name] = child
        charge.restarted(now)
        with suppress(ProcessLookupError):      # its death will be seen
            self._recipes[name] = recipe.successor(child.pid)

    def _request(self, charge: Charge, action: Action) -> None:
        client = self._changers[charge.name]
        if not client.service_is_ready():
            charge.could_not_be_asked(time.monotonic())
            return
        self._drop_reply(charge.name)
        charge.asked(time.monotonic())
        request = ChangeState.Request(transition=Transition(id=_TRANSITIONS[action]))
        reply = self._replies[charge.name] = client.call_async(request)
        reply.add_done_callback(partial(self._on_reply, charge, action))

    def _drop_reply(self, name: str) -> None:
        """Forget a request whose reply will not come, or would come too late."""
        reply = self._replies.pop(name, None)
        if reply is not None and not reply.done():
            self._changers[name].remove_pending_request(reply)
            reply.cancel()

    def _on_reply(self, charge: Charge, action: Action, reply: Future) -> None:
        if reply.cancelled():
            return
        if reply.result() is not None and reply.result().success:
            self.get_logger().info(f'{charge.name}: {action.value}d')
            return
        now = time.monotonic()
        charge.transition_failed(f'{action.value} failed; its log says why', now)
        self.get_logger().error(f'{charge.name}: {charge.summary(now)}')

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [self._diagnose(charge) for charge in self._charges.values()]
        self._diagnostics.publish(message)

    def _diagnose(self, charge: Charge) -> DiagnosticStatus:
        now = time.monotonic()
        status, seen = self._statuses.get(charge.name, (None, 0.0))
        report = DiagnosticStatus(name=f'muon_ad: {charge.name}')
        report.level, report.message = _judge(charge, status, now, now - seen)
        report.hardware_id = status.host if status is not None else ''
        report.values = [
            KeyValue(key=key, value=value)
            for key, value in (*_help(charge, now), *_values(status))
        ]
        if status is not None:
            report.values.extend(status.values)
        return report


def _judge(
    charge: Charge, status: TaskStatus | None, now: float, silent: float
) -> tuple[bytes, str]:
    """Return level and message for /diagnostics."""
    summary = charge.summary(now)
    said = status.message if status is not None else ''
    if charge.given_up or charge.hang(now) or (summary and charge.state != 'active'):
        return DiagnosticStatus.ERROR, '; '.join(filter(None, (summary, said)))
    if status is None:
        return DiagnosticStatus.STALE, 'not seen yet'
    if silent > STALE_S and charge.state not in TRANSITIONS:
        return DiagnosticStatus.STALE, f'silent for {silent:.1f} s'
    if said or status.threads_off_policy:
        return DiagnosticStatus.WARN, said or 'threads outside their scheduling class'
    return DiagnosticStatus.OK, charge.state


def _help(charge: Charge, now: float) -> list[tuple[str, str]]:
    """Return how a node was helped, as keys and values for /diagnostics."""
    trouble = f'{charge.trouble} ({now - charge.trouble_at:.0f} s ago)' if charge.trouble else ''
    return [
        ('state', charge.state or ('starting' if charge.alive else 'not running')),
        ('restarts', str(charge.restarts)),
        ('hangs', str(charge.hangs)),
        ('attempts used', f'{min(charge.attempts, charge.policy.limit)} of {charge.policy.limit}'),
        ('last trouble', trouble),
    ]


def _values(status: TaskStatus | None) -> list[tuple[str, str]]:
    """Return what a status says, as keys and values for /diagnostics."""
    if status is None:
        return []
    values = [
        ('pid', str(status.pid)),
        ('fps', f'{status.fps:.1f}'),
        ('frames', str(status.frames)),
        ('received', str(status.received)),
        ('dropped because newer', str(status.dropped_newer)),
        ('dropped as invalid', str(status.dropped_invalid)),
        ('deadline misses', str(status.deadline_misses)),
        ('at work on a frame (s)', f'{status.busy_s:.1f}'),
        ('scheduling', f'{status.scheduling_policy} {status.scheduling_priority}'),
        ('threads outside it', str(status.threads_off_policy)),
        ('cpu (% of a core)', f'{status.cpu_percent:.0f}'),
        ('memory (MB)', f'{status.rss_mb:.0f}'),
        ('model', ' '.join(filter(None, (status.model, status.variant, status.style)))),
        ('execution provider', status.execution_provider),
    ]
    values += [(f'dropped: {drop.reason}', str(drop.frames)) for drop in status.drops]
    for stage in status.stages:
        for percentile in ('p50', 'p95', 'p99'):
            value_ms = getattr(stage, f'{percentile}_ms')
            values.append((f'{stage.name} {percentile} (ms)', f'{value_ms:.1f}'))
    return [(key, value) for key, value in values if value]


def make() -> Supervisor:
    """Return the node, configured and active: nothing else would bring it up."""
    node = Supervisor()
    node.trigger_configure()
    node.trigger_activate()
    return node

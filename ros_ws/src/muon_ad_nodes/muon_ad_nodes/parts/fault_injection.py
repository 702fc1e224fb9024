"""Faults on purpose in a node that publishes images: parameters, a service, counters, log."""

import time
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping

from diagnostic_msgs.msg import KeyValue

from muon_ad.faults import FaultError
from muon_ad.faults import FaultPlan
from muon_ad.faults import FaultyMessages
from muon_ad.faults.fault import DEPTH
from muon_ad.faults.fault import IMAGE
from muon_ad.faults.fault import INFO
from muon_ad_msgs.msg import TaskStatus
from muon_ad_msgs.srv import InjectFault
from muon_ad_nodes.parts.faulty_source import FaultySource
from muon_ad_nodes.parts.faulty_source import refuse_unplugged
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.source import Source

FAULTS = (
    Parameter(
        'faults.enabled', False,
        'Allow faults on purpose, for tests: those of faults.schedule and of `~/inject_fault`. A '
        'camera without a clock of its own is given one then, for the faults of clocks.',
    ),
    Parameter(
        'faults.schedule', [],
        'Faults and their times in seconds after activation, such as "stall at=5 for=2" or '
        '"drift at=60 for=30 ppm=200 stream=depth*"; docs/faults.md lists the kinds.',
        kind='strings',
    ),
    Parameter('faults.seed', 0, 'Decides which bytes a corrupt image loses.', range=(0, 2**31)),
)

DEPTH_STREAMS = ('depth', 'aligned')


def streams_of_camera(names: Iterable[str]) -> dict[str, Collection[str]]:
    """Return what the streams of a camera with these images carry: the images, and camera_info."""
    streams = {}
    for name in names:
        streams[name] = (IMAGE, DEPTH) if name in DEPTH_STREAMS else (IMAGE,)
        streams[f'{name}_info'] = (INFO,)
    return streams


class FaultInjection:
    """The faults of `node`, whose parameters include FAULTS; made when it is built.

    Where they are not enabled, nothing is touched and `~/inject_fault` is refused. Each activation
    begins the schedule anew. `beside_source`: the node is a camera, whose sources go through
    `around`; else all faults are done to messages. `streams` tells what each of them may carry; a
    fault that can touch none of them is refused.
    """

    def __init__(
        self, node: SuiteNode, beside_source: bool, streams: Mapping[str, Collection[str]]
    ) -> None:
        """Raises ParameterError for a schedule that makes no sense, whether it is enabled or not.
        """
        self._node = node
        self._enabled = node.settings.faults_enabled
        self._begun_s: float | None = None
        self._plan = self._new_plan(streams)
        self._messages = FaultyMessages(self._plan, self.now_s, beside_source)
        self._service = node.create_service(InjectFault, '~/inject_fault', self._on_inject)
        if self._enabled:
            node.get_logger().warning(
                'faults.enabled: this node misbehaves on purpose; for tests only'
            )

    def now_s(self) -> float:
        """Return the seconds since the node was activated; negative while it is not active."""
        begun = self._begun_s
        return time.monotonic() - begun if begun is not None else -1.0

    def begin(self) -> None:
        """Begin the schedule. Activate."""
        self._plan.restart()
        self._begun_s = time.monotonic()

    def end(self) -> None:
        """End all faults; what is held back in messages is counted as cut off. Deactivate.

        The log tells those of the schedule that have touched nothing.
        """
        if self._begun_s is not None:
            for line in self._plan.idle(self.now_s()):
                self._node.get_logger().warning(f'parameter faults.schedule: {line}')
            self._messages.drop_rest()
            self._plan.clear(self.now_s())
            self._begun_s = None

    def destroy(self) -> None:
        """Destroy the service."""
        self._node.destroy_service(self._service)

    def around(self, open_source: Callable[[], Source]) -> Callable[[], Source]:
        """Return what opens the source with its faults; `open_source` where they are disabled."""
        return self._open_around(open_source) if self._enabled else open_source

    def apply(self, stream: str, message: object) -> list:
        """Return the messages of `stream` to send in place of `message`."""
        return self._messages.apply(stream, message) if self._enabled else [message]

    def describe(self, status: TaskStatus) -> None:
        """Add the frames and messages that each kind of fault touched."""
        self._plan.advance(self.now_s())
        status.values += [
            KeyValue(key=f'fault {kind}', value=str(count))
            for kind, count in sorted(self._plan.counts.items())
        ]

    def _open_around(self, open_source: Callable[[], Source]) -> Callable[[], Source]:
        def open_faulty() -> Source:
            refuse_unplugged(self._plan, self.now_s())
            return FaultySource(open_source(), self._plan, self.now_s)

        return open_faulty

    def _new_plan(self, streams: Mapping[str, Collection[str]]) -> FaultPlan:
        schedule, warn = self._node.settings.faults_schedule, self._node.get_logger().warning
        try:
            plan = FaultPlan(schedule, self._node.settings.faults_seed, warn)
            plan.expect_streams(streams)
        except FaultError as error:
            raise ParameterError(f'parameter faults.schedule: {error}') from error
        if self._enabled:
            return plan
        if schedule:
            warn('no fault of faults.schedule is done, as faults.enabled is false')
        return FaultPlan()

    def _on_inject(
        self, request: InjectFault.Request, response: InjectFault.Response
    ) -> InjectFault.Response:
        try:
            response.message = self._inject(request.fault)
            response.success = True
        except FaultError as error:
            response.message = str(error)
        return response

    def _inject(self, text: str) -> str:
        if not self._enabled:
            raise FaultError(
                'faults are not enabled; set parameter faults.enabled and configure the node anew'
            )
        if self._begun_s is None:
            raise FaultError('the node is not active; activate it, as faults begin then')
        return self._plan.inject(text, self.now_s())

"""Redraws pictures in a style on request, one after the other, at best quality: an action."""

import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from diagnostic_msgs.msg import KeyValue
from rclpy.action import CancelResponse
from rclpy.action import GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock
from rclpy.clock import ClockType
from rclpy.timer import Timer
from std_msgs.msg import Header

from muon_ad.distill.devices import DEVICES
from muon_ad.distill.jobs import Done
from muon_ad.distill.jobs import Event
from muon_ad.distill.jobs import Failed
from muon_ad.distill.jobs import Job
from muon_ad.distill.jobs import Step
from muon_ad.distill.settings import ATTENTIONS
from muon_ad.paths import expanded
from muon_ad.paths import is_folder
from muon_ad_msgs.action import Stylize
from muon_ad_msgs.msg import TaskStatus
from muon_ad_nodes.parts.action_server import DeferredActionServer
from muon_ad_nodes.parts.frame_times import FrameTimes
from muon_ad_nodes.parts.job_process import JobLimits
from muon_ad_nodes.parts.job_process import JobProcess
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.stylize_goals import feedback_of
from muon_ad_nodes.parts.stylize_goals import header_of
from muon_ad_nodes.parts.stylize_goals import picture_of
from muon_ad_nodes.parts.stylize_goals import result_of
from muon_ad_nodes.parts.stylize_goals import settings_of

_LOOK_PERIOD_S = 0.2
# For clients that ask late; results hold pictures, so not for ever.
_RESULT_KEPT_S = 60

PARAMETERS = (
    Parameter(
        'backbone', '',
        'Folder of a diffusers pipeline that jobs use, such as Stable Diffusion; empty takes the '
        'one that is shipped. Nothing is downloaded.',
    ),
    Parameter(
        'attention', 'auto',
        "Whose attention jobs use: that of the backbone's denoiser, or over the features of its "
        'encoder, if any; auto: as the backbone recommends.',
        choices=('auto', *ATTENTIONS),
    ),
    Parameter(
        'device', 'auto',
        'Where jobs run; auto: on a GPU where there is one.',
        choices=DEVICES,
    ),
    Parameter('threads', 1, 'CPU threads of a job.', range=(1, 64)),
    Parameter(
        'job.nice', 10,
        "Least niceness of a job's process, which runs under SCHED_BATCH whatever the node does.",
        range=(0, 19),
    ),
    Parameter(
        'job.silence_s', 300.0,
        'A job that shows no sign of life for so long, loading and each step counted apart, is '
        'killed and its goal aborted.',
        range=(1.0, 86400.0),
    ),
    Parameter(
        'job.cancel_s', 2.0,
        'A job that was cancelled may finish its step, so that the result holds the picture so '
        'far; after so long it is killed.',
        range=(0.0, 600.0),
    ),
    Parameter(
        'queue_length', 4,
        'Goals that may wait for the one in work; more are rejected.',
        range=(0, 1000),
        dynamic=True,
    ),
    Parameter(
        'max_steps', 1000, 'Most steps that a goal may ask for.', range=(1, 1000000), dynamic=True,
    ),
    Parameter(
        'max_size', 1024,
        'Largest size that a goal may ask for: the side of a square with as many pixels.',
        range=(16, 16384),
        dynamic=True,
    ),
)


@dataclass
class _Goal:
    """A goal that was accepted; `process` is there while it is worked on."""

    handle: ServerGoalHandle
    job: Job | None
    header: Header
    times: FrameTimes
    process: JobProcess | None = None
    begun: float = 0.0
    last: Step | None = None


class Stylizer(SuiteNode):
    """Action server `~/stylize` (muon_ad_msgs/Stylize), for one job at a time.

    A job runs in a process of its own, so that the node answers meanwhile, and neither a crash
    nor memory that is short takes it down. Goals are accepted while the node is active; those in
    work or waiting when it is deactivated are aborted. Whatever happens to goals happens in the
    executor's thread.
    """

    def __init__(self) -> None:
        super().__init__('stylizer', PARAMETERS)
        self._server: DeferredActionServer | None = None
        self._timer: Timer | None = None
        self._waiting: deque[_Goal] = deque()
        self._at_work: _Goal | None = None
        self._cancelled = 0

    def build(self) -> None:
        """Create the action server."""
        backbone = self.settings.backbone
        if backbone and not is_folder(expanded(backbone)):
            raise ParameterError(
                f'parameter backbone is {backbone!r}; expected the folder of a diffusers '
                'pipeline, or empty for the one that is shipped'
            )
        self._cancelled = 0
        self._timer = self.create_timer(
            _LOOK_PERIOD_S, self._look_after, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._timer.cancel()        # until there is a job
        self._server = DeferredActionServer(
            self, Stylize, '~/stylize', execute_callback=_never,
            goal_callback=self._on_goal, handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel, result_timeout=_RESULT_KEPT_S,
        )

    def stop(self) -> None:
        """Abort all goals; the process of the one in work is gone afterwards."""
        why = Failed('the node was deactivated')
        while self._waiting:        # first, so that none of them begins
            self._end(self._waiting.popleft(), why)
        if self._at_work is not None:
            self._end(self._at_work, why)

    def teardown(self) -> None:
        """Destroy the action server."""
        if self._server is not None:
            self._server.destroy()
        if self._timer is not None:
            self.destroy_timer(self._timer)
        self._server = self._timer = None

    def describe(self, status: TaskStatus) -> None:
        """Add backbone, queue, and how far the job in work is."""
        if self.settings is None:
            return
        status.model = Path(self.settings.backbone).name or 'shipped backbone'
        values = {
            'goals waiting': str(len(self._waiting)), 'goals cancelled': str(self._cancelled),
        }
        goal = self._at_work
        if goal is not None:
            values['process of the job'] = str(goal.process.pid)
            values['step'] = 'loading'
            if (step := goal.last) is not None:
                values['step'] = f'{step.step} of {step.steps}'
                values['losses'] = f'style {step.style_loss:.4g}, content {step.content_loss:.4g}'
        status.values += [KeyValue(key=key, value=value) for key, value in values.items()]

    # Goals, as they come.

    def _on_goal(self, _request: Stylize.Goal) -> GoalResponse:
        self.monitor.received()
        room = self.settings.queue_length if self.active else 0
        if not self.active:
            why = f'the node is {self._state}; expected active'
        elif self._at_work is not None and len(self._waiting) >= room:
            why = f'the queue is full; {room} goals wait (parameter queue_length)'
        else:
            return GoalResponse.ACCEPT
        self.get_logger().warning(f'goal rejected: {why}')
        self.monitor.dropped_invalid(f'goal rejected: {why}')
        return GoalResponse.REJECT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        request, now = handle.request, self.get_clock().now()
        header = header_of(request, now.to_msg())
        times = self.monitor.begin(now.nanoseconds, (header.frame_id,))
        goal = _Goal(handle, None, header, times)
        try:
            goal.job = self._job_of(request)
        except ValueError as error:
            self._end(goal, Failed(f'bad goal: {error}'))
            return
        self._waiting.append(goal)
        self._begin_next()

    def _job_of(self, request: Stylize.Goal) -> Job:
        settings = self.settings
        return Job(
            content=picture_of(request, 'content'), style=picture_of(request, 'style'),
            settings=settings_of(request, settings.max_steps, settings.max_size),
            backbone=expanded(settings.backbone) if settings.backbone else None,
            attention=None if settings.attention == 'auto' else settings.attention,
            device=settings.device, threads=settings.threads,
            previews=bool(request.preview_every),
        )

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        goal = self._at_work
        if goal is not None and goal.handle == handle:
            goal.process.cancel()
            return CancelResponse.ACCEPT
        for goal in self._waiting:
            if goal.handle == handle:
                # Once it is in the state `canceling`, which follows this callback.
                self.executor.create_task(self._end_waiting, goal)
                return CancelResponse.ACCEPT
        return CancelResponse.REJECT

    def _end_waiting(self, goal: _Goal) -> None:
        if goal in self._waiting:       # not begun or ended meanwhile
            self._waiting.remove(goal)
            self._end(goal, Failed('cancelled while it waited'))

    # The job in work.

    def _begin_next(self) -> None:
        if self._at_work is not None or not self._waiting:
            return
        goal = self._at_work = self._waiting.popleft()
        goal.times.mark('wait')
        goal.begun = time.monotonic()
        goal.handle.execute()
        settings = self.settings
        limits = JobLimits(settings.job_nice, settings.job_silence_s, settings.job_cancel_s)
        try:
            goal.process = JobProcess(goal.job, partial(self._tell, goal), limits)
        except OSError as error:
            self._end(goal, Failed(f'the process of the job cannot be started: {error}'))
            return
        self._timer.reset()
        self.publish_status()

    def _tell(self, goal: _Goal, event: Event) -> None:
        """Hand an event from the thread of the process to the executor's."""
        executor = self.executor
        if executor is not None:        # which is gone when the process ends
            executor.create_task(self._on_event, goal, event)

    def _on_event(self, goal: _Goal, event: Event) -> None:
        if goal is not self._at_work:
            return
        if isinstance(event, Step):
            goal.last = event
            goal.handle.publish_feedback(feedback_of(event, goal.header))
        else:
            self._end(goal, event)

    def _look_after(self) -> None:
        goal = self._at_work
        if goal is not None and goal.process is not None:
            goal.process.look_after()

    # The end of a goal.

    def _end(self, goal: _Goal, end: Done | Failed) -> None:
        """Give a goal its final state and its result, and begin the next."""
        handle, at_work = goal.handle, goal is self._at_work
        if goal.process is not None:
            goal.process.close()
        if not at_work:
            handle.execute()        # there is no other way from `accepted` to an end
        seconds = time.monotonic() - goal.begun if at_work else 0.0
        goal.times.mark('infer' if at_work else 'wait')
        message = self._conclude(goal, end, seconds)
        result = result_of(end, goal.header, message, seconds)
        if self.executor is not None:       # else nobody is left to send it
            self._server.finish(handle, lambda _: result)
        if at_work:
            self._at_work = None
            self._timer.cancel()
            self._begin_next()
        self.publish_status()

    def _conclude(self, goal: _Goal, end: Done | Failed, seconds: float) -> str:
        """Set the final state, count the goal, and return what there is to say."""
        handle = goal.handle
        if isinstance(end, Done) and not end.cancelled:
            handle.succeed()
            self.monitor.published(goal.times)
            return f'{end.steps} steps in {seconds:.1f} s'
        if handle.is_cancel_requested:
            handle.canceled()
            self._cancelled += 1
            return f'cancelled after step {end.steps}' if isinstance(end, Done) else end.message
        handle.abort()
        self.get_logger().warning(f'goal aborted: {end.message}')
        self.monitor.dropped_invalid(end.message, goal.times)
        return end.message


def _never(_handle: ServerGoalHandle) -> Stylize.Result:
    raise AssertionError('goals are ended by `finish`')


def make() -> Stylizer:
    """Return the node."""
    return Stylizer()

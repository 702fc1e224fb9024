"""What is shown of a task, taken from its status; without ROS."""

from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING

from muon_ad_nodes.parts.supervision import TRANSITIONS

if TYPE_CHECKING:
    from muon_ad_msgs.msg import TaskStatus

# A task publishes its status every second; three missed ones are a sign.
SILENT_S = 3.5
# Of a task whose topic nobody publishes any more.
GONE = 'gone'


@dataclass(frozen=True)
class Latency:
    """Latency of a stage in milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class TaskRow:
    """A task as its last status told it, `heard_s` seconds ago.

    `deadline_ms` is 0 where there is none; `dropped` has the frames by reason; `stages` go in the
    order of the frame's way.
    """

    task: str
    host: str
    pid: int
    state: str
    heard_s: float
    message: str
    fps: float
    deadline_ms: float
    deadline_misses: int
    frames: int
    received: int
    dropped: dict[str, int] = field(default_factory=dict)
    stages: dict[str, Latency] = field(default_factory=dict)
    busy_s: float = 0.0
    cpu_percent: float = 0.0
    rss_mb: float = 0.0
    scheduling_policy: str = ''
    scheduling_priority: int = 0
    threads: int = 0
    threads_off_policy: int = 0
    model: str = ''
    variant: str = ''
    execution_provider: str = ''
    style: str = ''
    values: dict[str, str] = field(default_factory=dict)

    @property
    def latency(self) -> Latency | None:
        """From source stamp to published; None where nothing was published."""
        return self.stages.get('total')

    @property
    def silent(self) -> bool:
        """Whether the task should have said something by now."""
        return self.heard_s > SILENT_S and self.state not in TRANSITIONS


# What is told under the same name in the status.
_ALIKE = (
    'task', 'host', 'pid', 'message', 'deadline_misses', 'frames', 'received',
    'scheduling_policy', 'scheduling_priority', 'threads', 'threads_off_policy', 'model',
    'variant', 'execution_provider', 'style',
)
_MEASURED = ('fps', 'deadline_ms', 'busy_s', 'cpu_percent', 'rss_mb')


def row_of(status: 'TaskStatus', heard_s: float, published: bool) -> TaskRow:
    """Return the row of a task; `published` tells whether its topic has a publisher still."""
    return TaskRow(
        **{name: getattr(status, name) for name in _ALIKE},
        **{name: _rounded(getattr(status, name)) for name in _MEASURED},
        state=status.state if published else GONE,
        heard_s=_rounded(heard_s),
        dropped={drop.reason: drop.frames for drop in status.drops},
        stages={
            stage.name: Latency(
                *map(_rounded, (stage.p50_ms, stage.p95_ms, stage.p99_ms, stage.max_ms))
            )
            for stage in status.stages
        },
        values={value.key: value.value for value in status.values},
    )


def _rounded(value: float) -> float:
    """Return a measured value without the digits that float32 makes up."""
    return round(value, 3)

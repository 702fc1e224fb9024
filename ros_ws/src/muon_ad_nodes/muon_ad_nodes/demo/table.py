"""The live table of the demo."""

from rich import box
from rich.table import Table

from muon_ad_msgs.msg import StageLatency
from muon_ad_msgs.msg import TaskStatus

COLUMNS = (
    'task', 'state', 'variant', 'FPS', 'p50 ms', 'p99 ms', 'frames', 'dropped', 'scheduling',
    'CPU %', 'MB',
)
TEXTS = ('task', 'state', 'variant')


def total_latency(status: TaskStatus) -> StageLatency | None:
    """Return the latency from source stamp to publication, where frames were published."""
    return next((stage for stage in status.stages if stage.name == 'total'), None)


def dropped(status: TaskStatus) -> int:
    """Return how many frames were replaced by newer ones or refused."""
    return status.dropped_newer + status.dropped_invalid


def make_table(statuses: dict[str, TaskStatus], tasks: tuple[str, ...], caption: str) -> Table:
    """Return the table of all tasks; those not heard of yet have a row, too."""
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify='left')
    for column in COLUMNS:
        table.add_column(column, justify='left' if column in TEXTS else 'right')
    for task in tasks:
        status = statuses.get(task)
        table.add_row(task, *(_cells(status) if status is not None else ['starting']))
    return table


def _cells(status: TaskStatus) -> list[str]:
    latency = total_latency(status)
    scheduling = status.scheduling_policy.removeprefix('SCHED_')
    if status.scheduling_priority:
        scheduling += f' {status.scheduling_priority}'
    return [
        status.state,
        status.variant,
        f'{status.fps:.1f}',
        f'{latency.p50_ms:.1f}' if latency else '',
        f'{latency.p99_ms:.1f}' if latency else '',
        str(status.frames),
        str(dropped(status)),
        scheduling,
        f'{status.cpu_percent:.0f}',
        f'{status.rss_mb:.0f}',
    ]

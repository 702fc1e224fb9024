"""The view of `muon-ad top`: two lines a task, the first with a bar of its latency."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.console import ConsoleOptions
from rich.console import RenderResult
from rich.padding import Padding
from rich.style import Style
from rich.text import Text

from muon_ad_nodes.top.rows import GONE
from muon_ad_nodes.top.rows import Latency
from muon_ad_nodes.top.rows import TaskRow

# A bar ends at so many times the deadline, so that a task that is late shows by how much.
BAR_DEADLINES = 1.5
LONGEST_BAR = 60
LONGEST_TASK = 40
# The figures around task and bar take so many columns.
_FIGURES = 41
_INDENT = 4
GOOD, FAIR, BAD, QUIET = 'green', 'yellow', 'red', 'bright_black'


@dataclass(frozen=True)
class Letters:
    """What bars are drawn with: up to p50, on to p95, on to p99, deadline, beyond the end."""

    p50: str = '█'
    p95: str = '▓'
    p99: str = '░'
    deadline: str = '│'
    beyond: str = '▶'
    task: str = '●'


ASCII = Letters('#', '=', '-', '|', '>', '*')


@dataclass(frozen=True)
class View:
    """All tasks, as wide as the terminal is; without details where it is not high enough.

    `heading` is its first line, `notice` stands below it. Texts come from other machines: their
    control characters are replaced.
    """

    rows: list[TaskRow]
    heading: str
    notice: str = ''

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        letters = ASCII if options.ascii_only else Letters()
        yield Text(self.heading, style='bold', no_wrap=True, overflow='ellipsis')
        if self.notice:
            yield Text(self.notice, style=FAIR)
        if not self.rows:
            return
        parts = list(self._parts(letters, options.max_width, details=True))
        if console.is_terminal and _lines(console, options, parts) + 1 > options.size.height:
            parts = list(self._parts(letters, options.max_width, details=False))
        yield from parts

    def _parts(self, letters: Letters, width: int, details: bool) -> Iterator[Text | Padding]:
        task_width = min(max(len(row.task) for row in self.rows), LONGEST_TASK, width // 3)
        bar_width = max(min(width - task_width - _FIGURES, LONGEST_BAR), 0)
        scale_ms = _common_scale_ms(self.rows)
        yield _columns(letters, task_width, bar_width)
        for row in self.rows:
            line = _first_line(row, letters, task_width)
            line.append_text(bar(row.latency, row.deadline_ms, bar_width, scale_ms, letters))
            yield line
            yield from (
                Padding(text, (0, 0, 0, _INDENT)) for text in _second_lines(row, details)
            )


def bar(
    latency: Latency | None, deadline_ms: float, width: int, scale_ms: float, letters: Letters
) -> Text:
    """Return a latency as a bar of `width` letters, which is red beyond the deadline.

    It ends at BAR_DEADLINES deadlines, or where there is none (0) at `scale_ms`.
    """
    end_ms = deadline_ms * BAR_DEADLINES or scale_ms
    limit = round(deadline_ms / end_ms * width) if deadline_ms else width
    text = Text(no_wrap=True)
    for cell in range(width):
        middle_ms = (cell + 0.5) / width * end_ms
        letter = ' ' if latency is None else _letter(middle_ms, latency, letters)
        text.append(letter, style=GOOD if cell < limit else BAD)
    if limit < width:
        text = Text.assemble(text[:limit], (letters.deadline, QUIET), text[limit + 1:])
    if width and latency is not None and latency.p99 > end_ms:
        text = Text.assemble(text[:-1], (letters.beyond, BAD))
    return text


def _letter(at_ms: float, latency: Latency, letters: Letters) -> str:
    for name in ('p50', 'p95', 'p99'):
        if at_ms <= getattr(latency, name):
            return getattr(letters, name)
    return ' '


def _common_scale_ms(rows: list[TaskRow]) -> float:
    """Return where the bars of tasks without a deadline end: as those of the most patient one."""
    deadline_ms = max(row.deadline_ms for row in rows)
    longest_ms = max((row.latency.p99 for row in rows if row.latency), default=0.0)
    return deadline_ms * BAR_DEADLINES or longest_ms or 1.0


def _columns(letters: Letters, task_width: int, bar_width: int) -> Text:
    parts = ('p50', 'p95', 'p99', 'deadline')
    legend = ' '.join(f'{getattr(letters, part)} {part}' for part in parts)
    label = legend if len(legend) <= bar_width else 'latency'
    names = f'  {"task":{task_width}} {"fps":>5} {"p50":>5} {"p95":>5} {"p99":>5} '
    return Text(f'{names}{"drops":>6} {"late":>6} {label}', style='bold', no_wrap=True)


def _first_line(row: TaskRow, letters: Letters, task_width: int) -> Text:
    line = Text(no_wrap=True)
    line.append(f'{letters.task} ', style=_health(row))
    line.append(f'{_shortened(row.task, task_width):{task_width}} ', style='bold')
    line.append(f'{row.fps:5.1f} ')
    late = _lateness(row)
    for name in ('p50', 'p95', 'p99'):
        value = '' if row.latency is None else _ms(getattr(row.latency, name))
        line.append(f'{value:>5} ', style=late.get(name, Style()))
    line.append(f'{sum(row.dropped.values()):6} ')
    line.append(f'{row.deadline_misses:6} ', style=FAIR if row.deadline_misses else Style())
    return line


def _second_lines(row: TaskRow, details: bool) -> Iterator[Text]:
    """Yield what else there is to say; without `details` only what asks for attention."""
    off = row.threads_off_policy
    if details:
        yield Text(', '.join(_properties(row)), style=QUIET)
    if off:
        text = f'{off} of {row.threads} threads outside the scheduling class asked for'
        yield Text(text, style=FAIR)
    if details and row.dropped:
        reasons = ', '.join(f'{frames} {_clean(why)}' for why, frames in row.dropped.items())
        yield Text(f'dropped: {reasons}', style=QUIET)
    if row.state == GONE:
        yield Text('nobody publishes its status any more', style=BAD)
    elif row.silent:
        yield Text(f'silent for {row.heard_s:.0f} s', style=BAD)
    if row.message:
        yield Text(_clean(row.message), style=FAIR)


def _properties(row: TaskRow) -> list[str]:
    scheduling = row.scheduling_policy.removeprefix('SCHED_')
    if row.scheduling_priority:
        scheduling += f' {row.scheduling_priority}'
    found = (
        row.state, _clean(row.host), scheduling, f'cpu {row.cpu_percent:.0f} %',
        f'{row.rss_mb:.0f} MB', f'deadline {row.deadline_ms:g} ms' if row.deadline_ms else '',
        _clean(row.variant), _clean(row.style),
    )
    return [part for part in found if part]


def _health(row: TaskRow) -> str:
    if row.state == GONE or row.silent:
        return BAD
    if row.state != 'active' or row.message or row.threads_off_policy:
        return FAIR
    return GOOD


def _lateness(row: TaskRow) -> dict[str, str]:
    """Return a colour for each percentile that is beyond the deadline."""
    if row.latency is None or not row.deadline_ms:
        return {}
    names = ('p50', 'p95', 'p99')
    return {name: BAD for name in names if getattr(row.latency, name) > row.deadline_ms}


def _ms(value: float) -> str:
    """Return milliseconds in five letters or less."""
    if value < 99.95:
        return f'{value:.1f}'
    return f'{value:.0f}' if value < 99_999.5 else '>99 s'


def _shortened(name: str, width: int) -> str:
    """Return the end of a long name, which tells tasks apart."""
    name = _clean(name)
    return name if len(name) <= width else f'..{name[2 - width:]}'


def _clean(text: str) -> str:
    return ''.join(letter if letter.isprintable() else ' ' for letter in text)


def _lines(console: Console, options: ConsoleOptions, parts: list[Text | Padding]) -> int:
    return sum(len(console.render_lines(part, options)) for part in parts)

"""docs/faults.md: written from what the tests did and saw, and read back to be compared."""

import re
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from muon_ad.faults.fault import Amount
from muon_ad.faults.fault import KINDS

PATH = Path(__file__).resolve().parents[2] / 'docs' / 'faults.md'
BUCKETS_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)

HEADER = """# Faults

What happens when a camera, a bag or a process fails, and how long until results flow again.
The tables are written by the tests that do it, `make faults`; a test compares them with what it
sees. So each line was run: 160x120 images at 30 Hz, two tiny networks, all on two cores.

## To make a camera or bag fail

Set the parameter `faults.enabled` of a `realsense_camera`, `csi_camera` or `bag_player` node. Then

```
S=/csi/csi_camera/inject_fault
ros2 service call $S muon_ad_msgs/srv/InjectFault "{fault: 'stall for=2'}"
ros2 service call $S muon_ad_msgs/srv/InjectFault "{fault: clear}"
```

or give `faults.schedule`, a list of faults and when they begin, in seconds after activation:
`['stall at=5 for=2', 'drift at=10 for=60 ppm=200', 'no_depth at=20 stream=aligned']`. Every fault
takes `at` (0: now), `for` (1 s) and `stream`: a name, or a pattern such as `color*`; none means
the whole camera. Streams are `image` of a csi_camera; `color`, `depth` and `aligned` of a
realsense_camera; the topics of a bag; camera_info is `color_info` and so on. A fault that can
touch none of them is refused. What was touched is counted by kind in the values of `~/status` and
/diagnostics; the log says when a fault begins and ends, and at the end which of the schedule
touched nothing. `muon-ad replay --fault` takes the same words.

An `unplug` closes the source and opens it anew: a video, a folder or a recording begins again.

"""


@dataclass(frozen=True)
class Row:
    """What a fault does: the cells of its section's columns, and seconds until results flow."""

    section: str
    injected: str
    cells: tuple[str, ...]
    back_s: float | None = None     # None: nothing paused


@dataclass
class FaultTable:
    """The rows that were seen in this run."""

    rows: list[Row] = field(default_factory=list)

    def add(
        self, section: str, injected: str, cells: tuple[str, ...], back_s: float | None
    ) -> None:
        """Add a row that a test has just seen."""
        self.rows.append(Row(section, injected, cells, back_s))

    def write(self) -> None:
        """Write the document anew, from the rows that were seen."""
        PATH.write_text(document(self.rows), encoding='utf-8')


LEGEND = """
## What is seen

*goes on*: results as before. *pauses*: no results, as no images come. *refuses them*: the images
are counted as `dropped_invalid`, and the log says why, once. *back after*: from the end of the
fault to the next result of the slowest of the stages, for a process from the blow to its next
result; a dash where nothing paused. A camera that is gone for longer is looked for at least every
10 s, a connected RealSense four times a second. Here `stall_s` is 1 s, `hang_s` 3 s.

Nothing crashed in any line, and nothing was lost that was not counted: what a node received is
what it published, what newer images replaced, and what it refused. Noise in pixels and depth that
lies beside its object cannot be told from good ones: the results are as good as these are. Stamps
of a bag are those of whoever recorded it, and not put right: frame_sync says that nothing matches.

Where a camera's stamps are right, its clock is followed by a fit, as far as that goes. A drift of
more than 1000 ppm, ten times that of a quartz, leaves stamps off until a jump is seen: by 15 ms at
2000 ppm, by 200 ms at 100000. A step of more than 5 ms, or four times the usual scatter, is a
jump: seen with four frames where the clock gains by it, within two seconds where it loses. A
smaller one is followed within a minute, and until then stamps are off by less than it.
"""

NOTES = {
    'muon-ad replay': (
        'A bag of 30 images in three seconds; each fault lasts for the second one, and hits ten.',
        '',
    ),
}

# Sections in their order, with the columns between the first and the last one.
SECTIONS = {
    'realsense_camera': ('camera', 'style_transfer', 'object_detector', 'frame_sync'),
    'csi_camera': ('camera', 'style_transfer', 'object_detector', 'frame_sync'),
    'bag_player': ('player', 'style_transfer', 'object_detector', 'frame_sync'),
    'muon-ad replay': ('stylised', 'detections', 'with position', 'what is told'),
    'Processes under the supervisor': ('what /diagnostics says',),
}


def document(rows: list[Row]) -> str:
    """Return docs/faults.md."""
    parts = [HEADER, kinds_table(), LEGEND]
    for section, columns in SECTIONS.items():
        found = [row for row in rows if row.section == section]
        if found:
            parts.append(section_table(section, columns, found))
    return '\n'.join(parts)


def kinds_table() -> str:
    """Return the table of the kinds of fault."""
    lines = ['| kind | what happens | amounts |', '|---|---|---|']
    for name, kind in KINDS.items():
        amounts = ', '.join(_amount(key, amount) for key, amount in kind.amounts.items())
        lines.append(f'| `{name}` | {kind.does} | {amounts} |')
    return '\n'.join(lines) + '\n'


def section_table(section: str, columns: tuple[str, ...], rows: list[Row]) -> str:
    """Return one section."""
    title = section if section[0].isupper() else f'`{section}`'
    lines = [f'## {title}', '', *NOTES.get(section, ()), _line('injected', *columns, 'back after')]
    lines.append('|' + '---|' * (len(columns) + 2))
    lines += [_line(row.injected, *row.cells, back(row.back_s)) for row in rows]
    return '\n'.join(lines) + '\n'


def back(seconds: float | None) -> str:
    """Return the seconds as the next bound that people care for."""
    if seconds is None:
        return '–'
    bound = next((bound for bound in BUCKETS_S if seconds < bound), None)
    return f'< {bound:g} s' if bound else f'{seconds:.0f} s'


def read_rows(text: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the cells by section and injected fault, without the seconds."""
    found, section = {}, ''
    for line in text.splitlines():
        if line.startswith('## '):
            section = line[3:].strip('`')
        cells = [cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
        if section in SECTIONS and len(cells) > 2 and cells[0] not in ('injected', '---'):
            found[section, cells[0]] = tuple(cells[1:-1])
    return found


def _line(*cells: str) -> str:
    return '| ' + ' | '.join(cells) + ' |'


def _amount(name: str, amount: Amount) -> str:
    default = amount.default if isinstance(amount.default, str) else f'{amount.default:g}'
    return f'`{name}` ({default})'

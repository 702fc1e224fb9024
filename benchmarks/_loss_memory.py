"""Prints by how many MB a step of attention distillation raises the memory of a fresh process.

A process keeps what it has once taken, so that each loss is measured in one of its own, in which
loading is forgotten first: Linux sets the peak back on request.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import torch
from _pairs import default_pairs

from muon_ad.distill.backbone import Backbone
from muon_ad.distill.backbone import load_backbone
from muon_ad.distill.settings import Settings
from muon_ad.distill.stylize import stylize

_SMALL = 32     # pixels a side: loads whatever is loaded at the first use, and needs no memory


def measured(loss: str, size: int, attention: str, folder: Path) -> float:
    """Return the megabytes, measured in another process. Raises CalledProcessError."""
    command = [sys.executable, __file__, loss, str(size), attention, str(folder)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    """Measure in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('loss')
    parser.add_argument('size', type=int)
    parser.add_argument('attention')
    parser.add_argument('folder', type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(chosen.folder, attention=chosen.attention)
    _step(backbone, chosen.loss, _SMALL)
    Path('/proc/self/clear_refs').write_text('5')
    before = _kilobytes('VmRSS')
    _step(backbone, chosen.loss, chosen.size)
    print((_kilobytes('VmHWM') - before) / 1024)


def _step(backbone: Backbone, loss: str, size: int) -> None:
    pair = default_pairs(size, 1)[0]
    stylize(pair.content, pair.style, backbone, Settings(steps=1, loss=loss, size=size))


def _kilobytes(name: str) -> int:
    status = Path('/proc/self/status').read_text()
    return int(re.search(rf'{name}:\s+(\d+) kB', status)[1])


if __name__ == '__main__':
    main()

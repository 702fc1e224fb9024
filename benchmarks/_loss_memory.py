"""Prints by how many MB one loss of attention distillation raises the memory of a fresh process.

A process keeps what it has once taken, so that each loss is measured in one of its own.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import torch
from _pairs import default_pairs

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
    peaks = []
    for size in (_SMALL, chosen.size):
        pair = default_pairs(size, 1)[0]
        stylize(pair.content, pair.style, backbone,
                Settings(steps=1, loss=chosen.loss, size=size))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    print((peaks[1] - peaks[0]) / 1024)


if __name__ == '__main__':
    main()

"""The benchmarks are scripts, whose folder Python puts on the path when they run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'benchmarks'))

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# `tools` is run from the repository's root and not installed.
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

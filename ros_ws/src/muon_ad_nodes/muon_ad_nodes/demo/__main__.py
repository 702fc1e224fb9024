"""Entry of `python -m muon_ad_nodes.demo`: an interrupt ends it quietly at any moment."""

import importlib
import os
import signal
import sys

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _leave(*_: object) -> None:
    """End at once: while modules are imported, there is nothing to put in order yet."""
    os._exit(130)


for number in ENDING_SIGNALS:
    signal.signal(number, _leave)
command = importlib.import_module('muon_ad_nodes.demo.command')
for number in ENDING_SIGNALS:
    signal.signal(number, signal.default_int_handler)
sys.exit(command.main())

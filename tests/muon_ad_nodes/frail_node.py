"""A node that can be made to fail as real ones do; run it as a process.

While the file FRAIL_GATE exists it waits before it becomes a node, and then dies if FRAIL_GATE
says so. A white image hangs its worker.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from muon_ad_nodes.parts.frame_task import FrameTask
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.process import run


class FrailNode(SuiteNode):
    """Works on `image_raw` without any result."""

    def __init__(self):
        super().__init__('frail', ())
        self._task = None

    def build(self):
        self._task = FrameTask(self, self._infer, lambda *_: None)

    def start(self):
        self._task.start()

    def stop(self):
        self._task.stop()

    def teardown(self):
        if self._task is not None:
            self._task.destroy()
        self._task = None

    def describe(self, status):
        from diagnostic_msgs.msg import KeyValue

        status.values.append(KeyValue(key='frailty', value='great'))

    def _infer(self, rgb, age_ms):
        if rgb.min() == 255:
            threading.Event().wait()


def main() -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    gate = Path(os.environ.get('FRAIL_GATE', ''))
    while gate.is_file():
        if gate.read_text() == 'die':
            return 1
        time.sleep(0.01)
    return run(FrailNode)


if __name__ == '__main__':
    sys.exit(main())

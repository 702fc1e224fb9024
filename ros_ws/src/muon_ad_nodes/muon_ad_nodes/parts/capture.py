"""The thread of a camera node that takes frames and publishes them."""

import threading
from collections.abc import Callable

from muon_ad_nodes.parts.lifecycle import SuiteNode


class CaptureThread:
    """Calls `step(stopping)` again and again in a thread of its own, until told to stop.

    A step takes at most one frame and waits for it no longer than about a second, or until
    `stopping` is set; it returns False after the last frame. An exception in it is a defect or a
    dead camera: it ends the process through `node.fail`, to be restarted.
    """

    def __init__(self, node: SuiteNode, step: Callable[[threading.Event], bool]) -> None:
        self._node = node
        self._step = step
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name='capture')
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step in work."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                if not self._step(self._stopping):
                    return
        except Exception as error:  # noqa: BLE001 - reported by the node, which then ends
            self._node.fail(error)

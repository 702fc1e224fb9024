"""A network at work on the newest frame of `image_raw`, in a thread of its own."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

from muon_ad.images import ImageError
from muon_ad.images import to_rgb
from muon_ad.runtime.engine import EngineError
from muon_ad_nodes.parts.image_input import as_image
from muon_ad_nodes.parts.image_input import subscribe_images
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.mailbox import Mailbox
from muon_ad_nodes.parts.stamps import milliseconds
from muon_ad_nodes.parts.stamps import nanoseconds

Result = TypeVar('Result')


class FrameTask:
    """Subscribes `image_raw` for `node`, by `transport`, and works on its newest frame.

    `infer(rgb uint8 [H, W, 3], age_ms)` runs the network on a frame of that age, and
    `publish(message, result)` sends what it found for that Image. The executor stays free for
    services and parameters meanwhile. Frames that cannot be used are counted and logged by the
    node; any other exception is a defect and ends the process through `node.fail`.
    """

    def __init__(
        self,
        node: SuiteNode,
        infer: Callable[[np.ndarray, float], Result],
        publish: Callable[[Image, Result], None],
        transport: str = 'raw',
    ) -> None:
        self._node = node
        self._infer = infer
        self._publish = publish
        self._mailbox: Mailbox[Image | CompressedImage] | None = None
        self._thread: threading.Thread | None = None
        self._subscription = subscribe_images(node, 'image_raw', transport, self._on_image)

    def start(self) -> None:
        """Begin to work on frames."""
        self._mailbox = Mailbox()
        self._thread = threading.Thread(target=self._run, args=(self._mailbox,), name='worker')
        self._thread.start()

    def stop(self) -> None:
        """Cease, after the frame in work; frames that come in are ignored from now on."""
        if self._mailbox is None:
            return
        if self._mailbox.close():
            self._node.monitor.dropped_newer()      # none newer came, but it is not worked on
        self._mailbox = None
        if self._thread is not threading.current_thread():
            self._thread.join()

    def destroy(self) -> None:
        """Stop and unsubscribe."""
        self.stop()
        self._node.destroy_subscription(self._subscription)

    def _on_image(self, message: Image | CompressedImage) -> None:
        mailbox = self._mailbox
        if mailbox is None:
            return
        self._node.monitor.received()
        if mailbox.put(message):
            self._node.monitor.dropped_newer()

    def _run(self, mailbox: Mailbox[Image | CompressedImage]) -> None:
        while (message := mailbox.take()) is not None:
            try:
                with self._node.monitor.working(), self._node.in_budget():
                    self._work(message)
            except (ImageError, EngineError) as error:
                self._node.drop_invalid(str(error))
            except Exception as error:  # noqa: BLE001 - reported by the node, which then ends
                self._node.fail(error)
                return

    def _work(self, message: Image | CompressedImage) -> None:
        stamp = nanoseconds(message.header.stamp)
        age_ms = (self._node.get_clock().now().nanoseconds - stamp) * 1e-6
        begun = time.perf_counter()
        image = as_image(message)
        rgb = to_rgb(image)
        prepared = time.perf_counter()
        result = self._infer(rgb, age_ms + milliseconds(begun, prepared))
        inferred = time.perf_counter()
        self._publish(image, result)
        self._node.monitor.published(
            stamp,
            capture=age_ms,
            preprocess=milliseconds(begun, prepared),
            infer=milliseconds(prepared, inferred),
            publish=milliseconds(inferred, time.perf_counter()),
        )

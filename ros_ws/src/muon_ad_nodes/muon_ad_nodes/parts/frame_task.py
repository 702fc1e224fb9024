"""A network at work on the newest frame of `image_raw`, in a thread of its own."""

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

from muon_ad.images import ImageError
from muon_ad.images import to_rgb
from muon_ad.runtime.engine import EngineError
from muon_ad_nodes.parts.frame_times import FrameTimes
from muon_ad_nodes.parts.image_input import as_image
from muon_ad_nodes.parts.image_input import subscribe_images
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.mailbox import Mailbox
from muon_ad_nodes.parts.stamps import nanoseconds

Result = TypeVar('Result')

REPLACED = 'replaced by a newer frame'
STOPPED = 'left when the task stopped'


class FrameTask:
    """Subscribes `image_raw` for `node`, by `transport`, and works on its newest frame.

    `infer(rgb uint8 [H, W, 3], age_ms)` runs the network on a frame of that age, and
    `publish(message, result)` sends what it found for that Image. The executor stays free for
    services and parameters meanwhile. Frames that cannot be used are counted and logged by the
    node; any other exception is a defect and ends the process through `node.fail`. The stages of a
    frame: capture, until the executor hands it to us; wait, in the mailbox; preprocess, infer and
    publish.
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
        self._mailbox: Mailbox[tuple[Image | CompressedImage, FrameTimes]] | None = None
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
        if (left := self._mailbox.close()) is not None:
            self._drop(left, STOPPED)
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
        monitor, header = self._node.monitor, message.header
        monitor.received()
        frame = message, monitor.begin(nanoseconds(header.stamp), (header.frame_id,))
        if (lost := mailbox.put(frame)) is not None:
            self._drop(lost, STOPPED if lost is frame else REPLACED)

    def _drop(self, frame: tuple[Image | CompressedImage, FrameTimes], reason: str) -> None:
        _, times = frame
        times.mark('wait')
        self._node.monitor.dropped_newer(reason, times)

    def _run(self, mailbox: Mailbox[tuple[Image | CompressedImage, FrameTimes]]) -> None:
        while (frame := mailbox.take()) is not None:
            message, times = frame
            times.mark('wait')
            try:
                with self._node.monitor.working(), self._node.in_budget():
                    self._work(message, times)
            except (ImageError, EngineError) as error:
                times.mark('refuse')
                self._node.drop_invalid(str(error), times)
            except Exception as error:  # noqa: BLE001 - reported by the node, which then ends
                self._node.fail(error)
                return

    def _work(self, message: Image | CompressedImage, times: FrameTimes) -> None:
        image = as_image(message)
        rgb = to_rgb(image)
        times.mark('preprocess')
        result = self._infer(rgb, times.stages_ms()['total'])
        times.mark('infer')
        self._publish(image, result)
        times.mark('publish')
        self._node.monitor.published(times)

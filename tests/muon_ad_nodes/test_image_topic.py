"""What leaves a camera node, frame by frame."""

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image

from muon_ad.images import to_array
from muon_ad_nodes.parts.calibration import Calibration
from muon_ad_nodes.parts.image_topic import ImageTopic

GREYS = (10, 20, 30)


class Holding:
    """Sends an image when the next one comes."""

    def __init__(self) -> None:
        self._held: list[Image] = []

    def apply(self, stream, message) -> list:
        if stream != 'eye':
            return [message]
        self._held.append(message)
        return [self._held.pop(0)] if len(self._held) > 1 else []


@pytest.mark.parametrize('tampers, sent', [([], GREYS), ([Holding], GREYS[:-1])])
def test_every_frame_leaves_with_its_own_pixels_and_stamp(bench, tampers, sent):
    topic = ImageTopic(bench.probe, 'image_raw', 'eye', 'lens', *(make() for make in tampers))
    images = bench.listen(Image, 'image_raw')
    bench.wait(lambda: topic.wanted, 'the probe to subscribe')
    calibration = Calibration(8, 6)
    for number, grey in enumerate(GREYS):
        pixels = np.full((6, 8, 3), grey, np.uint8)
        topic.publish(pixels, 'rgb8', calibration, Time(sec=number))
    bench.wait(lambda: len(images) == len(sent), 'the images')
    topic.destroy()
    assert [int(np.unique(to_array(image)).item()) for image in images] == list(sent)
    assert [image.header.stamp.sec for image in images] == [*range(len(sent))]

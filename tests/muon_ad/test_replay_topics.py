"""Which topics of a bag a replay looks at."""

import numpy as np
import pytest

from muon_ad.bags import BagWriter
from muon_ad.bags import open_bag
from muon_ad.pictures import IMAGE
from muon_ad.replay import messages
from muon_ad.replay.error import ReplayError
from muon_ad.replay.topics import choose
from muon_ad.replay.topics import Stream
from muon_ad.testing.bags import camera_info
from muon_ad.testing.bags import write_bag

GREY = np.full((12, 16, 3), 90, np.uint8)
DEPTH = np.full((12, 16), 2000, np.uint16)
INFO = 'sensor_msgs/msg/CameraInfo'


def two_cameras(path):
    """A RealSense with raw depth beside the aligned one, and a CSI camera, raw and compressed."""
    header = messages.header(0, 'lens')
    with BagWriter(path) as bag:
        for name in ('color', 'depth', 'aligned_depth_to_color'):
            bag.write(f'/camera/{name}/camera_info', INFO, 1, camera_info(60, 16, 12, header))
        bag.write('/camera/color/image_raw', IMAGE, 2, messages.image(GREY, 'rgb8', header))
        for name in ('depth/image_rect_raw', 'aligned_depth_to_color/image_raw'):
            bag.write(f'/camera/{name}', IMAGE, 3, messages.image(DEPTH, '16UC1', header))
        bag.write('/csi/image_raw', IMAGE, 4, messages.image(GREY, 'rgb8', header))
        bag.write('/csi/image_raw/compressed', 'sensor_msgs/msg/CompressedImage', 4,
                  messages.png(GREY, header))
    return path


def test_every_camera_with_what_belongs_to_it(tmp_path):
    with open_bag(two_cameras(tmp_path / 'two.mcap')) as bag:
        streams, notes = choose(bag)
    assert streams == [
        Stream('/camera/color/image_raw', '/camera/aligned_depth_to_color/image_raw',
               '/camera/color/camera_info'),
        Stream('/csi/image_raw'),
    ]
    assert any('/csi/image_raw/compressed is left out' in note for note in notes)
    assert any('/camera/depth/image_rect_raw is left out: not known to be aligned' in note
               for note in notes)


def test_topics_by_option(tmp_path):
    with open_bag(two_cameras(tmp_path / 'two.mcap')) as bag:
        streams, _ = choose(
            bag, ['/csi/image_raw/compressed'], '/camera/depth/image_rect_raw',
            '/camera/depth/camera_info',
        )
        assert streams == [Stream(
            '/csi/image_raw/compressed', '/camera/depth/image_rect_raw',
            '/camera/depth/camera_info',
        )]
        for options, said in (
            ((['/csi/image_raw', '/csi/image_raw/compressed'],), 'choose one of each'),
            ((['/nowhere'],), r'image /nowhere: is not in the bag.*/csi/image_raw \(1 Image\)'),
            ((['/camera/color/camera_info'],), 'is sensor_msgs/msg/CameraInfo; expected'),
            (([], '/camera/depth/image_rect_raw'), 'choose its image, one of'),
            ((['/csi/image_raw'], '', '/csi/image_raw'), 'camera_info /csi/image_raw: is'),
        ):
            with pytest.raises(ReplayError, match=said):
                choose(bag, *options)


def test_names_of_the_nodes(tmp_path):
    path = write_bag(tmp_path / 'one.mcap', [GREY], depth=DEPTH, camera=60.0)
    with open_bag(path) as bag:
        assert choose(bag) == (
            [Stream('/image_raw', '/aligned_depth/image_raw', '/camera_info')], []
        )


def test_no_image(tmp_path):
    with BagWriter(tmp_path / 'none.mcap') as bag:
        bag.write('/d', IMAGE, 1, messages.image(DEPTH, '16UC1', messages.header(0, '')))
    with (
        open_bag(tmp_path / 'none.mcap') as bag,
        pytest.raises(ReplayError, match=r'no images of colour; it has /d \(1 Image\)'),
    ):
        choose(bag)

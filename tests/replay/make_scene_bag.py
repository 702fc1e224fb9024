"""Makes the committed bag, and the results that are expected of it, anew.

    python tests/replay/make_scene_bag.py

Three seconds of the simulated camera's scene: colour as PNG, aligned depth, calibration; as
realsense-ros names them. After a change of the shipped models only the golden is to be made:
add `--golden`, and look at the differences first (`muon-ad replay ... --expect ...` draws them).
"""

import argparse
from pathlib import Path

import numpy as np

from muon_ad.cli import main as muon_ad
from muon_ad.scene import Scene
from muon_ad.scene import View
from muon_ad.testing.bags import write_bag

DATA = Path(__file__).parent / 'data'
BAG, GOLDEN = DATA / 'scene.mcap', DATA / 'golden.mcap'

WIDTH, HEIGHT, FOV_DEG = 160, 120, 62
RATE, SECONDS = 5, 3
# One stylised image in so many is kept: they are a hundred times as large as detections.
EVERY = 5


def make_bag() -> None:
    """Write the bag."""
    scene = Scene(View.from_fov(WIDTH, HEIGHT, FOV_DEG))
    times = [number / RATE for number in range(RATE * SECONDS)]
    BAG.unlink(missing_ok=True)
    write_bag(
        BAG,
        [scene.rgb(t) for t in times],
        depth=[(scene.depth(t) * 1000).astype(np.uint16) for t in times],
        camera=FOV_DEG,
        rate=RATE,
        topic='/camera/color/image_raw',
        depth_topic='/camera/aligned_depth_to_color/image_raw',
        frame_id='camera_color_optical_frame',
        compressed=True,
    )


def make_golden() -> None:
    """Record what the shipped models make of it."""
    GOLDEN.unlink(missing_ok=True)
    status = muon_ad(['replay', str(BAG), '--record', str(GOLDEN), '--every', str(EVERY)])
    if status:
        raise SystemExit(status)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--golden', action='store_true', help='leave the bag as it is')
    if not parser.parse_args().golden:
        make_bag()
    make_golden()

"""Entry points of the executables. Nothing heavy is imported before real time is set up."""

import importlib
import signal
import sys

from muon_ad_nodes.parts import realtime


def _run(name: str) -> int:
    # Held until the process can end in order; see parts/process.py.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    realtime.start(name)
    process = importlib.import_module('muon_ad_nodes.parts.process')
    node = importlib.import_module(f'muon_ad_nodes.nodes.{name}')
    return process.run(node.make)


def realsense_camera() -> int:
    """Run the RealSense camera node."""
    return _run('realsense_camera')


def csi_camera() -> int:
    """Run the CSI camera node."""
    return _run('csi_camera')


def bag_player() -> int:
    """Run the node that plays bags."""
    return _run('bag_player')


def style_transfer() -> int:
    """Run the style transfer node."""
    return _run('style_transfer')


def object_detector() -> int:
    """Run the object detector node."""
    return _run('object_detector')


def frame_sync() -> int:
    """Run the node that pairs images by stamp."""
    return _run('frame_sync')


def supervisor() -> int:
    """Run the supervisor."""
    return _run('supervisor')


if __name__ == '__main__':
    sys.exit(_run(sys.argv.pop(1)))

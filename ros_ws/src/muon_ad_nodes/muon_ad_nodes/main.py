"""Entry points of the executables. Nothing heavy is imported before real time is set up."""

import importlib
import os
import signal
import sys

from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts import registry
from muon_ad_nodes.parts.arguments import full_name
from muon_ad_nodes.parts.processes import Recipe

# Of executables whose node has another name.
NODE_NAMES = {'realsense_camera': 'camera'}


def _run(name: str) -> int:
    # Held until the process can end in order; see parts/process.py.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    own_name = NODE_NAMES.get(name, name)
    _register(full_name(sys.argv[1:], own_name))
    realtime.start(name, own_name)
    process = importlib.import_module('muon_ad_nodes.parts.process')
    node = importlib.import_module(f'muon_ad_nodes.nodes.{name}')
    return process.run(node.make)


def _register(name: str) -> None:
    """Leave word of how this process was started, should it die before anyone has seen it."""
    try:
        registry.register(name, Recipe.of(os.getpid()), registry.launcher())
    except OSError as error:
        print(f'{name}: not started again if it dies at once: {error}', file=sys.stderr)


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


def stylizer() -> int:
    """Run the node that stylises on request, at best quality."""
    return _run('stylizer')


def frame_sync() -> int:
    """Run the node that pairs images by stamp."""
    return _run('frame_sync')


def supervisor() -> int:
    """Run the supervisor."""
    return _run('supervisor')


if __name__ == '__main__':
    sys.exit(_run(sys.argv.pop(1)))

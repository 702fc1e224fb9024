"""Lets the environment's Python find the built workspace, with nothing to source by hand.

Copied into the environment's site-packages and imported through a .pth file whenever its Python
starts. The dynamic loader reads LD_LIBRARY_PATH only at the start of a process, so Python is
started once more: by ros-wheels-bootstrapper, whose .pth file sorts after ours, or here where ROS
is sourced instead. The guard, inherited by child processes, names the prefix it was done for.
"""

import os
import sys

GUARD = '_MUON_AD_PREFIX'
BOOTSTRAPPER_GUARD = '_ROS_WHEELS_BOOTSTRAP_COMPLETE'


def prepend(variable: str, *paths: str) -> None:
    """Put `paths` before the others in the environment's `variable`, each only once."""
    others = [path for path in os.environ.get(variable, '').split(os.pathsep) if path]
    kept = [path for path in others if path not in paths]
    os.environ[variable] = os.pathsep.join([*paths, *kept])


def activate() -> None:
    """Set the search paths and start Python again, unless that is done already."""
    prefix = os.path.join(os.path.dirname(sys.prefix), 'ros_ws', 'install')
    if os.environ.get(GUARD) == prefix:
        return
    os.environ[GUARD] = prefix
    prepend('LD_LIBRARY_PATH', os.path.join(prefix, 'lib'), os.path.join(sys.prefix, 'lib'))
    here = os.path.dirname(__file__)
    if os.path.exists(os.path.join(here, 'ros_wheels_bootstrapper.pth')):
        prepend('AMENT_PREFIX_PATH', prefix, sys.prefix)
        os.environ.pop(BOOTSTRAPPER_GUARD, None)  # left by a Python of another environment
    else:
        prepend('AMENT_PREFIX_PATH', prefix)
        os.execve(sys.executable, sys.orig_argv, os.environ)


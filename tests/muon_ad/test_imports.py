"""What importing the runtime must not import, seen from a fresh interpreter."""

import subprocess
import sys

import pytest

FORBIDDEN = ('torch', 'torchvision', 'rclpy', 'sensor_msgs', 'muon_ad_msgs')
MODULES = (
    'package', 'installed', 'engine', 'engine_cache', 'style', 'detection', 'decoders', 'boxes',
    'positions', 'surroundings', 'entropy', 'lod', 'memory',
)


@pytest.mark.parametrize('module', MODULES)
def test_runtime_needs_neither_torch_nor_ros(module):
    code = (
        f'import sys, muon_ad.runtime.{module}\n'
        f'print([name for name in {FORBIDDEN} if name in sys.modules])'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True,
        env={**__import__('os').environ, 'PYTHONPATH': ':'.join(sys.path)},
    )
    assert done.stdout.strip() == '[]'

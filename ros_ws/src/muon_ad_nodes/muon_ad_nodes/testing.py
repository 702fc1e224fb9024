"""The fixture that needs ROS, of the plugin muon_ad.testing; see docs/testing.md."""

import os
import random
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from muon_ad_nodes.bench import Bench


@pytest.fixture
def node_bench(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator['Bench']:
    """A Bench for nodes in this process, closed after the test.

    In a ROS domain of its own on this machine alone, so that neither a robot in the network nor
    another test is heard. Where rclpy is initialised before, by another fixture, it uses that.
    """
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    if os.environ.get('ROS_DISTRO') == 'humble':    # has no discovery range
        monkeypatch.setenv('ROS_LOCALHOST_ONLY', '1')
    import rclpy

    from muon_ad_nodes.bench import Bench

    # Up to 101 DDS uses no ports that Linux hands out. By the system's own randomness: a test may
    # have seeded the generator for itself.
    bench = Bench(
        domain_id=random.SystemRandom().randint(1, 101),
        folder=tmp_path,
        update_goldens=request.config.getoption('--update-goldens'),
    )
    monkeypatch.setattr(rclpy, 'init', _refusing(rclpy.init))
    yield bench
    bench.close()
    bench.check()


def _refusing(init: Callable[..., Any]) -> Callable[..., Any]:
    """Return an rclpy.init that says what to do, where node_bench has initialised it already."""
    def refuse(*, context: Any = None, **options: Any) -> Any:
        if context is None:
            raise RuntimeError(
                'rclpy is initialised already, by node_bench; name the fixture that calls '
                'rclpy.init() before node_bench (which then uses it), or leave it out'
            )
        return init(context=context, **options)

    return refuse

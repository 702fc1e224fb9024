"""The bench for nodes in this process."""

import pytest

from muon_ad_nodes.bench import Bench


@pytest.fixture
def bench():
    """A Bench, closed after the test."""
    bench = Bench()
    yield bench
    bench.close()

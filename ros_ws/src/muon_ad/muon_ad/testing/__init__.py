"""A plugin for pytest: tests of robots that play bags (docs/testing.md).

Comes by itself where muon_ad is installed; `pytest_plugins = ['muon_ad.testing']` or
`pytest -p muon_ad.testing` load it elsewhere. Everything else is imported when a fixture is used,
so that other tests pay nothing.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# The fixtures that need ROS, where it is.
pytest_plugins = ['muon_ad_nodes.testing'] if importlib.util.find_spec('muon_ad_nodes') else []

_GOLDEN = 'muon_ad golden'


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --update-goldens."""
    parser.getgroup('muon_ad').addoption(
        '--update-goldens', action='store_true',
        help='assert_matches stores its results as the golden, instead of comparing',
    )


def pytest_configure(config: pytest.Config) -> None:
    """Silence what every import of ROS's message types warns about and no test can change."""
    config.addinivalue_line('filterwarnings', 'ignore::DeprecationWarning:lark')


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Note which goldens a test wrote; properties of a test reach the summary from anywhere."""
    result = sys.modules.get('muon_ad.testing.result')
    if result is not None:
        item.user_properties += [(_GOLDEN, line) for line in result.stored]
        result.stored.clear()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List the goldens that were written."""
    reports = [report for some in terminalreporter.stats.values() for report in some]
    lines = dict.fromkeys(
        value for report in reports if getattr(report, 'when', '') == 'teardown'
        for name, value in report.user_properties if name == _GOLDEN
    )
    if lines:
        terminalreporter.section('goldens written: look at them, then commit them')
    for line in lines:
        terminalreporter.line(line)


@pytest.fixture
def make_bag(tmp_path: Path) -> Callable[..., Path]:
    """make_bag(images, ...) writes a bag in the test's own folder and returns its path.

    Takes what muon_ad.testing.bags.write_bag takes, and `name` (default: bag.mcap, bag_1.mcap...).
    """
    from muon_ad.testing.bags import write_bag
    from muon_ad.testing.options import check_names

    def make(images: Any, *, name: str = '', **options: Any) -> Path:
        check_names('make_bag', options, write_bag, make)
        return write_bag(tmp_path / name if name else _new(tmp_path, 'bag'), images, **options)

    return make


@pytest.fixture
def run_networks(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """run_networks(bag, ...) runs the networks over a bag, without ROS; returns a Result.

    Takes what muon_ad.testing.networks.replay_bag takes.
    """
    from muon_ad.testing.networks import replay_bag

    def run(bag: str | Path, **options: Any) -> Any:
        result = replay_bag(bag, _new(tmp_path, 'results'), **options)
        result.update_goldens = request.config.getoption('--update-goldens')
        return result

    return run


def _new(folder: Path, stem: str) -> Path:
    """Return the name of an .mcap that is not there yet."""
    names = (f'{stem}_{number}' if number else stem for number in range(1 << 16))
    return next(path for path in (folder / f'{name}.mcap' for name in names) if not path.exists())

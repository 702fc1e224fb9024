"""The table of faults: filled by the tests that run, written with --write-fault-table."""

import pytest
from faults.table import FaultTable


def pytest_addoption(parser):
    parser.addoption(
        '--write-fault-table', action='store_true', default=False,
        help='write docs/faults.md from what the tests in tests/faults saw',
    )


@pytest.fixture(scope='session')
def fault_table():
    """The rows that this run has seen."""
    return FaultTable()

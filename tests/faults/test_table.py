"""docs/faults.md has the rows that the tests run, and says of each what they see."""

import pytest
from faults import test_cameras
from faults import test_processes
from faults import test_replay
from faults import test_replay_processes
from faults.processes import SECTION
from faults.table import document
from faults.table import PATH
from faults.table import read_rows
from faults.table import Row


def expected() -> list[Row]:
    """What the tests assert, all of it, whichever of them ran."""
    return [
        *(
            Row(failing, f'`{case.fault}`', case.cells)
            for failing, case in test_cameras.CASES
        ),
        *(Row(test_replay.SECTION, case.injected, case.cells) for case in test_replay.CASES),
        *(
            Row(SECTION, *row) for row in (*test_processes.ROWS, *test_replay_processes.ROWS)
        ),
    ]


@pytest.fixture(scope='module')
def text(request, fault_table) -> str:
    """The document, written just now where that is asked for."""
    if request.config.getoption('--write-fault-table', default=False):
        seen = {(row.section, row.injected) for row in fault_table.rows}
        assert seen == {(row.section, row.injected) for row in expected()}, 'tests failed'
        fault_table.write()
    return PATH.read_text(encoding='utf-8')


def test_the_document_says_what_the_tests_see(text):
    rows = {(row.section, row.injected): row.cells for row in expected()}
    assert read_rows(text) == rows, 'run `make faults`'


def test_the_tests_that_ran_saw_what_the_document_says(text, fault_table):
    rows = read_rows(text)
    for row in fault_table.rows:
        assert rows[row.section, row.injected] == row.cells


def test_the_rest_of_the_document_is_up_to_date(text):
    def frame(text: str) -> list[str]:
        """All lines but those with measured seconds."""
        return [line for line in text.splitlines() if not line.startswith('| `') or '{' in line]

    assert frame(text) == frame(document(expected())), 'run `make faults`'

"""Programs to set up and develop the suite; they need nothing but the standard library."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - said before newer syntax is met
    sys.exit(
        f'set-up: Python {sys.version_info[0]}.{sys.version_info[1]} is too old: install Python '
        '3.10, 3.11 or 3.12 and name it, as in `make demo PYTHON=python3.12`'
    )

"""The suite as one child process: the bringup with its launch file."""

import signal
import subprocess
import sys
from pathlib import Path

from muon_ad_nodes.parts.processes import signal_when_parent_dies


class Suite:
    """Runs a launch file through the bringup, its output in a log file."""

    def __init__(self, arguments: tuple[str, ...], log: Path) -> None:
        self.log = log
        with log.open('w') as stream:
            self._process = subprocess.Popen(
                [sys.executable, '-m', 'muon_ad_nodes.bringup', *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal reaches the demo alone, which ends the suite in order.
                start_new_session=True,
                preexec_fn=lambda: signal_when_parent_dies(signal.SIGINT),
            )

    @property
    def running(self) -> bool:
        """Whether the suite runs still."""
        return self._process.poll() is None

    def end(self) -> int:
        """Interrupt the suite, wait until every process of it is gone, return its exit status."""
        if self.running:
            self._process.send_signal(signal.SIGINT)
        return self._process.wait()

    def complaints(self, most: int = 12) -> list[str]:
        """Return the last lines of the log that tell of errors."""
        lines = self.log.read_text(errors='replace').splitlines()
        telling = [line for line in lines if '[ERROR]' in line or 'Error' in line]
        return (telling or lines)[-most:]

"""Takes this process out of its real-time class while it is over its budget.

Under FIFO a task that runs away starves its core of all else: the kernel's throttling leaves 5 %.
"""

import os
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager

from muon_ad_nodes.parts import realtime
from muon_ad_nodes.parts.budget import Budget
from muon_ad_nodes.parts.realtime import RealtimeSettings

# How often a frame in work is looked at: within a quarter of what it may take.
LEAST_PERIOD_S, MOST_PERIOD_S = 0.02, 0.5


class BudgetGuard:
    """Measures the CPU time of frames, of all threads together, and switches the process's class.

    A frame that never ends is seen by a thread one priority above the others, so that they cannot
    starve it. `changed` is called, from whatever thread, after each switch.
    """

    def __init__(
        self, settings: RealtimeSettings, budget: Budget, changed: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._budget = budget
        self._changed = changed
        self._lock = threading.Lock()
        self._begun: float | None = None
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name='budget_guard', daemon=True)
        self._watcher.start()

    @property
    def message(self) -> str:
        """What a person should know; empty while the task is within its budget."""
        budget = self._budget
        if budget.kept:
            return ''
        return (
            f'out of {self._settings.policy}: work on a frame took more than {budget.limit_ms:g} '
            f'ms of CPU time; back after {budget.within} frames within that (realtime.budget_ms)'
        )

    @contextmanager
    def frame(self) -> Iterator[None]:
        """Mark the block as work on one frame."""
        self._begun = begun = time.process_time()
        try:
            yield
        finally:
            self._begun = None
            spent_ms = (time.process_time() - begun) * 1e3
            self._judge(self._budget.finished, spent_ms)

    def close(self) -> None:
        """End the watching; the process returns to its class."""
        self._stopping.set()
        self._watcher.join()
        with self._lock:
            if not self._budget.kept:
                realtime.set_class(self._settings.policy, self._settings.level)

    def _watch(self) -> None:
        self._rise()
        period = self._budget.patience_ms * 1e-3 / 4
        while not self._stopping.wait(min(max(period, LEAST_PERIOD_S), MOST_PERIOD_S)):
            begun = self._begun
            if begun is not None:
                self._judge(self._budget.under_way, (time.process_time() - begun) * 1e3)

    def _judge(self, rule: Callable[[float], bool], spent_ms: float) -> None:
        with self._lock:
            switched = rule(spent_ms)
            if switched:
                self._switch()
        if switched:
            self._changed()

    def _switch(self) -> None:
        if self._budget.kept:
            realtime.set_class(self._settings.policy, self._settings.level)
            self._rise()
        else:
            realtime.set_class(self._settings.fallback, 0)

    def _rise(self) -> None:
        """Put the watcher above the threads that it watches."""
        level = min(self._settings.level + 1, realtime.HIGHEST)
        policy = realtime.POLICIES[self._settings.policy]
        os.sched_setscheduler(self._watcher.native_id, policy, os.sched_param(level))

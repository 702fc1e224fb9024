"""A one-slot mailbox: the newest item waits, what it replaced is counted."""

import threading
from typing import Generic
from typing import TypeVar

T = TypeVar('T')


class Mailbox(Generic[T]):
    """Hands the newest item from one thread to another.

    A consumer that is slower than its producer works on fresh items only: its lag never grows
    beyond one item. Nothing is lost unseen: `put` and `close` return it.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: T | None = None
        self._closed = False

    def put(self, item: T) -> T | None:
        """Store `item`; return what is lost: that which it replaced, or itself once closed."""
        with self._condition:
            if self._closed:
                return item
            replaced, self._item = self._item, item
            self._condition.notify()
            return replaced

    def take(self, timeout: float | None = None) -> T | None:
        """Wait for an item and take it; None once closed, or after `timeout` seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._item is not None, timeout)
            if self._closed:
                return None
            item, self._item = self._item, None
            return item

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        with self._condition:
            return self._closed

    def close(self) -> T | None:
        """End every `take`, present and future, with None; return the item that was left."""
        with self._condition:
            left, self._item = self._item, None
            self._closed = True
            self._condition.notify_all()
            return left

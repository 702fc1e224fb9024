"""An action server for goals that take long, without anything waiting for them in the executor."""

from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer
from rclpy.action.server import ServerGoalHandle


class DeferredActionServer(ActionServer):
    """Leaves an executing goal alone until `finish` is called.

    rclpy expects a callback that returns with the result: one that blocks would block the whole
    node, and a coroutine that waits makes the executor spin at full load. To be used from the
    executor's thread only, as all of rcl's actions.
    """

    def notify_execute(
        self, goal_handle: ServerGoalHandle, execute_callback: Callable | None
    ) -> None:
        """Do nothing: `goal_handle.execute()` has set the state; others do the work."""

    def finish(
        self, goal_handle: ServerGoalHandle, end: Callable[[ServerGoalHandle], Any]
    ) -> None:
        """Have the executor call `end`, which sets the final state, and send what it returns."""
        super().notify_execute(goal_handle, end)
